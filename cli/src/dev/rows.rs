//! How every server is, for people and for scripts.

use std::net::SocketAddr;

use portolan_crds::conditions::reasons;
use portolan_snapshot::{Inputs, Report, select};
use serde::Serialize;

use super::fleet::{Fleet, Server};
use super::objects::Name;

/// How one server is: the `Ready` condition it would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) ready: bool,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    pub(super) tools: Option<u32>,
    pub(super) url: String,
}

/// A row for each server that a file has.
pub(super) fn rows(fleet: &Fleet, inputs: &Inputs, report: Option<&Report>, listen: SocketAddr) -> Vec<Row> {
    let row = |(name, server): (&Name, &Server)| {
        let (reason, message) = verdict(name, server, inputs, report);
        let revision = server.latest().or_else(|| server.serving());
        Row {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            ready: reason == reasons::READY,
            reason: reason.to_owned(),
            message,
            // A server that is not through yet has one row, not one for each step.
            tools: revision.filter(|_| reason != reasons::PENDING).and_then(|revision| revision.health.tools),
            url: format!("http://{listen}/{name}/mcp"),
        }
    };
    fleet.servers.iter().filter(|(_, server)| !server.deleted).map(row).collect()
}

/// Reason and message of `Ready`.
fn verdict(name: &Name, server: &Server, inputs: &Inputs, report: Option<&Report>) -> (&'static str, String) {
    if let Some(blocked) = &server.blocked {
        return (blocked.reason, blocked.message.clone());
    }
    let Some(latest) = server.latest() else { return (reasons::PENDING, String::new()) };
    if !latest.health.ready {
        return (latest.health.reason, latest.health.message.clone());
    }
    let object = inputs.servers.iter().find(|object| {
        object.metadata.name.as_ref() == Some(&name.name) && object.metadata.namespace.as_ref() == Some(&name.namespace)
    });
    let selected = object.map(|object| select::selects(&inputs.gateway.spec.servers, &inputs.namespaces, object));
    match selected {
        Some(Ok(false)) => return (reasons::NO_GATEWAY, "the gateway's spec.servers does not select it".to_owned()),
        Some(Err(error)) => return (reasons::NO_GATEWAY, error.to_string()),
        _ => {}
    }
    let told = report.and_then(|report| report.servers.get(&name.to_string()));
    if let Some(problem) = told.and_then(|told| told.problem.clone()) {
        return (reasons::NOT_LOADED, problem);
    }
    let loaded = told.and_then(|told| told.loaded.as_ref()).is_some_and(|loaded| {
        loaded.uid == server.uid
            && loaded.generation == server.generation
            && loaded.revision.as_deref() == Some(&*latest.name)
            && loaded.ready_pods > 0
    });
    if loaded { (reasons::READY, String::new()) } else { (reasons::PENDING, String::new()) }
}
