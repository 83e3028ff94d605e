//! `portolan gateway`: one replica of a gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use portolan_crds::ports;
use portolan_gateway::config::{Cluster, Namespaces, Seal};
use portolan_gateway::{Bounds, Config, Drain, Source};
use portolan_snapshot::ClusterDomain;

use crate::exit::{Exit, Failure};
use crate::shutdown;

/// Run one replica of a gateway: it authenticates callers and relays their requests to servers.
///
/// The operator starts it. It reads its MCPGateway, the MCPServers of the enrolled namespaces and one Secret.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portolan gateway --name default --namespace portolan-system --tenant-namespaces team-a,team-b")]
pub(crate) struct GatewayArgs {
    /// Name of the MCPGateway
    #[arg(long)]
    name: String,

    /// Namespace of the MCPGateway
    #[arg(long)]
    namespace: String,

    /// Namespaces whose MCPServers may be served; every one when not given, which needs the rights to watch them
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE,…", value_parser = NonEmptyStringValueParser::new())]
    tenant_namespaces: Vec<String>,

    /// DNS domain of the cluster: the gateway answers to its Service's name in it
    #[arg(long, value_name = "DOMAIN", default_value_t)]
    cluster_domain: ClusterDomain,

    /// File with the key that seals the last good configuration
    #[arg(long, value_name = "FILE", requires = "state_dir")]
    seal_key: Option<PathBuf>,

    /// Directory for the last good configuration: a start while the API server is away serves from it
    #[arg(long, value_name = "DIR", requires = "seal_key")]
    state_dir: Option<PathBuf>,

    /// Where clients are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = any(ports::GATEWAY_HTTP))]
    listen: SocketAddr,

    /// Where /livez, /readyz, /metrics and the operator's stream are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = any(ports::GATEWAY_ADMIN))]
    admin: SocketAddr,
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

impl GatewayArgs {
    fn seal(&self) -> Option<Seal> {
        let (key_file, directory) = (self.seal_key.clone()?, self.state_dir.clone()?);
        Some(Seal { directory, key_file })
    }

    fn namespaces(&self) -> Namespaces {
        match &*self.tenant_namespaces {
            [] => Namespaces::All,
            named => Namespaces::Listed(named.to_vec()),
        }
    }
}

/// `portolan gateway`.
pub(crate) async fn run(args: &GatewayArgs) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals()?;
    let client = kube::Client::try_default()
        .await
        .map_err(|error| Failure::new(Exit::Unreachable, format!("no Kubernetes API server is configured: {error}")))?;
    let cluster = Cluster {
        client,
        namespace: args.namespace.clone(),
        name: args.name.clone(),
        namespaces: args.namespaces(),
        cluster_domain: args.cluster_domain.clone(),
        seal: args.seal(),
    };
    let config =
        Config { listen: args.listen, admin: Some(args.admin), bounds: Bounds::default(), drain: Drain::default() };
    let ended =
        portolan_gateway::run(config, Source::Cluster(Box::new(cluster)), async move { shutdown.cancelled().await });
    ended.await.map_err(|error| Failure::new(Exit::Negative, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        gateway: GatewayArgs,
    }

    fn domain(flags: &[&str]) -> Result<String, String> {
        let line = ["gateway", "--name=default", "--namespace=portolan"].iter().chain(flags);
        let parsed = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        Ok(parsed.gateway.cluster_domain.to_string())
    }

    #[test]
    fn the_clusters_domain_is_a_dns_name_and_cluster_local_unless_said_otherwise() {
        assert_eq!(domain(&[]).as_deref(), Ok("cluster.local"));
        assert_eq!(domain(&["--cluster-domain=corp.example"]).as_deref(), Ok("corp.example"));
        let refused = domain(&["--cluster-domain=Corp.Example."]).expect_err("no domain");
        assert!(refused.contains("lower case and without a dot at its end"), "{refused}");
    }
}
