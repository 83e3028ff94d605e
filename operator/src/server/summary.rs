//! What the status says besides conditions. Pure.

use k8s_openapi::api::core::v1::Pod;
use portolan_crds::{
    MCPServer, MCPServerStatus,
    conditions::{find, reasons, types},
    labels,
    server::{Endpoint, Era, Revision, RevisionState, ServerInfo, Tools},
};
use portolan_mcp::{revision, wire::ServerFound};

use super::{
    observed::{Observed, has_ended},
    rollout::Plan,
    tool_changes::Changes,
    validate::Validated,
};

/// How a reconcile went.
#[derive(Clone, Copy)]
pub(super) struct Outcome<'a> {
    /// The object.
    pub(super) server: &'a MCPServer,
    /// Its spec, looked up.
    pub(super) validated: &'a Validated<'a>,
    /// What was read.
    pub(super) observed: &'a Observed,
    /// What every revision is.
    pub(super) plan: &'a Plan,
    /// The revision that the spec asks for, when that is known.
    pub(super) desired: Option<&'a str>,
    /// How its tools differ from those of the one that serves, where they may not.
    pub(super) tool_changes: Option<&'a Changes>,
    /// Whether another release would have it roll, and it is not its turn.
    pub(super) is_put_off: bool,
}

/// The revision that the status calls serving.
pub(super) fn remembered(server: &MCPServer) -> Option<&str> {
    let revisions = server.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default();
    let serving = revisions.iter().find(|revision| revision.state == RevisionState::Serving)?;
    Some(&serving.name)
}

/// Whether status says that the revision serves which the spec asks for, as the spec is now.
pub(super) fn is_settled(server: &MCPServer) -> bool {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, types::PROGRESSING).is_some_and(|progressing| {
        progressing.observed_generation == server.metadata.generation
            && [reasons::ROLLOUT_COMPLETE, reasons::DRAINING].contains(&progressing.reason.as_str())
    })
}

impl Outcome<'_> {
    /// Everything but conditions, which stay as they are here.
    pub(super) fn status(&self) -> MCPServerStatus {
        let old = self.server.status.clone().unwrap_or_default();
        let (server, tools) = self.found(&old);
        MCPServerStatus {
            server,
            tools,
            revisions: self.revisions(),
            endpoints: self.endpoints(),
            replicas: count(self.observed.pods.iter().filter(|pod| lives(pod)).count()),
            ready_replicas: self.ready_replicas(),
            selector: Some(format!("{}={}", labels::SERVER, self.validated.server)),
            ..old
        }
    }

    /// Pods of the serving revision that answer.
    pub(super) fn ready_replicas(&self) -> i32 {
        self.plan.serving().map_or(0, |serving| self.ready_of(&serving.name))
    }

    /// Pods of a revision that answer.
    pub(super) fn ready_of(&self, revision: &str) -> i32 {
        count(self.observed.pods_of(revision).filter(|pod| self.observed.answers(pod)).count())
    }

    /// Pods of a revision that answer, and answer rightly what they are known to have to answer.
    pub(super) fn verified_of(&self, revision: &str) -> i32 {
        count(self.observed.pods_of(revision).filter(|pod| self.observed.is_verified(pod)).count())
    }

    /// What the serving revision said of itself; the last word while it is the same revision and says nothing.
    fn found(&self, old: &MCPServerStatus) -> (Option<ServerInfo>, Option<Tools>) {
        let Some(serving) = self.plan.serving() else { return (None, None) };
        let probes: Vec<_> = self.observed.pods_of(&serving.name).filter_map(|pod| self.observed.probe(pod)).collect();
        let is_same = remembered(self.server) == Some(&serving.name);
        let server = probes.iter().find_map(|probe| probe.server.as_ref()).map(info);
        let tools = probes
            .iter()
            .find_map(|probe| probe.tools.as_ref())
            .map(|tools| Tools { count: tools.count, hash: tools.hash.clone() });
        (
            server.or_else(|| old.server.clone().filter(|_| is_same)),
            tools.or_else(|| old.tools.clone().filter(|_| is_same)),
        )
    }

    fn revisions(&self) -> Vec<Revision> {
        let revision = |planned: &super::rollout::Planned| Revision {
            name: planned.name.clone(),
            state: planned.state,
            weight: self.plan.weight(planned),
            generation: planned.generation,
        };
        self.plan.revisions.iter().map(revision).collect()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |(gateway, url): &(String, String)| Endpoint { gateway: gateway.clone(), url: url.clone() };
        self.observed.endpoints.iter().map(endpoint).collect()
    }
}

fn info(found: &ServerFound) -> ServerInfo {
    ServerInfo {
        name: found.name.clone(),
        version: found.version.clone(),
        protocol_version: found.protocol_version.clone(),
        era: match found.era {
            revision::Era::Legacy => Era::Legacy,
            revision::Era::Modern => Era::Modern,
            revision::Era::Both => Era::Both,
        },
        supported_versions: found.supported_versions.clone(),
        capabilities: found.capabilities.clone(),
    }
}

/// Neither ended nor told to end.
fn lives(pod: &Pod) -> bool {
    !has_ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
