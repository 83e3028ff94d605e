//! What the replicas of the gateways have loaded, as their streams tell; decides `Programmed`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use kube::ResourceExt;
use portolan_crds::{
    MCPServer,
    server::{Revision, RevisionState},
};
use portolan_snapshot::report::{BadLine, Canary, Report, ServerReport};

use crate::{
    analysis::Readings,
    gateways::{GatewayName, Gateways, Replica},
    scaling::{Calling, Reading},
};

/// Whether the gateways serve a server as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programmed {
    /// Every live replica of every gateway that selects it does.
    Yes,
    /// No gateway selects it.
    NoGateway,
    /// Some do not; says which replica lacks what.
    Waiting(String),
}

/// Where gateways send new sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sending {
    /// The revision that takes them.
    pub serving: Option<String>,
    /// Another one that takes a share.
    pub canary: Option<Canary>,
}

impl Sending {
    /// All of them to one revision, or nowhere.
    #[must_use]
    pub fn to(serving: Option<&str>) -> Self {
        Self { serving: serving.map(str::to_owned), canary: None }
    }

    /// A share, in percent, of a revision.
    #[must_use]
    pub fn share(revision: &str, weight: u8) -> Canary {
        Canary { revision: revision.to_owned(), weight }
    }

    /// What a status says.
    #[must_use]
    pub fn of(revisions: &[Revision]) -> Self {
        let in_state = |state| revisions.iter().find(move |revision| revision.state == state);
        Self {
            serving: in_state(RevisionState::Serving).map(|revision| revision.name.clone()),
            canary: in_state(RevisionState::Canary).map(|revision| Self::share(&revision.name, revision.weight)),
        }
    }
}

/// What a gateway replica says of a pod whose calls fail one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Name of the replica.
    pub replica: String,
    /// `namespace/name` of its gateway.
    pub gateway: GatewayName,
    /// What the calls end in.
    pub kind: String,
}

/// What each replica has loaded, by uid of its pod.
#[derive(Clone, Debug)]
pub struct LoadedView {
    gateways: Arc<Gateways>,
    reports: Arc<RwLock<BTreeMap<String, Report>>>,
}

impl LoadedView {
    /// Nothing is known to be loaded yet.
    #[must_use]
    pub fn new(gateways: Arc<Gateways>) -> Self {
        Self { gateways, reports: Arc::default() }
    }

    /// Whether every live replica of every gateway that selects `server` has loaded its uid and its generation, sends new sessions
    /// where `sending` says, and, where the revision that serves `has_ready_pod`, knows one.
    #[must_use]
    pub fn programmed(&self, server: &MCPServer, sending: &Sending, has_ready_pod: bool) -> Programmed {
        let endpoints = self.gateways.endpoints_of(server);
        if endpoints.is_empty() {
            return Programmed::NoGateway;
        }
        for (gateway, _) in endpoints {
            let replicas = self.gateways.ready_replicas_of(&gateway);
            if replicas.is_empty() {
                return Programmed::Waiting(format!("gateway {gateway} has no ready replica"));
            }
            for replica in replicas {
                if let Some(lack) = self.lack(&replica.uid, server, sending, has_ready_pod) {
                    return Programmed::Waiting(format!("replica {} of gateway {gateway} {lack}", replica.name));
                }
            }
        }
        Programmed::Yes
    }

    /// Pods of `server` whose calls fail one after the other, by uid: what the first replica says that finds so.
    #[must_use]
    pub fn failing(&self, server: &MCPServer) -> BTreeMap<String, Complaint> {
        let key = key_of(server);
        let reports = self.read();
        let mut failing = BTreeMap::new();
        for (gateway, _) in self.gateways.endpoints_of(server) {
            for replica in self.gateways.ready_replicas_of(&gateway) {
                let said = reports.get(&replica.uid).and_then(|report| report.servers.get(&key));
                for (uid, pod) in said.iter().flat_map(|server| &server.failing) {
                    failing.entry(uid.clone()).or_insert_with(|| Complaint {
                        replica: replica.name.clone(),
                        gateway: gateway.clone(),
                        kind: pod.kind.clone(),
                    });
                }
            }
        }
        failing
    }

    /// Calls that a server works on or that wait for it, at all replicas of those gateways together, as far as they say.
    #[must_use]
    pub fn in_flight(&self, namespace: &str, name: &str, gateways: &[GatewayName]) -> Reading {
        let key = format!("{namespace}/{name}");
        let replicas = self.gateways.replicas();
        let reports = self.read();
        let mut all = Reading { least: 0, is_whole: !gateways.is_empty() };
        for replica in gateways.iter().filter_map(|gateway| replicas.get(gateway)).flatten() {
            let said = reports.get(&replica.uid).and_then(|report| report.servers.get(&key)?.in_flight);
            all.least = all.least.saturating_add(said.unwrap_or_default());
            // One that is not ready may still have calls, and need not have any.
            all.is_whole &= said.is_some() || !replica.ready;
        }
        all
    }

    /// Who calls a server, at all replicas of those gateways together, as far as they say.
    #[must_use]
    pub fn callers(&self, namespace: &str, name: &str, gateways: &[GatewayName]) -> Calling {
        let key = format!("{namespace}/{name}");
        let replicas = self.gateways.replicas();
        let reports = self.read();
        let mut all = Calling { is_whole: !gateways.is_empty(), ..Calling::default() };
        for replica in gateways.iter().filter_map(|gateway| replicas.get(gateway)).flatten() {
            match reports.get(&replica.uid).and_then(|report| report.servers.get(&key)?.callers) {
                Some(said) => {
                    all.under_way = all.under_way.saturating_add(said.under_way);
                    all.begun.insert(replica.uid.clone(), said.begun);
                }
                None => all.is_whole &= !replica.ready,
            }
        }
        all
    }

    /// How calls of `server` went at each ready replica, while they are compared.
    #[must_use]
    pub fn traffic(&self, server: &MCPServer) -> Readings {
        let key = key_of(server);
        let reports = self.read();
        let gateways = self.gateways.endpoints_of(server).into_iter();
        let replicas = gateways.flat_map(|(gateway, _)| self.gateways.ready_replicas_of(&gateway));
        let said = |replica: Replica| {
            let traffic = reports.get(&replica.uid)?.servers.get(&key)?.traffic.clone();
            Some((replica.uid, traffic))
        };
        replicas.filter_map(said).collect()
    }

    /// Every ready replica that serves a server, with its gateway. Sorted.
    #[must_use]
    pub fn replicas_with(&self, namespace: &str, name: &str) -> Vec<(GatewayName, Replica)> {
        let key = format!("{namespace}/{name}");
        let reports = self.read();
        let serves = |replica: &Replica| {
            let report = reports.get(&replica.uid).and_then(|report| report.servers.get(&key));
            replica.ready && report.is_some_and(|server| server.loaded.is_some())
        };
        let replicas = self.gateways.replicas().into_iter();
        replicas
            .flat_map(|(gateway, replicas)| replicas.into_iter().map(move |replica| (gateway.clone(), replica)))
            .filter(|(_, replica)| serves(replica))
            .collect()
    }

    /// What a replica said of its own gateway: uid, generation and problems, once its stream is open.
    #[must_use]
    pub fn gateway(&self, pod_uid: &str) -> Option<portolan_snapshot::report::GatewayReport> {
        self.read().get(pod_uid).and_then(|report| report.gateway.clone())
    }

    /// Takes in a line of a replica's stream. Returns the servers (`namespace/name`) for which that is news, and whether
    /// the gateway's own report changed.
    ///
    /// # Errors
    /// The line is of an unknown contract, or a change without a whole before.
    pub fn take(&self, pod_uid: &str, line: Report) -> Result<(Vec<String>, bool), BadLine> {
        let mut reports = self.reports.write().unwrap_or_else(PoisonError::into_inner);
        let before = reports.get(pod_uid).cloned();
        let mut state = before.clone();
        Report::apply(&mut state, line)?;
        let news = news(before.as_ref(), state.as_ref());
        let gateway =
            before.and_then(|report| report.gateway) != state.as_ref().and_then(|report| report.gateway.clone());
        if let Some(state) = state {
            reports.insert(pod_uid.to_owned(), state);
        }
        Ok((news, gateway))
    }

    /// Forgets a replica whose stream ended. Returns the servers that it had.
    pub fn forget(&self, pod_uid: &str) -> Vec<String> {
        let gone = self.reports.write().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
        gone.map(|report| report.servers.into_keys().collect()).unwrap_or_default()
    }

    fn lack(&self, pod_uid: &str, server: &MCPServer, sending: &Sending, has_ready_pod: bool) -> Option<String> {
        let reports = self.read();
        let Some(report) = reports.get(pod_uid) else { return Some("has not reported yet".into()) };
        let key = key_of(server);
        lack(report.servers.get(&key), server, sending, has_ready_pod)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Report>> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under which name a report has the server.
fn key_of(server: &MCPServer) -> String {
    format!("{}/{}", server.namespace().unwrap_or_default(), server.name_any())
}

fn lack(report: Option<&ServerReport>, server: &MCPServer, sending: &Sending, has_ready_pod: bool) -> Option<String> {
    let Some(report) = report else { return Some("does not know the server yet".into()) };
    if let Some(problem) = &report.problem {
        return Some(format!("refused it: {problem}"));
    }
    let Some(loaded) = &report.loaded else { return Some("has not loaded it yet".into()) };
    if Some(&loaded.uid) != server.metadata.uid.as_ref() {
        return Some("still has an object of that name that was deleted".into());
    }
    let generation = server.metadata.generation.unwrap_or_default();
    if loaded.generation != generation {
        return Some(format!("has loaded generation {}, not {generation} yet", loaded.generation));
    }
    let name = |revision: &Option<String>| revision.as_deref().unwrap_or("none").to_owned();
    if loaded.revision != sending.serving {
        return Some(format!("serves revision {}, not {} yet", name(&loaded.revision), name(&sending.serving)));
    }
    if loaded.canary != sending.canary {
        let share = |canary: &Option<Canary>| match canary {
            Some(canary) => format!("{} % of new sessions to revision {}", canary.weight, canary.revision),
            None => "no share of new sessions to another revision".to_owned(),
        };
        return Some(format!("sends {}, not {} yet", share(&loaded.canary), share(&sending.canary)));
    }
    if has_ready_pod && loaded.ready_pods == 0 {
        return Some("has seen no ready pod of it yet".into());
    }
    None
}

fn news(before: Option<&Report>, after: Option<&Report>) -> Vec<String> {
    let empty = BTreeMap::new();
    let before = before.map_or(&empty, |report| &report.servers);
    let after = after.map_or(&empty, |report| &report.servers);
    // How calls go is read when it is time to compare.
    let is_news = |(name, server): &(&String, &ServerReport)| {
        before.get(*name).is_none_or(|before| {
            (&before.loaded, &before.problem, &before.failing) != (&server.loaded, &server.problem, &server.failing)
        })
    };
    let changed = after.iter().filter(is_news).map(|(name, _)| name);
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    changed.chain(removed).cloned().collect()
}

#[cfg(test)]
mod tests;
