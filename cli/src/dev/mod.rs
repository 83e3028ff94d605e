//! `portolan dev`: the same YAML on one machine, without a cluster.
//!
//! files → objects → fleet (bridges) → inputs → the gateway, in this process; what it has loaded comes back as rows.

mod cluster_only;
mod environment;
mod files;
mod fleet;
mod health;
mod http_process;
mod inputs;
mod keys;
mod launch;
mod loaded;
mod objects;
mod output;
mod problem;
mod remote;
mod revision;
mod rows;
mod session;
mod suggest;
mod toolsets;
mod watch;
mod yaml;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use portolan_crds::MCPServer;

use crate::exit::Failure;

/// Serve MCPServers from files on this machine, without a cluster.
///
/// Reads the same YAML as `kubectl apply` (MCPServer, MCPGateway, Secret, ConfigMap), runs each server's command here
/// in place of its image, and serves the endpoints that a cluster's gateway would. Changed files are read again at
/// once; one that is not right keeps its last good version.
///
/// A server gets the environment of its file, and PATH, HOME, USER, SHELL, TMPDIR and locale of this shell. A server
/// that speaks HTTP has its port once on this machine: a change of it ends the old process first. A remote server is
/// reached as from a cluster: over TLS by the certificates of its Secrets and ConfigMaps, and at private addresses only
/// where they are allowed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan dev -f examples/quickstart
  portolan dev -f server.yaml -f secrets.yaml --listen 127.0.0.1:9000
  portolan dev -f . -o json | jq -c 'select(.ready)'")]
pub(crate) struct DevArgs {
    /// A file, or a directory with *.yaml, *.yml and *.json files; may be repeated
    #[arg(long, short, required = true, value_name = "FILE|DIR")]
    file: Vec<PathBuf>,

    /// Where to serve; loopback only, port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = loopback)]
    listen: SocketAddr,

    /// A host of a remote server that may have addresses of private networks; may be repeated. This machine always may
    #[arg(long, value_name = "HOST")]
    allow_private_host: Vec<String>,

    /// How the state of servers is printed
    #[arg(long, short, default_value = "table")]
    output: output::Format,
}

impl DevArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == output::Format::Json
    }
}

/// `dev` has neither TLS nor, by default, authentication.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = match text.strip_prefix("localhost:").map(str::parse) {
        Some(Ok(port)) => (Ipv4Addr::LOCALHOST, port).into(),
        _ => text.parse().map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:8080".to_owned())?,
    };
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("dev serves this machine alone: write a loopback address, such as 127.0.0.1:8080".into())
    }
}

/// The `MCPServer` of that name in `files`.
pub(crate) fn server_in(files: &[PathBuf], namespace: &str, name: &str) -> Result<MCPServer, Failure> {
    let mut loaded = files::Files::new(files.to_vec()).load();
    let wanted = objects::Name { namespace: namespace.to_owned(), name: name.to_owned() };
    if let Some(located) = loaded.objects.servers.remove(&wanted) {
        return Ok(located.object);
    }
    if let Some(problem) = loaded.problems.first() {
        return Err(Failure::usage(problem.to_string()));
    }
    let names: Vec<String> = loaded.objects.servers.keys().map(ToString::to_string).collect();
    let there = if names.is_empty() { "no MCPServer".into() } else { names.join(", ") };
    Err(Failure::usage(format!("there is no MCPServer {wanted} in the files")).hint(format!("in them: {there}")))
}

/// `portolan dev`.
pub(crate) async fn run(args: &DevArgs) -> Result<(), Failure> {
    if let Some(absent) = args.file.iter().find(|path| !path.exists()) {
        let failure = Failure::usage(format!("there is no file or directory {}", absent.display()));
        return Err(match absent.to_str() {
            Some("-") => failure.hint("dev follows changes of files, so it reads no standard input: name a file"),
            _ => failure,
        });
    }
    session::run(args).await
}
