//! What a gateway replica has loaded, as it tells the operator: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compile::Diagnostics;
use crate::snapshot::{Route, Snapshot};

/// Version of this contract; a reader refuses one that it does not know.
pub const CONTRACT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`CONTRACT`] of the sender.
    pub contract: u32,
    /// What the line holds.
    pub kind: Kind,
    /// The snapshot's number; it starts again at 1 with the process.
    pub snapshot: u64,
    /// The gateway's own object as loaded; absent where it did not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayReport>,
    /// Servers by `namespace/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, ServerReport>,
    /// Servers that this replica knows no more, by `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Everything: the first line.
    Whole,
    /// What is not as it was in the lines before.
    Change,
    /// Nothing new.
    Heartbeat,
}

/// The gateway's own object as loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReport {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// What is wrong with it or with its Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// One server as loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// What is served; absent where no version ever was good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// Why the latest version is not what is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its pods whose calls fail one after the other, by uid: until one is answered, or there was none for five minutes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failing: BTreeMap<String, FailingPod>,
    /// Calls that the server works on or that wait for it, at this replica; only where that decides how many pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// Who calls, at this replica; only where the server has no pods while nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<Callers>,
    /// Calls by revision, of the two between which new sessions are shared out; counted from when that began at this replica.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traffic: BTreeMap<String, Traffic>,
}

impl ServerReport {
    /// Whether somebody waits for a pod of the server, and there is none.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        let has_none = self.loaded.as_ref().is_none_or(|loaded| loaded.ready_pods == 0);
        has_none && self.callers.is_some_and(|callers| callers.under_way > 0)
    }
}

/// Who calls a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Callers {
    /// Calls that began, those that have ended too; since the replica began.
    pub begun: u64,
    /// Calls that have not ended, and requests that wait for a pod.
    pub under_way: u32,
}

/// More than one caller.
pub const SEVERAL: &str = "several";

/// Calls of clients that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Since when they are counted, in milliseconds of Unix time.
    #[serde(default)]
    pub since: u64,
    /// How many began, those that have ended too.
    #[serde(default)]
    pub begun: u64,
    /// How many.
    pub calls: u64,
    /// How many of them got no answer, an error, or a tool's result that is one, or were given up.
    pub failed: u64,
    /// Who called: one caller, by a name that is the same at every replica, or [`SEVERAL`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<String>,
    /// The same of calls that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// How many took how long, by the upper bound in microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub durations: BTreeMap<u64, u64>,
}

/// A pod whose calls fail one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailingPod {
    /// Its name.
    pub name: String,
    /// What they end in: a kind of failure, see [`portolan_mcp::failure::Kind`].
    pub kind: String,
}

/// The version of a server that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// `metadata.uid` of the object.
    pub uid: String,
    /// `metadata.generation` of the object.
    pub generation: i64,
    /// The revision that takes new sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Another one that takes a share of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How many of the revision's pods take new sessions.
    pub ready_pods: u32,
}

/// A revision that takes a share of new sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Its name.
    pub revision: String,
    /// Its share, in percent.
    pub weight: u8,
}

/// A line that cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLine {
    /// Written by a release with another contract.
    #[error("the gateway reports under contract {0}, this release reads {CONTRACT}")]
    UnknownContract(u32),
    /// A change, but nothing to change.
    #[error("the first line must hold everything")]
    NoWholeBefore,
}

impl Report {
    /// Everything that `snapshot` serves.
    #[must_use]
    pub fn whole(snapshot: &Snapshot, diagnostics: &Diagnostics) -> Self {
        let mut servers: BTreeMap<String, ServerReport> = snapshot
            .routes
            .values()
            .map(|route| {
                (route.name.to_string(), ServerReport { loaded: Some(Loaded::of(route)), ..ServerReport::default() })
            })
            .collect();
        for (name, problem) in &diagnostics.servers {
            servers.entry(name.to_string()).or_default().problem = Some(problem.to_string());
        }
        Self {
            contract: CONTRACT,
            kind: Kind::Whole,
            snapshot: snapshot.generation,
            gateway: Some(GatewayReport {
                uid: snapshot.gateway.uid.to_string(),
                generation: snapshot.gateway.generation,
                problems: diagnostics.gateway.iter().map(ToString::to_string).collect(),
            }),
            servers,
            removed: Vec::new(),
        }
    }

    /// The same with what real calls found out about pods, by `namespace/name` of their servers.
    #[must_use]
    pub fn with_failing(self, failing: BTreeMap<String, BTreeMap<String, FailingPod>>) -> Self {
        self.with(failing, |server, pods| server.failing = pods)
    }

    /// The same with how calls went that are being compared, by `namespace/name` of their servers and by revision.
    #[must_use]
    pub fn with_traffic(self, traffic: BTreeMap<String, BTreeMap<String, Traffic>>) -> Self {
        self.with(traffic, |server, revisions| server.traffic = revisions)
    }

    /// The same with how many calls are under way, by `namespace/name` of their servers.
    #[must_use]
    pub fn with_in_flight(self, in_flight: BTreeMap<String, u32>) -> Self {
        self.with(in_flight, |server, calls| server.in_flight = Some(calls))
    }

    /// The same with who calls servers that have no pods while nobody does, by their `namespace/name`.
    #[must_use]
    pub fn with_callers(self, callers: BTreeMap<String, Callers>) -> Self {
        self.with(callers, |server, callers| server.callers = Some(callers))
    }

    fn with<T>(mut self, of_servers: BTreeMap<String, T>, set: impl Fn(&mut ServerReport, T)) -> Self {
        for (name, value) in of_servers {
            if let Some(server) = self.servers.get_mut(&name) {
                set(server, value);
            }
        }
        self
    }

    /// What is not as it was in `earlier`; both are whole.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let changed = self.servers.iter().filter(|(name, server)| earlier.servers.get(*name) != Some(server));
        Self {
            contract: CONTRACT,
            kind: Kind::Change,
            snapshot: self.snapshot,
            gateway: self.gateway.clone().filter(|_| self.gateway != earlier.gateway),
            servers: changed.map(|(name, server)| (name.clone(), server.clone())).collect(),
            removed: earlier.servers.keys().filter(|name| !self.servers.contains_key(*name)).cloned().collect(),
        }
    }

    /// The line that says that nothing is new.
    #[must_use]
    pub fn heartbeat(&self) -> Self {
        Self {
            contract: CONTRACT,
            kind: Kind::Heartbeat,
            snapshot: self.snapshot,
            gateway: None,
            servers: BTreeMap::new(),
            removed: Vec::new(),
        }
    }

    /// Takes in the next `line`, so that `state` is whole again.
    ///
    /// # Errors
    /// The line is of another contract, or changes what is not there.
    pub fn apply(state: &mut Option<Self>, line: Self) -> Result<(), BadLine> {
        if line.contract != CONTRACT {
            return Err(BadLine::UnknownContract(line.contract));
        }
        if line.kind == Kind::Whole {
            *state = Some(line);
            return Ok(());
        }
        let whole = state.as_mut().ok_or(BadLine::NoWholeBefore)?;
        whole.snapshot = line.snapshot;
        whole.gateway = line.gateway.or(whole.gateway.take());
        whole.servers.extend(line.servers);
        whole.servers.retain(|name, _| !line.removed.contains(name));
        Ok(())
    }
}

impl Loaded {
    fn of(route: &Route) -> Self {
        Self {
            uid: route.settings.version.uid.to_string(),
            generation: route.settings.version.generation,
            revision: route.serving.as_deref().map(Into::into),
            canary: route
                .canary
                .as_ref()
                .map(|canary| Canary { revision: canary.revision.to_string(), weight: canary.weight }),
            ready_pods: route.ready_pods().count().try_into().unwrap_or(u32::MAX),
        }
    }
}
