//! What becomes of the revision that the spec asks for, while another one serves.

use super::{Existing, Step, Wish, has_passed};
use crate::analysis::Compared;

/// What becomes of the desired revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits.
    Waits,
    /// It takes a share of new sessions.
    Shares(Step),
    /// It takes them all.
    Takes,
    /// It takes none any more; why, where that has to be remembered, as the spec does not say it.
    Back(Option<String>),
}

impl Turn {
    /// The step at which it takes a share.
    pub(super) fn step(&self) -> Option<Step> {
        match self {
            Self::Shares(step) => Some(*step),
            Self::Waits | Self::Takes | Self::Back(_) => None,
        }
    }
}

/// What becomes of the desired revision while `current` serves.
pub(super) fn of(wish: &Wish<'_>, current: Option<&str>, existing: &[Existing]) -> Turn {
    let Some(desired) = wish.desired else { return Turn::Waits };
    let revision = existing.iter().find(|revision| revision.name == desired);
    let rival = current.filter(|current| *current != desired);
    let is_verified = wish.replicas > 0 && revision.is_some_and(|revision| revision.verified >= wish.replicas);
    // Nothing has to answer when nothing is to run, so a stopped server changes over at once: not to what would have to be checked, and
    // would take traffic unchecked once it is started.
    let may_unseen = wish.replicas == 0 && (current.is_none() || !wish.is_checked && wish.steps.is_empty());
    if rival.is_none() {
        return if is_verified || may_unseen { Turn::Takes } else { Turn::Waits };
    }
    if let Some(back) = back(wish, desired, revision) {
        return back;
    }
    let step = revision.filter(|revision| revision.draining_since.is_none()).and_then(|revision| revision.step);
    let is_held = wish.paused || wish.has_other_tools || !(is_verified || may_unseen);
    match step.filter(|_| !wish.steps.is_empty()) {
        None if is_held => Turn::Waits,
        _ if !is_held && (wish.steps.is_empty() || wish.promote == Some(desired)) => Turn::Takes,
        None => Turn::Shares(Step { index: 0, since: wish.now }),
        Some(step) if is_held || !is_over(wish, step) => Turn::Shares(step),
        Some(step) if step.index + 1 < wish.steps.len() => {
            Turn::Shares(Step { index: step.index + 1, since: wish.now })
        }
        Some(_) => Turn::Takes,
    }
}

/// That it takes no sessions any more.
fn back(wish: &Wish<'_>, desired: &str, revision: Option<&Existing>) -> Option<Turn> {
    if wish.abort == Some(desired) {
        return Some(Turn::Back(None));
    }
    let revision = revision?;
    if wish.promote == Some(desired) && revision.rolled_back.is_some() {
        return None;
    }
    if let Some(why) = &revision.rolled_back {
        return Some(Turn::Back(Some(why.clone())));
    }
    revision.step?;
    if let Compared::Badly(why) = wish.compared {
        return Some(Turn::Back(Some(why.clone())));
    }
    None
}

/// Whether a step has lasted as long as it has to, and the comparison since it began speaks for the next.
fn is_over(wish: &Wish<'_>, step: Step) -> bool {
    let pause = wish.steps.get(step.index).map_or(std::time::Duration::ZERO, |step| step.pause.as_std());
    let is_well = matches!(wish.compared, Compared::Well(since) if *since >= step.since);
    has_passed(pause, step.since, wish.now) && is_well
}

#[cfg(test)]
mod tests;
