//! `portolan rollout status`.

use clap::Args;
use portolan_crds::{MCPServer, conditions::types};
use tokio::time::{Instant, sleep};

use super::{INTERVAL, Server};
use crate::exit::{Exit, Failure, note, print};
use crate::table;

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    server: Server,

    /// Wait until the server is Ready, or does not become so unless something changes
    #[arg(long, short)]
    watch: bool,

    /// How long to wait with --watch, such as 90s or 10m
    #[arg(long, default_value = "10m", requires = "watch")]
    timeout: portolan_crds::Duration,
}

/// Where a rollout stands.
enum Stand {
    Ready(String),
    /// Something may still come of it.
    UnderWay(String),
    Stuck(String),
}

pub(super) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout.as_std();
    let mut told = String::new();
    let (object, stand) = loop {
        let object = args.server.found().await?.object;
        let stand = Stand::of(&object);
        match &stand {
            Stand::UnderWay(message) if args.watch && Instant::now() < deadline => {
                if told != *message {
                    note(message);
                    told.clone_from(message);
                }
                sleep(INTERVAL).await;
            }
            _ => break (object, stand),
        }
    };
    print(&revisions(&object))?;
    match stand {
        Stand::Ready(message) => {
            note(&format!("Ready: {message}"));
            Ok(())
        }
        Stand::UnderWay(message) | Stand::Stuck(message) => Err(Failure::new(Exit::Negative, message)),
    }
}

fn revisions(object: &MCPServer) -> String {
    let revisions = object.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default();
    let rows = revisions.iter().map(|revision| {
        let state = format!("{:?}", revision.state);
        [revision.name.clone(), state, format!("{} %", revision.weight), revision.generation.to_string()]
    });
    table::render(["REVISION", "STATE", "NEW SESSIONS", "GENERATION"], rows)
}

impl Stand {
    fn of(object: &MCPServer) -> Self {
        let status = object.status.as_ref();
        let condition = |type_| status.and_then(|status| status.condition(type_));
        let Some(ready) = condition(types::READY) else {
            let hint = "is the namespace enrolled? See tenantNamespaces in the chart's values";
            return Self::UnderWay(format!("the operator has not looked at it yet; {hint}"));
        };
        if ready.observed_generation != object.metadata.generation {
            return Self::UnderWay("the operator has not looked at the latest generation yet".into());
        }
        if ready.status == "True" {
            return Self::Ready(ready.message.clone());
        }
        let message = format!("{}: {}", ready.reason, ready.message);
        let is_true = |type_| condition(type_).is_some_and(|condition| condition.status == "True");
        // Nothing goes on by itself in one that is paused either.
        if is_true(types::STALLED) || !is_true(types::RECONCILING) {
            Self::Stuck(message)
        } else {
            Self::UnderWay(message)
        }
    }
}
