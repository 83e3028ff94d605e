//! `portolan rollout`: how far the revisions of a server are, and holds them.

use clap::{Args, Subcommand};
use kube::api::{Patch, PatchParams};
use portolan_crds::conditions::types;
use serde_json::json;

use crate::cluster::{self, InCluster};
use crate::exit::{Exit, Failure, note, print};
use crate::table;

/// See and hold the rollout of a server's revisions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan rollout status docs
  portolan rollout pause docs && kubectl apply -f docs.yaml
  portolan rollout resume docs

Exit codes: 0 ok, 1 usage, 2 the server is not Ready (status), 4 the API server is unreachable, 6 denied")]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the revisions, and what the server waits for
    Status(Server),
    /// Have the revision that serves go on doing so, whatever is applied
    Pause(Server),
    /// Have a new revision serve as soon as it can
    Resume(Server),
}

#[derive(Args, Debug)]
struct Server {
    /// Name of the MCPServer
    server: String,

    #[command(flatten)]
    place: InCluster,
}

/// `portolan rollout`.
pub(crate) async fn run(args: &RolloutArgs) -> Result<(), Failure> {
    match &args.command {
        Command::Status(server) => status(server).await,
        Command::Pause(server) => {
            server.set_paused(true).await?;
            print(&format!("{} is paused: the revision that serves goes on\n", server.server))
        }
        Command::Resume(server) => {
            server.set_paused(false).await?;
            print(&format!("{} goes on: a new revision serves as soon as it can\n", server.server))
        }
    }
}

async fn status(server: &Server) -> Result<(), Failure> {
    let (servers, _) = server.place.servers().await?;
    let object = servers.get(&server.server).await.map_err(|error| cluster::failure(&error, &server.server))?;
    let status = object.status.unwrap_or_default();
    let rows = status.revisions.iter().map(|revision| {
        let state = format!("{:?}", revision.state);
        [revision.name.clone(), state, format!("{} %", revision.weight), revision.generation.to_string()]
    });
    print(&table::render(["REVISION", "STATE", "NEW SESSIONS", "GENERATION"], rows))?;
    match status.condition(types::READY) {
        Some(ready) if ready.status == "True" => {
            note(&format!("Ready: {}", ready.message));
            Ok(())
        }
        Some(ready) => Err(Failure::new(Exit::Negative, format!("{}: {}", ready.reason, ready.message))),
        None => Err(Failure::new(Exit::Negative, "the operator has not looked at it yet")
            .hint("is the namespace enrolled? See tenantNamespaces in the chart's values")),
    }
}

impl Server {
    async fn set_paused(&self, paused: bool) -> Result<(), Failure> {
        let (servers, _) = self.place.servers().await?;
        let patch = Patch::Merge(json!({"spec": {"rollout": {"paused": paused}}}));
        let patched = servers.patch(&self.server, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| cluster::failure(&error, &self.server))
    }
}
