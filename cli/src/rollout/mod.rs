//! `portolan rollout`: how far the revisions of a server are, and what becomes of a new one.

mod history;
mod status;

use std::time::Duration;

use clap::{Args, Subcommand};
use kube::api::{Api, Patch, PatchParams};
use portolan_crds::MCPServer;
use portolan_crds::server::{RevisionState, RolloutType};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{self, InCluster};
use crate::exit::{Exit, Failure, print};

/// How often a server is looked at that something is waited for.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long the operator has to look at an edit.
const PATIENCE: Duration = Duration::from_secs(10);

/// See and steer the rollout of a server's revisions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan rollout status docs --watch
  portolan rollout pause docs && kubectl apply -f docs.yaml
  portolan rollout promote docs
  portolan rollout undo docs

Exit codes: 0 ok, 1 usage, 2 the server is not Ready (status), or there is nothing to promote, abort or undo,
4 the API server is unreachable, 6 denied")]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the revisions, and what the server waits for
    Status(status::StatusArgs),
    /// Have the revision that serves go on doing so, whatever is applied; one that takes a share keeps it
    Pause(Server),
    /// Have a new revision serve as soon as it can
    Resume(Server),
    /// Have the new revision take over as soon as it is verified, past its steps, a pause and a rollback
    Promote(Server),
    /// Have the new revision not serve, although the spec asks for it
    Abort(Server),
    /// Show the revisions that have served
    History(Server),
    /// Have the spec ask for a revision again that has served
    Undo(history::UndoArgs),
}

/// A server of the cluster.
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
        Command::Status(args) => status::run(args).await,
        Command::Pause(server) => {
            server.found().await?.patch(&json!({"paused": true})).await?;
            print(&format!("{} is paused: the revision that serves goes on\n", server.server))
        }
        Command::Resume(server) => {
            server.found().await?.patch(&json!({"paused": false})).await?;
            print(&format!("{} goes on: a new revision serves as soon as it can\n", server.server))
        }
        Command::Promote(server) => promote(server).await,
        Command::Abort(server) => abort(server).await,
        Command::History(server) => history::show(server).await,
        Command::Undo(args) => history::undo(args).await,
    }
}

async fn promote(server: &Server) -> Result<(), Failure> {
    let found = server.looked_at().await?;
    let new = found.new_revision()?;
    let rollout = &found.object.spec.rollout;
    if rollout.type_ == RolloutType::Recreate {
        let failure = Failure::new(Exit::Negative, format!("{new} has no steps to go past: rollout.type is Recreate"));
        return Err(failure.hint(format!("portolan rollout status {} says what it waits for", server.server)));
    }
    let mut patch = json!({"promote": new, "paused": false});
    if rollout.abort.as_ref() == Some(&new) {
        patch["abort"] = Value::Null;
    }
    found.patch(&patch).await?;
    print(&format!("{new} takes over as soon as it is verified\n"))
}

async fn abort(server: &Server) -> Result<(), Failure> {
    let found = server.looked_at().await?;
    let new = found.new_revision()?;
    let mut patch = json!({"abort": new});
    if found.object.spec.rollout.promote.as_ref() == Some(&new) {
        patch["promote"] = Value::Null;
    }
    found.patch(&patch).await?;
    print(&format!("{new} does not serve; portolan rollout undo {} has the spec ask for what does\n", server.server))
}

/// A server as the API server has it.
struct Found {
    servers: Api<MCPServer>,
    name: String,
    object: MCPServer,
}

impl Server {
    async fn found(&self) -> Result<Found, Failure> {
        let (servers, _) = self.place.servers().await?;
        let object = servers.get(&self.server).await.map_err(|error| cluster::failure(&error, &self.server))?;
        Ok(Found { servers, name: self.server.clone(), object })
    }

    /// The server once its status speaks of its latest spec: right after an edit that takes the operator a moment.
    async fn looked_at(&self) -> Result<Found, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.found().await?;
            let seen = found.object.status.as_ref().and_then(|status| status.observed_generation);
            if seen == found.object.metadata.generation {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let message = format!("the operator has not looked at the latest spec of {} yet", self.server);
                return Err(Failure::new(Exit::Negative, message).hint(
                    "kubectl get deployments -A -l app.kubernetes.io/name=portolan-operator says whether it runs",
                ));
            }
            sleep(INTERVAL).await;
        }
    }
}

impl Found {
    /// Name of the revision that is to take the place of the one that serves.
    fn new_revision(&self) -> Result<String, Failure> {
        let revisions = self.object.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default();
        let of = |state| revisions.iter().find(move |revision| revision.state == state);
        let (Some(serving), Some(new)) = (
            of(RevisionState::Serving),
            [RevisionState::Canary, RevisionState::Pending, RevisionState::Failed].into_iter().find_map(of),
        ) else {
            return Err(Failure::new(Exit::Negative, format!("{} has no revision beside one that serves", self.name)));
        };
        debug_assert_ne!(serving.name, new.name, "one revision has one state");
        Ok(new.name.clone())
    }

    async fn patch(&self, rollout: &Value) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({"spec": {"rollout": rollout}}));
        let patched = self.servers.patch(&self.name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| cluster::failure(&error, &self.name))
    }
}
