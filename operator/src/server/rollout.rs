//! Which revisions exist, what each does, and which go away.
//!
//! What happened is kept on the Deployments as two annotations, when a revision began to serve and when it began to
//! drain, so that a restarted operator decides as the one before it did. Nothing here reads a clock.

mod recreate;

use std::time::Duration;

use jiff::Timestamp;
use portolan_crds::server::{RevisionState, RolloutType};

/// How long gateways have at least to hear that another revision serves.
const HEARSAY: Duration = Duration::from_secs(5);

/// A revision as the cluster has it: its Deployment, its pods, and what their bridges say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Existing {
    /// Name of the revision.
    pub(super) name: String,
    /// `metadata.generation` of the spec that made it.
    pub(super) generation: i64,
    /// When it began to serve, the last time it did.
    pub(super) serving_since: Option<Timestamp>,
    /// When it began to drain.
    pub(super) draining_since: Option<Timestamp>,
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
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// `spec.rollout.type`.
    pub(super) type_: RolloutType,
    /// `spec.rollout.paused`.
    pub(super) paused: bool,
    /// `spec.rollout.drainTimeout`.
    pub(super) drain_timeout: Duration,
    /// The revision that status called serving: it still is when its Deployment was deleted by hand.
    pub(super) remembered: Option<&'a str>,
    /// Revisions that every live gateway replica sends new sessions to (each of them when there is no gateway).
    pub(super) programmed: &'a [&'a str],
    /// Whether every live gateway replica sends new sessions nowhere, or there is no gateway.
    pub(super) unprogrammed: bool,
    /// Whether pods of the server run that belong to no revision there is: of a Deployment that was deleted, say.
    pub(super) strays: bool,
    /// Now.
    pub(super) now: Timestamp,
}

/// What one revision is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// Name of the revision.
    pub(super) name: String,
    /// `metadata.generation` of the spec that made it.
    pub(super) generation: i64,
    /// What it does.
    pub(super) state: RevisionState,
    /// Replicas its Deployment is to have.
    pub(super) replicas: i32,
    /// When it began to serve.
    pub(super) serving_since: Option<Timestamp>,
    /// When it began to drain.
    pub(super) draining_since: Option<Timestamp>,
}

impl Planned {
    /// Whether it would have replicas, of which there are to be `wanted`, if others had ended.
    pub(super) fn waits(&self, wanted: i32) -> bool {
        self.state != RevisionState::Draining && self.replicas == 0 && wanted > 0
    }

    /// Share of new sessions, in percent.
    pub(super) fn weight(&self) -> u8 {
        if self.state == RevisionState::Serving { 100 } else { 0 }
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
    /// The revision that takes new sessions.
    pub(super) fn serving(&self) -> Option<&Planned> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Serving)
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
        RolloutType::BlueGreen => beside(wish, existing),
        RolloutType::Recreate => recreate::plan(wish, existing),
    };
    plan.revisions.sort_by(|a, b| a.name.cmp(&b.name));
    plan.delete.sort();
    plan
}

/// The new revision comes up beside the one that serves.
fn beside(wish: &Wish<'_>, existing: &[Existing]) -> Plan {
    let serving = serving(wish, existing);
    let mut plan = Plan::default();
    for revision in existing {
        match next(wish, serving, revision) {
            Some(planned) => plan.revisions.push(planned),
            None => plan.delete.push(revision.name.clone()),
        }
    }
    if let Some(name) = wish.desired
        && !existing.iter().any(|revision| revision.name == name)
    {
        plan.revisions.push(created(wish, serving, name));
    }
    plan
}

/// The revision that is to serve: the desired one once it can, else the one that does.
fn serving<'a>(wish: &Wish<'a>, existing: &'a [Existing]) -> Option<&'a str> {
    let current = current(wish.desired, wish.remembered, existing);
    let Some(desired) = wish.desired else { return current };
    let is_barred = current.is_some_and(|current| current != desired && (wish.paused || wish.has_other_tools));
    let is_verified = |revision: &Existing| revision.name == desired && revision.verified >= wish.replicas;
    let verified = wish.replicas > 0 && existing.iter().any(is_verified);
    // Nothing has to answer when nothing is to run, so a stopped server changes over at once: not to what would have to be checked, and
    // would take traffic unchecked once it is started.
    let may_unseen = wish.replicas == 0 && (current.is_none() || !wish.is_checked);
    if (verified || may_unseen) && !is_barred { Some(desired) } else { current }
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
fn next(wish: &Wish<'_>, serving: Option<&str>, revision: &Existing) -> Option<Planned> {
    if serving == Some(&revision.name) {
        return Some(serve(wish, revision));
    }
    match (revision.serving_since, wish.desired) {
        (Some(_), Some(desired)) if desired == revision.name => Some(return_to(wish, revision)),
        (Some(_), _) => drain(wish, serving, revision),
        (None, Some(desired)) if desired != revision.name => None,
        (None, _) => Some(await_ready(wish, revision)),
    }
}

fn serve(wish: &Wish<'_>, revision: &Existing) -> Planned {
    let began = if revision.draining_since.is_some() { None } else { revision.serving_since };
    Planned {
        name: revision.name.clone(),
        generation: revision.generation,
        state: RevisionState::Serving,
        replicas: wish.replicas,
        serving_since: Some(began.unwrap_or(wish.now)),
        draining_since: None,
    }
}

/// A revision that drains and is desired again keeps its sessions while its pods come back.
fn return_to(wish: &Wish<'_>, revision: &Existing) -> Planned {
    Planned {
        name: revision.name.clone(),
        generation: revision.generation,
        state: RevisionState::Draining,
        replicas: wish.replicas.max(revision.replicas),
        serving_since: revision.serving_since,
        draining_since: Some(revision.draining_since.unwrap_or(wish.now)),
    }
}

fn await_ready(wish: &Wish<'_>, revision: &Existing) -> Planned {
    Planned {
        name: revision.name.clone(),
        generation: revision.generation,
        state: if revision.is_stuck() { RevisionState::Failed } else { RevisionState::Pending },
        replicas: wish.replicas,
        serving_since: None,
        draining_since: None,
    }
}

/// A revision that served keeps its sessions until they end or its time is up.
///
/// It is scaled to zero as soon as gateways send new sessions elsewhere. Its pods end when their bridges have drained,
/// which is the one drain there is, and its Service stays as long as they do, so that gateways find them.
fn drain(wish: &Wish<'_>, serving: Option<&str>, revision: &Existing) -> Option<Planned> {
    let since = revision.draining_since.unwrap_or(wish.now);
    let replicas = if may_end(wish, serving, since) { 0 } else { revision.replicas };
    if revision.replicas == 0 && replicas == 0 && revision.pods == 0 {
        return None;
    }
    Some(Planned {
        name: revision.name.clone(),
        generation: revision.generation,
        state: RevisionState::Draining,
        replicas,
        serving_since: revision.serving_since,
        draining_since: Some(since),
    })
}

/// Whether the pods of a revision that drains may be told to end: nobody sends new sessions to them any more, or
/// the gateways had their time to hear of it.
fn may_end(wish: &Wish<'_>, serving: Option<&str>, since: Timestamp) -> bool {
    let left = serving.map_or(wish.unprogrammed, |name| wish.programmed.contains(&name));
    let limit = wish.drain_timeout.max(HEARSAY);
    let late =
        wish.now.duration_since(since) >= jiff::SignedDuration::try_from(limit).unwrap_or(jiff::SignedDuration::MAX);
    wish.replicas == 0 || left || late
}

fn created(wish: &Wish<'_>, serving: Option<&str>, name: &str) -> Planned {
    let serves = serving == Some(name);
    Planned {
        name: name.to_owned(),
        generation: wish.generation,
        state: if serves { RevisionState::Serving } else { RevisionState::Pending },
        replicas: wish.replicas,
        serving_since: serves.then_some(wish.now),
        draining_since: None,
    }
}

#[cfg(test)]
mod tests;
