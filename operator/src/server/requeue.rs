//! When to look again although no watch says so. Pure.
//!
//! Watches wake the reconciler for pods and Deployments, streams for what gateways have loaded and probes find. What nothing
//! announces is the content of ConfigMaps and Secrets, which the operator may read by name and not watch.

use std::time::Duration;

use super::{
    farewell::{self, Told},
    rollout::Planned,
    summary::Outcome,
    tool_changes::Changes,
};
use crate::controller::Next;

/// While a revision drains and still has replicas, as no watch says that the gateways' time to leave it is up; and while the tools of one
/// are not known.
const DRAINING: Duration = Duration::from_secs(2);
/// While something that the spec names is missing.
const MISSING: Duration = Duration::from_secs(5);
/// How much later than that something is over it is looked whether it is.
const LATER: Duration = Duration::from_millis(20);
/// In any case: content, and the MAC key's Secret.
const CONTENT: Duration = Duration::from_secs(30);

/// When to reconcile again.
pub(super) fn next(outcome: &Outcome<'_>, told: Told) -> Next {
    let waits = [
        (told == Told::SomeLater).then_some(farewell::AGAIN),
        outcome.plan.revisions.iter().any(is_leaving).then_some(DRAINING),
        outcome.validated.content.is_err().then_some(MISSING),
        (outcome.tool_changes == Some(&Changes::Unknown)).then_some(DRAINING),
        outcome.plan.canary().map(|canary| until_next_look(outcome, canary)),
    ];
    Next::After(waits.into_iter().flatten().min().unwrap_or(CONTENT))
}

/// Whether it keeps its pods only until gateways send new sessions elsewhere.
fn is_leaving(revision: &Planned) -> bool {
    revision.draining_since.is_some() && revision.replicas > 0
}

/// Until a revision that takes a share may have come to its next step, or can be compared again.
fn until_next_look(outcome: &Outcome<'_>, canary: &Planned) -> Duration {
    let rollout = &outcome.validated.spec.rollout;
    let interval = rollout.canary.as_ref().map_or(CONTENT, |canary| canary.analysis.interval.as_std());
    let again = outcome.observed.compared.again.unwrap_or(interval);
    let rest = canary.step.and_then(|step| {
        let pause = rollout.steps().get(step.index)?.pause.as_std();
        pause.checked_sub(outcome.observed.now.duration_since(step.since).try_into().ok()?)
    });
    // A little later than that, so that it is over by then.
    rest.map_or(again, |rest| rest.min(again)) + LATER
}

#[cfg(test)]
mod tests;
