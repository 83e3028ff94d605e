//! Which revisions exist, what each does, and which go away.
//!
//! What happened is kept on the Deployments as annotations: when a revision began to serve, at which step it is and since when, when it
//! began to drain, and why it was rolled back. So a restarted operator decides as the one before it did. Nothing here reads a clock.

mod recreate;
mod turn;

use std::time::Duration;

use jiff::Timestamp;
use portolan_crds::server::{CanaryStep, RevisionState, RolloutType};

use turn::Turn;

use crate::{analysis::Compared, loaded::Sending};

/// How long gateways have at least to hear that another revision serves.
const HEARSAY: Duration = Duration::from_secs(5);

/// At which step a revision is that takes a share of new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Which of `spec.rollout.canary.steps`, from 0.
    pub(super) index: usize,
    /// Since when.
    pub(super) since: Timestamp,
}

/// What made a revision what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MadeBy {
    /// The [release](crate::config::Config::release) that asked for it last.
    pub(super) release: Option<String>,
    /// Whether it was made only because that was another release.
    pub(super) is_roll: bool,
}

/// A revision as the cluster has it: its Deployment, its pods, and what their bridges say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Existing {
    /// Name of the revision.
    pub(super) name: String,
    /// `metadata.generation` of the spec that made it.
    pub(super) generation: i64,
    /// What made it so.
    pub(super) made_by: MadeBy,
    /// When it began to serve, the last time it did.
    pub(super) serving_since: Option<Timestamp>,
    /// When it began to drain.
    pub(super) draining_since: Option<Timestamp>,
    /// At which step it is.
    pub(super) step: Option<Step>,
    /// Why it was rolled back.
    pub(super) rolled_back: Option<String>,
    /// Replicas its Deployment asks for.
    pub(super) replicas: i32,
    /// Pods that are ready and not terminating, and passed the known-answer checks where there are some.
    pub(super) verified: i32,
    /// Whether one of its pods fails a known-answer check.
    pub(super) refuted: bool,
    /// Pods that exist, those that are going away too.
    pub(super) pods: i32,
    /// Whether its Deployment has seen what was asked of it last, and counts no pods.
    pub(super) idle: bool,
    /// Whether its Deployment gave up waiting for its pods.
    pub(super) gave_up: bool,
}

impl Existing {
    /// Whether it does not come to serve unless something changes.
    fn is_stuck(&self) -> bool {
        self.gave_up || self.refuted
    }

    /// What it does until it can serve.
    fn coming_up(&self) -> RevisionState {
        if self.is_stuck() { RevisionState::Failed } else { RevisionState::Pending }
    }

    /// Whether it may come to serve, and does not yet.
    pub(super) fn comes_up(&self) -> bool {
        self.draining_since.is_none() && self.rolled_back.is_none()
    }

    /// Whether it has taken sessions.
    fn has_served(&self) -> bool {
        self.serving_since.is_some() || self.step.is_some() || self.draining_since.is_some()
    }

    /// Whether nothing of it runs, and nothing will by itself.
    fn has_ended(&self) -> bool {
        self.replicas == 0 && self.pods == 0 && self.idle
    }
}

/// What is wanted, and what is known besides the revisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// Name of the revision that the spec asks for; `None` while what it refers to is missing.
    pub(super) desired: Option<&'a str>,
    /// Whether its tools differ from those of the one that serves, although they may not.
    pub(super) has_other_tools: bool,
    /// Whether it has known-answer checks to pass.
    pub(super) is_checked: bool,
    /// `metadata.generation` of the spec.
    pub(super) generation: i64,
    /// How many pods it is to have.
    pub(super) replicas: i32,
    /// `spec.rollout.type`.
    pub(super) type_: RolloutType,
    /// `spec.rollout.canary.steps`.
    pub(super) steps: &'a [CanaryStep],
    /// What was found of the desired revision while it takes a share.
    pub(super) compared: &'a Compared,
    /// `spec.rollout.paused`.
    pub(super) paused: bool,
    /// `spec.rollout.promote`.
    pub(super) promote: Option<&'a str>,
    /// `spec.rollout.abort`.
    pub(super) abort: Option<&'a str>,
    /// `spec.rollout.drainTimeout`.
    pub(super) drain_timeout: Duration,
    /// The revision that status called serving: it still is when its Deployment was deleted by hand.
    pub(super) remembered: Option<&'a str>,
    /// Where every live gateway replica sends new sessions (anywhere when there is no gateway).
    pub(super) programmed: &'a [Sending],
    /// Whether pods of the server run that belong to no revision there is: of a Deployment that was deleted, say.
    pub(super) strays: bool,
    /// Now.
    pub(super) now: Timestamp,
}

impl Wish<'_> {
    /// Share of new sessions at a step, in percent. Steps that were taken out of the spec count as the last.
    fn weight_at(&self, step: Step) -> u8 {
        self.steps.get(step.index).or(self.steps.last()).map_or(0, |step| step.set_weight)
    }
}

/// What one revision is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// Name of the revision.
    pub(super) name: String,
    /// `metadata.generation` of the spec that made it.
    pub(super) generation: i64,
    /// What made it so.
    pub(super) made_by: MadeBy,
    /// What it does.
    pub(super) state: RevisionState,
    /// Share of new sessions, in percent, if no other takes one.
    pub(super) weight: u8,
    /// Replicas its Deployment is to have.
    pub(super) replicas: i32,
    /// When it began to serve.
    pub(super) serving_since: Option<Timestamp>,
    /// When it began to drain.
    pub(super) draining_since: Option<Timestamp>,
    /// At which step it is.
    pub(super) step: Option<Step>,
    /// Why it was rolled back.
    pub(super) rolled_back: Option<String>,
}

impl Planned {
    /// The revision, as one that waits and runs nothing.
    fn of(revision: &Existing) -> Self {
        Self {
            name: revision.name.clone(),
            generation: revision.generation,
            made_by: revision.made_by.clone(),
            state: RevisionState::Pending,
            weight: 0,
            replicas: 0,
            serving_since: None,
            draining_since: None,
            step: None,
            rolled_back: None,
        }
    }

    /// Whether it would have replicas, of which there are to be `wanted`, if others had ended.
    pub(super) fn waits(&self, wanted: i32) -> bool {
        self.state != RevisionState::Draining && self.replicas == 0 && wanted > 0
    }
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Revisions that are to exist, by name.
    pub(super) revisions: Vec<Planned>,
    /// Revisions whose objects go away.
    pub(super) delete: Vec<String>,
}

impl Plan {
    /// The revision that takes new sessions, or what another leaves of them.
    pub(super) fn serving(&self) -> Option<&Planned> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Serving)
    }

    /// The revision that takes a share of new sessions.
    pub(super) fn canary(&self) -> Option<&Planned> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Canary)
    }

    /// Where new sessions go.
    pub(super) fn sending(&self) -> Sending {
        Sending {
            serving: self.serving().map(|serving| serving.name.clone()),
            canary: self.canary().map(|canary| Sending::share(&canary.name, canary.weight)),
        }
    }

    /// Share of new sessions that a revision of this plan takes, in percent.
    pub(super) fn weight(&self, revision: &Planned) -> u8 {
        let others =
            if revision.state == RevisionState::Serving { self.canary().map_or(0, |canary| canary.weight) } else { 0 };
        revision.weight.saturating_sub(others)
    }

    /// The revision of that name.
    pub(super) fn revision(&self, name: &str) -> Option<&Planned> {
        self.revisions.iter().find(|revision| revision.name == name)
    }

    /// Revisions that keep sessions and take no new ones.
    pub(super) fn draining(&self) -> impl Iterator<Item = &Planned> {
        self.revisions.iter().filter(|revision| revision.state == RevisionState::Draining)
    }
}

/// Decides what every revision is to be.
pub(super) fn plan(wish: &Wish<'_>, existing: &[Existing]) -> Plan {
    let mut plan = match wish.type_ {
        RolloutType::BlueGreen | RolloutType::Canary => beside(wish, existing),
        RolloutType::Recreate => recreate::plan(wish, existing),
    };
    plan.revisions.sort_by(|a, b| a.name.cmp(&b.name));
    plan.delete.sort();
    plan
}

/// The new revision comes up beside the one that serves.
fn beside(wish: &Wish<'_>, existing: &[Existing]) -> Plan {
    let current = current(wish.desired, wish.remembered, existing);
    let (next_one, turn) = turn::of(wish, current, existing);
    let serving = if turn == Turn::Takes { wish.desired } else { current };
    let sending = Sending {
        serving: serving.map(str::to_owned),
        canary: turn.step().zip(next_one).map(|(step, name)| Sending::share(name, wish.weight_at(step))),
    };
    let mut plan = Plan::default();
    for revision in existing {
        match next(wish, &sending, (next_one, &turn), revision) {
            Some(planned) => plan.revisions.push(planned),
            None => plan.delete.push(revision.name.clone()),
        }
    }
    if let Some(name) = wish.desired
        && !existing.iter().any(|revision| revision.name == name)
        && !matches!(turn, Turn::Back(_))
    {
        plan.revisions.push(created(wish, &sending, name));
    }
    plan
}

/// The revision that serves now. Two are marked after an operator died between two writes: the younger counts.
pub(super) fn current<'a>(
    desired: Option<&str>,
    remembered: Option<&'a str>,
    existing: &'a [Existing],
) -> Option<&'a str> {
    existing
        .iter()
        .filter(|revision| revision.draining_since.is_none())
        .filter_map(|revision| Some((revision.serving_since?, revision.name.as_str())))
        .max()
        .map(|(_, name)| name)
        .or_else(|| remembered.filter(|name| desired == Some(*name) || is_known(existing, name)))
}

/// Whether the revision has a Deployment, though perhaps one whose annotations someone took away.
fn is_known(existing: &[Existing], name: &str) -> bool {
    existing.iter().any(|revision| revision.name == name && revision.draining_since.is_none())
}

/// What an existing revision becomes; `None` when it goes away.
fn next(
    wish: &Wish<'_>,
    sending: &Sending,
    (next_one, turn): (Option<&str>, &Turn),
    revision: &Existing,
) -> Option<Planned> {
    if sending.serving.as_ref() == Some(&revision.name) {
        return Some(serve(wish, revision));
    }
    let is_desired = wish.desired == Some(&revision.name);
    match turn {
        Turn::Shares(step) if next_one == Some(&revision.name) => Some(share(wish, *step, revision)),
        Turn::Back(why) if next_one == Some(&revision.name) => Some(take_back(wish, sending, why.as_deref(), revision)),
        _ if is_desired && revision.has_served() => Some(return_to(wish, revision)),
        _ if revision.has_served() => drain(wish, sending, revision),
        // While something is missing that the spec refers to, what there is goes on.
        _ if is_desired || wish.desired.is_none() => Some(await_ready(wish, revision)),
        _ => None,
    }
}

fn serve(wish: &Wish<'_>, revision: &Existing) -> Planned {
    let began = if revision.draining_since.is_some() { None } else { revision.serving_since };
    Planned {
        state: RevisionState::Serving,
        weight: 100,
        replicas: wish.replicas,
        serving_since: Some(began.unwrap_or(wish.now)),
        ..Planned::of(revision)
    }
}

/// It takes a share of new sessions.
fn share(wish: &Wish<'_>, step: Step, revision: &Existing) -> Planned {
    Planned {
        state: RevisionState::Canary,
        weight: wish.weight_at(step),
        replicas: wish.replicas,
        step: Some(step),
        ..Planned::of(revision)
    }
}

/// A revision that does not serve after all keeps the sessions it has, as one that drains does, and its Deployment, which says why.
fn take_back(wish: &Wish<'_>, sending: &Sending, why: Option<&str>, revision: &Existing) -> Planned {
    let since = revision.has_served().then(|| revision.draining_since.unwrap_or(wish.now));
    let keeps = since.is_some_and(|since| !may_end(wish, sending, since));
    Planned {
        state: RevisionState::Failed,
        replicas: if keeps { revision.replicas } else { 0 },
        serving_since: revision.serving_since,
        draining_since: since,
        rolled_back: why.map(str::to_owned),
        ..Planned::of(revision)
    }
}

/// A revision that drains and is desired again comes up as a new one does, and keeps its sessions meanwhile.
fn return_to(wish: &Wish<'_>, revision: &Existing) -> Planned {
    Planned {
        state: revision.coming_up(),
        replicas: wish.replicas.max(revision.replicas),
        serving_since: revision.serving_since,
        draining_since: Some(revision.draining_since.unwrap_or(wish.now)),
        ..Planned::of(revision)
    }
}

fn await_ready(wish: &Wish<'_>, revision: &Existing) -> Planned {
    Planned { state: revision.coming_up(), replicas: wish.replicas, ..Planned::of(revision) }
}

/// A revision that served keeps its sessions until they end or its time is up.
///
/// It is scaled to zero as soon as gateways send new sessions elsewhere. Its pods end when their bridges have drained,
/// which is the one drain there is, and its Service stays as long as they do, so that gateways find them.
fn drain(wish: &Wish<'_>, sending: &Sending, revision: &Existing) -> Option<Planned> {
    let since = revision.draining_since.unwrap_or(wish.now);
    let replicas = if may_end(wish, sending, since) { 0 } else { revision.replicas };
    if revision.replicas == 0 && replicas == 0 && revision.pods == 0 {
        return None;
    }
    Some(Planned {
        state: RevisionState::Draining,
        replicas,
        serving_since: revision.serving_since,
        draining_since: Some(since),
        ..Planned::of(revision)
    })
}

/// Whether the pods of a revision that drains may be told to end: nobody sends new sessions to them any more, or
/// the gateways had their time to hear of it.
fn may_end(wish: &Wish<'_>, sending: &Sending, since: Timestamp) -> bool {
    let left = wish.programmed.contains(sending);
    let limit = wish.drain_timeout.max(HEARSAY);
    wish.replicas == 0 || left || has_passed(limit, since, wish.now)
}

/// Whether `time` has passed since then.
fn has_passed(time: Duration, since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX)
}

fn created(wish: &Wish<'_>, sending: &Sending, name: &str) -> Planned {
    let serves = sending.serving.as_deref() == Some(name);
    Planned {
        name: name.to_owned(),
        generation: wish.generation,
        made_by: MadeBy::default(),
        state: if serves { RevisionState::Serving } else { RevisionState::Pending },
        weight: if serves { 100 } else { 0 },
        replicas: wish.replicas,
        serving_since: serves.then_some(wish.now),
        draining_since: None,
        step: None,
        rolled_back: None,
    }
}

#[cfg(test)]
mod tests;
