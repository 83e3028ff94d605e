//! The headless Service of a revision. Gateways read its EndpointSlices and reach the pods directly.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use portolan_crds::{labels, ports};

use super::Parts;

/// Name of the bridge's data port.
pub(super) const DATA: &str = "data";
/// Name of the bridge's admin port.
pub(super) const ADMIN: &str = "admin";

pub(super) fn service(parts: &Parts<'_>, revision: &str) -> Service {
    Service {
        metadata: parts.revision_metadata(revision),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("None".into()),
            ports: Some(vec![port(DATA, ports::BRIDGE_DATA), port(ADMIN, ports::BRIDGE_ADMIN)]),
            selector: Some([(labels::REVISION.to_owned(), revision.to_owned())].into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}
