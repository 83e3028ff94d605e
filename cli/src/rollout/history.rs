//! `portolan rollout history` and `undo`: the revisions that have served, as the operator remembers them.

use clap::Args;
use k8s_openapi::{api::apps::v1::ControllerRevision, jiff::Timestamp};
use kube::api::{Api, ListParams, PostParams};
use portolan_crds::{MCPServerSpec, labels};
use serde_json::Value;
use tokio::time::sleep;

use super::{Found, INTERVAL, Server};
use crate::cluster;
use crate::exit::{Exit, Failure, print};
use crate::table;

#[derive(Args, Debug)]
pub(super) struct UndoArgs {
    #[command(flatten)]
    server: Server,

    /// The revision; when not given, the one that served last before what the spec asks for
    #[arg(long, value_name = "REVISION")]
    to: Option<String>,
}

/// A revision that has served.
struct Served {
    name: String,
    generation: i64,
    /// When it began to.
    since: Timestamp,
    /// What the spec was; `None` where it was too large to be remembered.
    spec: Option<Value>,
}

impl Served {
    fn of(kept: &ControllerRevision) -> Option<Self> {
        let annotations = kept.metadata.annotations.as_ref()?;
        Some(Self {
            name: kept.metadata.name.clone()?,
            generation: kept.revision,
            since: annotations.get(labels::SERVED_SINCE)?.parse().ok()?,
            spec: annotations.get(labels::SPEC).and_then(|spec| serde_json::from_str(spec).ok()),
        })
    }

    /// The spec that asks for it: as it was, with how revisions follow each other as it is now.
    fn asked_for_by(&self, now: &MCPServerSpec) -> Result<MCPServerSpec, Failure> {
        let unusable =
            |why: String| Failure::new(Exit::Negative, format!("{} cannot be asked for again: {why}", self.name));
        let mut spec = self.spec.clone().ok_or_else(|| unusable("its spec was too large to be remembered".into()))?;
        let now = serde_json::to_value(now).map_err(|error| unusable(error.to_string()))?;
        for field in MCPServerSpec::NOT_OF_A_REVISION {
            spec[field] = now[field].clone();
        }
        let mut spec: MCPServerSpec = serde_json::from_value(spec).map_err(|error| unusable(error.to_string()))?;
        // What was said of it once is not said of it now.
        let rollout = &mut spec.rollout;
        for named in [&mut rollout.promote, &mut rollout.abort] {
            *named = named.take().filter(|named| *named != self.name);
        }
        Ok(spec)
    }
}

/// A time to the second.
fn shown(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

pub(super) async fn show(server: &Server) -> Result<(), Failure> {
    let found = server.found().await?;
    let states = found.object.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default();
    let state = |name: &str| match states.iter().find(|revision| revision.name == name) {
        Some(revision) => format!("{:?}", revision.state),
        None => "-".to_owned(),
    };
    let served = found.served().await?;
    let rows = served
        .iter()
        .map(|served| [served.name.clone(), state(&served.name), shown(served.since), served.generation.to_string()]);
    print(&table::render(["REVISION", "STATE", "SERVED SINCE", "GENERATION"], rows))
}

/// How often an edit is tried that another one crosses: the operator writes status meanwhile.
const ATTEMPTS: usize = 5;

pub(super) async fn undo(args: &UndoArgs) -> Result<(), Failure> {
    for _ in 1..ATTEMPTS {
        match try_undo(args).await? {
            Some(done) => return print(&done),
            None => sleep(INTERVAL).await,
        }
    }
    let message = format!("{} is being edited by someone else all the time; try again", args.server.server);
    try_undo(args).await?.map_or_else(|| Err(Failure::new(Exit::Negative, message)), |done| print(&done))
}

/// What was done; `None` where another edit came in between.
async fn try_undo(args: &UndoArgs) -> Result<Option<String>, Failure> {
    let found = args.server.found().await?;
    let served = found.served().await?;
    let now = &found.object.spec;
    let (served, spec) = match &args.to {
        Some(name) => {
            let served = served.iter().find(|served| served.name == *name).ok_or_else(|| found.unknown(name))?;
            (served, served.asked_for_by(now)?)
        }
        None => {
            let is_other =
                |spec: &MCPServerSpec| MCPServerSpec { rollout: now.rollout.clone(), ..spec.clone() } != *now;
            let other = |served| Some((served, Served::asked_for_by(served, now).ok().filter(is_other)?));
            served.iter().find_map(other).ok_or_else(|| found.nothing_before())?
        }
    };
    let mut object = found.object.clone();
    object.spec = spec;
    let done = format!(
        "{} asks for {} again, which began to serve {}; replicas, autoscaling, limits and rollout stay as they are\n",
        found.name,
        served.name,
        shown(served.since)
    );
    match found.servers.replace(&found.name, &PostParams::default(), &object).await {
        Ok(_) => Ok(Some(done)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(cluster::failure(&error, &found.name)),
    }
}

impl Found {
    /// The latest first.
    async fn served(&self) -> Result<Vec<Served>, Failure> {
        let kept: Api<ControllerRevision> = match &self.object.metadata.namespace {
            Some(namespace) => Api::namespaced(self.servers.clone().into_client(), namespace),
            None => Api::default_namespaced(self.servers.clone().into_client()),
        };
        let selector = ListParams::default().labels(&format!("{}={}", labels::SERVER, self.name));
        let kept = kept.list(&selector).await.map_err(|error| cluster::failure(&error, &self.name))?;
        let mut served: Vec<_> = kept.items.iter().filter_map(Served::of).collect();
        served.sort_by_key(|served| std::cmp::Reverse(served.since));
        Ok(served)
    }

    fn unknown(&self, revision: &str) -> Failure {
        let failure = Failure::usage(format!("no revision {revision} of {} is remembered", self.name));
        failure.hint(format!("portolan rollout history {} lists them", self.name))
    }

    fn nothing_before(&self) -> Failure {
        let failure = Failure::new(Exit::Negative, format!("no other revision of {} is remembered", self.name));
        failure.hint("spec.rollout.revisionHistoryLimit says how many are; apply the manifest from before")
    }
}
