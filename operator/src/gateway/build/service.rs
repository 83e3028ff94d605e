//! The gateway's Service.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Parts, deployment::HTTP, selector};

/// The Service's port.
const PORT: i32 = 80;

pub(super) fn service(parts: &Parts<'_>) -> Service {
    let port = ServicePort {
        name: Some(HTTP.into()),
        port: PORT,
        target_port: Some(IntOrString::String(HTTP.into())),
        protocol: Some("TCP".into()),
        app_protocol: Some("http".into()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(selector(parts.owner.name())),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    Service { metadata: parts.metadata(), spec: Some(spec), ..Service::default() }
}
