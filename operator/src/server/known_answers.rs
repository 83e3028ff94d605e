//! What known-answer checks found, in the words of a condition. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_canary::Cause;
use portolan_crds::conditions::{self, reasons, types};

use super::{
    diagnosis::Diagnosis,
    observed::{Observed, revision_of},
    rollout::Planned,
    summary::Outcome,
};
use crate::{
    canaries::{Fault, Standing},
    status::Fact,
};

impl Outcome<'_> {
    /// What pods of a revision answer wrongly.
    pub(super) fn wrong_answers(&self, revision: &Planned) -> Option<Diagnosis> {
        wrong(self.observed.failing_checks(&revision.name))
    }

    /// Why pods of a revision that answer their probes have not shown yet that they answer rightly.
    pub(super) fn unverified(&self, revision: &Planned) -> Option<String> {
        let (pod, why) = self.open(revision).next()?;
        Some(match why {
            Some(why) => unmade(pod, why),
            None => format!("canary checks have not passed yet at pod {}", pod.name_any()),
        })
    }

    /// Why checks cannot be made at a pod of a revision. That they were not made yet is no news of one that serves: a new operator has
    /// only begun to ask.
    pub(super) fn unmade(&self, revision: &Planned) -> Option<String> {
        self.open(revision).find_map(|(pod, why)| Some(unmade(pod, why?)))
    }

    /// Pods that answer their probes, and of which nothing is known; with what kept their checks from being made.
    fn open(&self, revision: &Planned) -> impl Iterator<Item = (&Pod, Option<&str>)> {
        let pods = self.observed.pods.iter().filter(|pod| self.observed.answers(pod));
        let name = revision.name.clone();
        pods.filter(move |pod| revision_of(pod) == Some(&name)).filter_map(|pod| Some((pod, self.unknown(pod)?)))
    }

    /// What was said of the serving revision before this operator began to ask: it holds until it knows better.
    pub(super) fn said_before(&self, serving: &Planned) -> Option<Fact> {
        self.observed.canaries.as_ref()?;
        let conditions = self.server.status.as_ref()?.conditions.as_slice();
        let before = conditions::find(conditions, types::AVAILABLE)?;
        // Of the pod that was named, or of any where none was.
        let named = |pod: &&Pod| before.message.contains(&format!("pod {}:", pod.name_any()));
        let pods: Vec<_> = self.observed.pods_of(&serving.name).collect();
        let of_one: Vec<_> = pods.iter().copied().filter(named).collect();
        let about = if of_one.is_empty() && before.reason == reasons::UNKNOWN_TOOL { pods } else { of_one };
        let is_known = |pod: &&Pod| self.observed.standing(pod).is_some() && self.unknown(pod).is_none();
        if about.is_empty() || about.iter().all(is_known) {
            return None;
        }
        let reason =
            [reasons::CANARY_FAILED, reasons::UNKNOWN_TOOL].into_iter().find(|known| *known == before.reason)?;
        Some(Fact::no(types::AVAILABLE, reason, before.message.clone()))
    }

    /// Why nothing is known of a pod that is asked.
    fn unknown(&self, pod: &Pod) -> Option<Option<&str>> {
        match self.observed.standing(pod)? {
            Standing::Unknown(why) => Some(why.as_deref()),
            Standing::Passed | Standing::Failed(_) => None,
        }
    }
}

fn unmade(pod: &Pod, why: &str) -> String {
    format!("canary checks cannot be made at pod {}: {why}", pod.name_any())
}

/// That pods of `canary` give a wrong answer to what no pod of `serving` fails.
pub(super) fn wrong_only_there(observed: &Observed, serving: &str, canary: &str) -> Option<String> {
    let is_wrong = |fault: &Fault| matches!(fault.failed.cause, Cause::Wrong | Cause::Error);
    let fails = |check: &str| {
        observed.failing_checks(serving).any(|(_, faults)| faults.iter().any(|fault| fault.check == check))
    };
    let mut there = observed.failing_checks(canary).flat_map(|(_, faults)| faults);
    there
        .any(|fault| is_wrong(fault) && !fails(&fault.check))
        .then(|| wrong(observed.failing_checks(canary)))?
        .map(|wrong| wrong.message)
}

/// The first check that fails, and how many more there are.
fn wrong<'a>(mut pods: impl Iterator<Item = (&'a Pod, &'a [Fault])>) -> Option<Diagnosis> {
    let (pod, faults) = pods.next()?;
    let fault = faults.first()?;
    let Fault { check, field, failed } = fault;
    let mut message = match failed.cause {
        Cause::UnknownTool => format!("{field}.tool.name: expected {}, got {}", failed.expected, failed.got),
        Cause::NoSession | Cause::Late | Cause::Error | Cause::Wrong => {
            let name = pod.name_any();
            format!("canary check {check} at pod {name}: expected {}, got {}", failed.expected, failed.got)
        }
    };
    message.push_str(&more(faults.len() - 1, "check there", "checks there"));
    message.push_str(&more(pods.count(), "pod", "pods"));
    let reason = if failed.cause == Cause::UnknownTool { reasons::UNKNOWN_TOOL } else { reasons::CANARY_FAILED };
    Some(Diagnosis { reason, message })
}

fn more(count: usize, one: &str, many: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!("; 1 more {one} fails too"),
        _ => format!("; {count} more {many} fail too"),
    }
}
