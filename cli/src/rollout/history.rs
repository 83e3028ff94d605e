//! `portolan rollout history` and `undo`: the revisions that have served, as the operator remembers them.

use clap::Args;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{Api, ListParams, PostParams};
use portolan_crds::{MCPServerSpec, labels};
use serde_json::Value;

use super::{Found, Server};
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
    /// When it began to, RFC 3339 in UTC.
    since: String,
    /// What the spec was; `None` where it was too large to be remembered.
    spec: Option<Value>,
}

impl Served {
    fn of(kept: &ControllerRevision) -> Option<Self> {
        let annotations = kept.metadata.annotations.as_ref()?;
        Some(Self {
            name: kept.metadata.name.clone()?,
            generation: kept.revision,
            since: annotations.get(labels::SERVED_SINCE)?.clone(),
            spec: annotations.get(labels::SPEC).and_then(|spec| serde_json::from_str(spec).ok()),
        })
    }

    /// The spec that asks for it: as it was, with how revisions follow each other as it is now.
    fn asked_for_by(&self, now: &MCPServerSpec) -> Result<MCPServerSpec, Failure> {
        let unusable =
            |why: String| Failure::new(Exit::Negative, format!("{} cannot be asked for again: {why}", self.name));
        let mut spec = self.spec.clone().ok_or_else(|| unusable("its spec was too large to be remembered".into()))?;
        let now = serde_json::to_value(now).map_err(|error| unusable(error.to_string()))?;
        for field in ["replicas", "rollout"] {
            spec[field] = now[field].clone();
        }
        serde_json::from_value(spec).map_err(|error| unusable(error.to_string()))
    }
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
        .map(|served| [served.name.clone(), state(&served.name), served.since.clone(), served.generation.to_string()]);
    print(&table::render(["REVISION", "STATE", "SERVED SINCE", "GENERATION"], rows))
}

pub(super) async fn undo(args: &UndoArgs) -> Result<(), Failure> {
    let found = args.server.found().await?;
    let served = found.served().await?;
    let now = &found.object.spec;
    let (served, spec) = match &args.to {
        Some(name) => {
            let served = served.iter().find(|served| served.name == *name).ok_or_else(|| found.unknown(name))?;
            (served, served.asked_for_by(now)?)
        }
        None => {
            let other = |served| Some((served, Served::asked_for_by(served, now).ok().filter(|spec| spec != now)?));
            served.iter().find_map(other).ok_or_else(|| found.nothing_before())?
        }
    };
    let mut object = found.object.clone();
    object.spec = spec;
    let replaced = found.servers.replace(&found.name, &PostParams::default(), &object).await;
    replaced.map_err(|error| cluster::failure(&error, &found.name))?;
    print(&format!("{} asks for {} again, which served since {}\n", found.name, served.name, served.since))
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
        served.sort_by(|one, other| other.since.cmp(&one.since));
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
