//! Every setting of the operator, with its default.

use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use ring::digest::{SHA256, digest};

use crate::hex::hex;

/// What the operator was told at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Namespaces whose `MCPServer` objects count.
    pub tenant_namespaces: Vec<String>,
    /// Namespaces whose `MCPGateway` objects count.
    pub platform_namespaces: Vec<String>,
    /// Names that a gateway may have: the chart's Roles name their Secrets one by one.
    pub gateway_names: Vec<String>,
    /// Images of what the operator runs.
    pub images: Images,
    /// The gateway that the operator makes by itself.
    pub default_gateway: Option<DefaultGateway>,
    /// The lease that says who reconciles.
    pub lease: LeaseName,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin: SocketAddr,
    /// Labels of the operator's own pods and namespace: the NetworkPolicies of gateways and servers admit these.
    pub operator_namespace: String,
    /// The service account of gateway pods; the chart makes it in each platform namespace.
    pub gateway_service_account: String,
    /// Who may read the metrics of gateways, besides the operator.
    pub gateway_metrics_from: Vec<NetworkPolicyPeer>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Hosts of remote servers that may have addresses of private networks.
    pub allowed_private_hosts: Vec<String>,
    /// How many servers roll at once because another release of the operator makes other pods of their specs.
    pub release_rollouts: u16,
    /// How many objects of one kind are reconciled at once, per namespace.
    pub concurrency: u16,
    /// Name of this process, in the lease and in Events.
    pub identity: String,
}

/// Images, and how they are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Image of the binary `portolan`, for gateways.
    pub portolan: String,
    /// Image that holds `portolan-bridge`, copied into server pods by an init container.
    pub bridge: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Option<String>,
    /// Names of pull secrets, which must exist wherever such a pod runs.
    pub pull_secrets: Vec<String>,
}

/// A gateway that is made when there is none of its name, and never changed afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultGateway {
    /// Its name.
    pub name: String,
    /// Its namespace, one of the platform's.
    pub namespace: String,
    /// Audience of the service account tokens that it admits.
    pub audience: String,
    /// How many pods.
    pub replicas: i32,
}

/// Where the lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Namespace, usually the operator's own.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Label value of the operator's pods under `app.kubernetes.io/name`: NetworkPolicies admit them by it.
pub const OPERATOR_APP: &str = "portolan-operator";
/// The operator's admin port.
pub const ADMIN_PORT: u16 = 8082;

impl Config {
    /// The defaults for an operator that runs in `namespace`, serves it as tenant and platform, and runs `images`.
    #[must_use]
    pub fn new(namespace: &str, images: Images) -> Self {
        Self {
            tenant_namespaces: vec![namespace.to_owned()],
            platform_namespaces: vec![namespace.to_owned()],
            gateway_names: vec!["default".into()],
            images,
            default_gateway: Some(DefaultGateway {
                name: "default".into(),
                namespace: namespace.to_owned(),
                audience: "portolan".into(),
                replicas: 2,
            }),
            lease: LeaseName { namespace: namespace.to_owned(), name: "portolan-operator".into() },
            admin: SocketAddr::from((Ipv4Addr::UNSPECIFIED, ADMIN_PORT)),
            operator_namespace: namespace.to_owned(),
            gateway_service_account: "portolan-gateway".into(),
            gateway_metrics_from: Vec::new(),
            cluster_domain: "cluster.local".into(),
            allowed_private_hosts: Vec::new(),
            release_rollouts: 3,
            concurrency: 8,
            identity: "portolan-operator".into(),
        }
    }

    /// What servers' pods are made of besides their specs, as a word: another release makes others of the same spec.
    #[must_use]
    pub fn release(&self) -> String {
        let Self { images, allowed_private_hosts, .. } = self;
        let made_of = format!("{} {images:?} {allowed_private_hosts:?}", env!("CARGO_PKG_VERSION"));
        hex(&digest(&SHA256, made_of.as_bytes()).as_ref()[..4])
    }

    /// Whether a gateway of that name in that namespace counts.
    #[must_use]
    pub fn enrols_gateway(&self, namespace: &str, name: &str) -> bool {
        self.platform_namespaces.iter().any(|enrolled| enrolled == namespace)
            && self.gateway_names.iter().any(|enrolled| enrolled == name)
    }
}
