//! What becomes of the revision that the spec asks for, while another one serves.

use std::time::Duration;

use super::{Existing, Step, Wish, has_passed};
use crate::{analysis::Compared, loaded::Sending};

/// After that much of a step gateways have heard of its share and told of calls there: what was compared before may be silence only.
const HEARD: Duration = Duration::from_secs(2);

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

/// The revision that may take the place of the one that serves, and what becomes of it while `current` does. That is the desired one; while
/// something is missing that the spec refers to, the one that takes a share or was rolled back.
pub(super) fn of<'a>(wish: &Wish<'a>, current: Option<&str>, existing: &'a [Existing]) -> (Option<&'a str>, Turn) {
    let Some(desired) = wish.desired else { return while_missing(wish, existing) };
    let revision = existing.iter().find(|revision| revision.name == desired);
    (Some(desired), of_desired(wish, desired, current.filter(|current| *current != desired), revision))
}

fn while_missing<'a>(wish: &Wish<'a>, existing: &'a [Existing]) -> (Option<&'a str>, Turn) {
    for revision in existing {
        let step = revision.step.filter(|_| revision.draining_since.is_none());
        let turn = match (&revision.rolled_back, step, wish.compared) {
            (Some(why), ..) => Turn::Back(Some(why.clone())),
            (None, Some(_), Compared::Badly(why)) => Turn::Back(Some(why.clone())),
            (None, Some(step), _) => Turn::Shares(step),
            (None, None, _) => continue,
        };
        return (Some(&revision.name), turn);
    }
    (None, Turn::Waits)
}

/// What becomes of the desired revision while its `rival` serves.
fn of_desired(wish: &Wish<'_>, desired: &str, rival: Option<&str>, revision: Option<&Existing>) -> Turn {
    let is_verified = wish.replicas > 0 && revision.is_some_and(|revision| revision.verified >= wish.replicas);
    let is_unseen = wish.replicas == 0;
    let Some(rival) = rival else {
        return if is_verified || is_unseen { Turn::Takes } else { Turn::Waits };
    };
    if let Some(back) = back(wish, desired, revision) {
        return back;
    }
    // Nothing has to answer when nothing is to run, so a stopped server changes over at once: not to what would have to be checked or compared,
    // and would take traffic without that once it is started.
    let may_unseen = is_unseen && !wish.is_checked && wish.steps.is_empty();
    let is_held = wish.paused || wish.has_other_tools || !(is_verified || may_unseen);
    let step = revision.filter(|revision| revision.draining_since.is_none()).and_then(|revision| revision.step);
    match step.filter(|_| !wish.steps.is_empty()) {
        None if is_held => Turn::Waits,
        _ if !is_held && (wish.steps.is_empty() || wish.promote == Some(desired)) => Turn::Takes,
        None => Turn::Shares(Step { index: 0, since: wish.now }),
        Some(step) if is_held || !is_over(wish, desired, rival, step) => Turn::Shares(step),
        Some(step) if step.index + 1 < wish.steps.len() => {
            Turn::Shares(Step { index: step.index + 1, since: wish.now })
        }
        Some(_) => Turn::Takes,
    }
}

/// That it takes no sessions any more.
fn back(wish: &Wish<'_>, desired: &str, revision: Option<&Existing>) -> Option<Turn> {
    if wish.abort == Some(desired) {
        // What it was rolled back for is no reason less when that is taken out again.
        return Some(Turn::Back(revision.and_then(|revision| revision.rolled_back.clone())));
    }
    let revision = revision?;
    if wish.promote == Some(desired) && !wish.paused {
        return None;
    }
    if let Some(why) = &revision.rolled_back {
        return Some(Turn::Back(Some(why.clone())));
    }
    match wish.compared {
        Compared::Badly(why) if revision.step.is_some() => Some(Turn::Back(Some(why.clone()))),
        _ => None,
    }
}

/// Whether a step has lasted as long as it has to, gateways know of its share, and a comparison within it speaks for the next.
fn is_over(wish: &Wish<'_>, desired: &str, rival: &str, step: Step) -> bool {
    let pause = wish.steps.get(step.index).map_or(Duration::ZERO, |step| step.pause.as_std());
    let sending = Sending { canary: Some(Sending::share(desired, wish.weight_at(step))), ..Sending::to(Some(rival)) };
    let is_well = matches!(wish.compared, Compared::Well(since) if has_passed(HEARD, step.since, *since));
    has_passed(pause, step.since, wish.now) && wish.programmed.contains(&sending) && is_well
}

#[cfg(test)]
mod tests;
