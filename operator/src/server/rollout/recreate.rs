//! `rollout.type: Recreate`: whoever runs ends before another starts.
//!
//! At most one revision has replicas. It gets its first ones only when no pod of the server is left, whoever it belongs to:
//! not even one of the same revision, which may be on its way out after a stop.

use portolan_crds::server::RevisionState;

use super::{Existing, MadeBy, Plan, Planned, Wish, current, may_end};
use crate::loaded::Sending;

/// Decides what every revision is to be.
pub(super) fn plan(wish: &Wish<'_>, existing: &[Existing]) -> Plan {
    let current = current(wish.desired, wish.remembered, existing);
    // While something is missing that the spec refers to, or someone says so, what serves goes on.
    let wanted = current.filter(|_| wish.paused).or(wish.desired).or(current);
    let decision = Decision { wish, current, wanted, holder: holder(wish, current, wanted, existing) };
    let mut plan = Plan::default();
    for revision in existing {
        match decision.next(revision) {
            Some(planned) => plan.revisions.push(planned),
            None => plan.delete.push(revision.name.clone()),
        }
    }
    if let Some(name) = wanted
        && !existing.iter().any(|revision| revision.name == name)
    {
        plan.revisions.push(decision.created(name));
    }
    plan
}

/// The one revision that may have replicas: the one that has some; the wanted one when nothing runs any more.
fn holder<'a>(
    wish: &Wish<'_>,
    current: Option<&'a str>,
    wanted: Option<&'a str>,
    existing: &'a [Existing],
) -> Option<&'a str> {
    let runs = |name: &&str| existing.iter().any(|revision| revision.name == *name && revision.replicas > 0);
    let any = || existing.iter().find(|revision| revision.replicas > 0).map(|revision| revision.name.as_str());
    let running = current.filter(runs).or_else(|| wanted.filter(runs)).or_else(any);
    let is_free = !wish.strays && existing.iter().all(Existing::has_ended);
    running.or_else(|| wanted.filter(|_| is_free))
}

/// What all revisions are judged by.
struct Decision<'a> {
    wish: &'a Wish<'a>,
    current: Option<&'a str>,
    wanted: Option<&'a str>,
    holder: Option<&'a str>,
}

impl Decision<'_> {
    /// What an existing revision becomes; `None` when it goes away.
    fn next(&self, revision: &Existing) -> Option<Planned> {
        if self.wanted == Some(&revision.name) {
            return Some(self.bring_up(revision));
        }
        let is_pending = !revision.has_served();
        if self.wanted.is_none() && is_pending { Some(self.bring_up(revision)) } else { self.make_way(revision) }
    }

    fn bring_up(&self, revision: &Existing) -> Planned {
        let replicas = self.replicas_of(&revision.name);
        let answers = revision.replicas > 0 && revision.verified >= self.wish.replicas;
        let serves = self.serves(&revision.name) || (answers && self.wanted == Some(&revision.name));
        let since = revision.serving_since.filter(|_| revision.draining_since.is_none());
        Planned {
            state: match (serves, revision.is_stuck()) {
                (true, _) => RevisionState::Serving,
                (false, true) => RevisionState::Failed,
                (false, false) => RevisionState::Pending,
            },
            weight: if serves { 100 } else { 0 },
            replicas,
            serving_since: serves.then(|| since.unwrap_or(self.wish.now)),
            ..Planned::of(revision)
        }
    }

    /// One that served keeps its pods until gateways send nothing new to them; one that never did has nothing to keep.
    fn make_way(&self, revision: &Existing) -> Option<Planned> {
        if revision.has_ended() {
            return None;
        }
        let since = revision.draining_since.unwrap_or(self.wish.now);
        let sending = Sending::to(self.wanted.filter(|name| self.serves(name)));
        let holds = self.holder == Some(&revision.name) && revision.has_served();
        Some(Planned {
            state: RevisionState::Draining,
            replicas: if holds && !may_end(self.wish, &sending, since) { revision.replicas } else { 0 },
            serving_since: revision.serving_since,
            draining_since: Some(since),
            ..Planned::of(revision)
        })
    }

    fn created(&self, name: &str) -> Planned {
        let serves = self.serves(name);
        Planned {
            name: name.to_owned(),
            generation: self.wish.generation,
            made_by: MadeBy::default(),
            state: if serves { RevisionState::Serving } else { RevisionState::Pending },
            weight: if serves { 100 } else { 0 },
            replicas: self.replicas_of(name),
            serving_since: serves.then_some(self.wish.now),
            draining_since: None,
            step: None,
            rolled_back: None,
        }
    }

    fn replicas_of(&self, name: &str) -> i32 {
        if self.holder == Some(name) { self.wish.replicas } else { 0 }
    }

    /// Whether the revision serves whatever its pods say: it does already, or none is to run.
    fn serves(&self, name: &str) -> bool {
        self.wanted == Some(name) && (self.current == Some(name) || self.wish.replicas == 0)
    }
}

#[cfg(test)]
mod tests;
