//! `portolan operator`: reconciles MCPServers and MCPGateways.

use std::net::SocketAddr;

use clap::Args;
use portolan_operator::config::{Config, DefaultGateway, Images, LeaseName};
use portolan_operator::{RunError, run as operate};
use portolan_snapshot::ClusterDomain;

use crate::exit::{Exit, Failure};
use crate::peers::Peers;
use crate::shutdown;

/// Run the operator: it makes pods of MCPServers and proxies of MCPGateways.
///
/// The chart starts it. It speaks to the cluster that its service account or kubeconfig names.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portolan operator --namespace portolan-system --tenant-namespaces team-a,team-b \\
    --image registry.example/portolan:1 --bridge-image registry.example/portolan-bridge:1")]
pub(crate) struct OperatorArgs {
    /// Namespace of the operator itself: of its lease, and of the gateway that it makes
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,

    /// Name of this process in the lease and in Events
    #[arg(long, env = "POD_NAME", default_value = "portolan-operator")]
    identity: String,

    /// Namespaces whose MCPServers count; the operator's own when not given
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE,…")]
    tenant_namespaces: Vec<String>,

    /// Namespaces whose MCPGateways count; the operator's own when not given
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE,…")]
    platform_namespaces: Vec<String>,

    /// Names that a gateway may have
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", default_value = "default")]
    gateway_names: Vec<String>,

    /// Service account of gateway pods
    #[arg(long, value_name = "NAME", default_value = "portolan-gateway")]
    gateway_service_account: String,

    /// Who may read the metrics of gateways: a JSON list of NetworkPolicyPeer
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = Peers::read)]
    gateway_metrics_from: Peers,

    /// Image of this program, for gateways
    #[arg(long)]
    image: String,

    /// Image of the bridge, for servers
    #[arg(long)]
    bridge_image: String,

    /// When both are pulled; Kubernetes decides when not given
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,

    /// Names of pull secrets for both
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    image_pull_secrets: Vec<String>,

    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value_t)]
    cluster_domain: ClusterDomain,

    /// Hosts of remote servers that may have addresses of private networks
    #[arg(long, value_delimiter = ',', value_name = "HOST,…")]
    allowed_private_hosts: Vec<String>,

    /// How many servers roll at once when another release of the operator makes other pods of their specs
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    release_rollouts: u16,

    /// Make an MCPGateway of this name in the operator's namespace when there is none
    #[arg(long, value_name = "NAME")]
    default_gateway: Option<String>,

    /// Audience of the tokens that it admits
    #[arg(long, value_name = "AUDIENCE", default_value = "portolan", requires = "default_gateway")]
    default_gateway_audience: String,

    /// Its replicas
    #[arg(long, value_name = "N", default_value_t = 2, requires = "default_gateway",
          value_parser = clap::value_parser!(i32).range(1..=50))]
    default_gateway_replicas: i32,

    /// Where /livez, /readyz and /metrics are served; the port 8082 when not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,

    /// How many objects of one kind are reconciled at once, per namespace
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

impl OperatorArgs {
    fn config(&self) -> Config {
        let images = Images {
            portolan: self.image.clone(),
            bridge: self.bridge_image.clone(),
            pull_policy: self.image_pull_policy.clone(),
            pull_secrets: given(&self.image_pull_secrets),
        };
        let mut config = Config::new(&self.namespace, images);
        config.tenant_namespaces = or_else(&self.tenant_namespaces, config.tenant_namespaces);
        config.platform_namespaces = or_else(&self.platform_namespaces, config.platform_namespaces);
        config.gateway_names = or_else(&self.gateway_names, config.gateway_names);
        config.default_gateway = self.default_gateway.as_ref().map(|name| DefaultGateway {
            name: name.clone(),
            namespace: self.namespace.clone(),
            audience: self.default_gateway_audience.clone(),
            replicas: self.default_gateway_replicas,
        });
        config.lease = LeaseName { namespace: self.namespace.clone(), ..config.lease };
        config.admin = self.admin.unwrap_or(config.admin);
        config.gateway_service_account.clone_from(&self.gateway_service_account);
        config.gateway_metrics_from.clone_from(&self.gateway_metrics_from.0);
        config.cluster_domain = self.cluster_domain.to_string();
        config.allowed_private_hosts = given(&self.allowed_private_hosts);
        config.release_rollouts = self.release_rollouts;
        config.concurrency = self.concurrency;
        config.identity.clone_from(&self.identity);
        config
    }
}

/// What a comma-separated flag names: an empty value names nothing.
fn given(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn or_else(names: &[String], otherwise: Vec<String>) -> Vec<String> {
    let names = given(names);
    if names.is_empty() { otherwise } else { names }
}

/// `portolan operator`.
pub(crate) async fn run(args: &OperatorArgs) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals()?;
    operate(args.config(), shutdown).await.map_err(|error| {
        let exit = match error {
            RunError::NoCluster(_) | RunError::Client(_) => Exit::Unreachable,
            _ => Exit::Negative,
        };
        Failure::new(exit, error.to_string())
    })
}
