//! The server that is asked: its checks and its endpoint, from the cluster or from files.

use std::path::PathBuf;

use clap::Args;
use portolan_crds::MCPServer;
use reqwest::Url;

use crate::client::connection;
use crate::cluster::{self, InCluster};
use crate::dev;
use crate::exit::{Exit, Failure};

/// Where `portolan dev` serves when it is not told otherwise.
const DEV: &str = "http://127.0.0.1:8080";

/// Where the server is looked up and reached.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// Its namespace; the kubeconfig's when not given, or "default" with --file
    #[arg(long, short)]
    namespace: Option<String>,

    /// Read it from a file or directory, as `portolan dev` does, and not from the cluster; may be repeated
    #[arg(long, short, value_name = "FILE|DIR")]
    file: Vec<PathBuf>,

    /// Its endpoint; when not given, the one in its status, or with --file the one of `portolan dev`
    #[arg(long, value_parser = connection::url)]
    url: Option<Url>,
}

/// A server that is asked.
pub(crate) struct Source {
    /// `namespace/name`.
    pub(crate) name: String,
    pub(crate) server: MCPServer,
    pub(crate) url: Url,
}

impl PlaceArgs {
    /// Whether it is looked up in files, not in the cluster.
    pub(crate) fn is_in_files(&self) -> bool {
        !self.file.is_empty()
    }

    /// Finds the server of that name.
    pub(crate) async fn find(&self, name: &str) -> Result<Source, Failure> {
        let (namespace, server) = if self.is_in_files() { self.in_files(name)? } else { self.in_cluster(name).await? };
        let hint = format!("kubectl describe mcpserver -n {namespace} {name} says why");
        let name = format!("{namespace}/{name}");
        let endpoints = server.status.as_ref().map(|status| status.endpoints.as_slice()).unwrap_or_default();
        let url = match (&self.url, endpoints.first()) {
            (Some(url), _) => url.clone(),
            (None, _) if self.is_in_files() => connection::url(&format!("{DEV}/{name}/mcp")).map_err(Failure::usage)?,
            (None, Some(endpoint)) => connection::url(&endpoint.url).map_err(Failure::usage)?,
            (None, None) => {
                let failure = Failure::new(Exit::Negative, format!("no gateway serves MCPServer {name}"));
                return Err(failure.hint(hint));
            }
        };
        Ok(Source { name, server, url })
    }

    fn in_files(&self, name: &str) -> Result<(String, MCPServer), Failure> {
        let namespace = self.namespace.clone().unwrap_or_else(|| "default".into());
        let server = dev::server_in(&self.file, &namespace, name)?;
        Ok((namespace, server))
    }

    async fn in_cluster(&self, name: &str) -> Result<(String, MCPServer), Failure> {
        let (servers, namespace) = InCluster { namespace: self.namespace.clone() }.servers().await?;
        let server = servers.get(name).await;
        Ok((namespace, server.map_err(|error| cluster::failure(&error, name))?))
    }
}
