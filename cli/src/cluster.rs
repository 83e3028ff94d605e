//! The cluster that the kubeconfig names, for the commands that look at a server there.

use clap::Args;
use kube::api::Api;
use kube::{Client, Config};
use portolan_crds::MCPServer;

use crate::exit::{Exit, Failure};

/// A namespace of the cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct InCluster {
    /// Its namespace; the kubeconfig's when not given
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
}

impl InCluster {
    /// The servers of the namespace, and its name.
    pub(crate) async fn servers(&self) -> Result<(Api<MCPServer>, String), Failure> {
        let config = Config::infer().await.map_err(|error| {
            Failure::usage(format!("there is no cluster to ask: {error}")).hint("set KUBECONFIG to one's file")
        })?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| unreachable(&error))?;
        Ok((Api::namespaced(client, &namespace), namespace))
    }
}

/// What a failed exchange about the server `name` means.
pub(crate) fn failure(error: &kube::Error, name: &str) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            Failure::usage(format!("there is no MCPServer {name}")).hint("kubectl get mcpservers -A lists them")
        }
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            Failure::new(Exit::Denied, status.message.clone())
        }
        error => unreachable(error),
    }
}

fn unreachable(error: &kube::Error) -> Failure {
    Failure::new(Exit::Unreachable, format!("the API server does not answer: {error}"))
}
