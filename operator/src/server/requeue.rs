//! When to look again although no watch says so. Pure.
//!
//! Watches wake the reconciler for pods, Deployments and what gateways have loaded. What nothing announces is what a
//! bridge knows, and ConfigMaps' and Secrets' content, which the operator may read by name and not watch.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use portolan_crds::server::RevisionState;

use super::{
    farewell::{self, Told},
    observed::{revision_of, runs_bridge, takes_sessions},
    summary::Outcome,
};
use crate::controller::Next;

/// While a pod starts: its bridge knows first why it does not get ready.
const STARTING: Duration = Duration::from_millis(500);
/// While a pod has not been answering for longer than [`YOUNG`].
const FAILING: Duration = Duration::from_secs(5);
/// How long a pod counts as starting.
const YOUNG: Duration = Duration::from_secs(60);
/// While a revision drains and still has replicas: no watch says that the gateways' time to leave it is up.
const DRAINING: Duration = Duration::from_secs(2);
/// While something that the spec names is missing.
const MISSING: Duration = Duration::from_secs(5);
/// In any case: content, the MAC key's Secret, and tools that change while a server runs.
const CONTENT: Duration = Duration::from_secs(30);

/// When to reconcile again.
pub(super) fn next(outcome: &Outcome<'_>, told: Told) -> Next {
    let waits = [
        (told == Told::SomeLater).then_some(farewell::AGAIN),
        outcome.plan.draining().any(|revision| revision.replicas > 0).then_some(DRAINING),
        outcome.observed.pods.iter().filter_map(|pod| unready(outcome, pod)).min(),
        outcome.validated.content.is_err().then_some(MISSING),
        is_undescribed(outcome).then_some(FAILING),
    ];
    Next::After(waits.into_iter().flatten().min().unwrap_or(CONTENT))
}

/// A pod whose bridge runs and that is not ready, though it should be. One of a revision that gave up waits for a person,
/// and is news if it gets ready all the same.
fn unready(outcome: &Outcome<'_>, pod: &Pod) -> Option<Duration> {
    if !runs_bridge(pod) || takes_sessions(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let revision = outcome.plan.revision(revision_of(pod)?);
    if revision.is_some_and(|revision| revision.state == RevisionState::Failed) {
        return None;
    }
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let age = outcome.observed.now.duration_since(started);
    Some(if age.unsigned_abs() < YOUNG { STARTING } else { FAILING })
}

/// The serving revision answers, and what it is or has is not known yet.
fn is_undescribed(outcome: &Outcome<'_>) -> bool {
    let Some(serving) = outcome.plan.serving() else { return false };
    let reports = outcome.observed.pods_of(&serving.name).filter_map(|pod| outcome.observed.report(pod));
    let is_known = reports.into_iter().any(|report| report.probe.server.is_some());
    outcome.ready_of(&serving.name) > 0 && !is_known
}

#[cfg(test)]
mod tests;
