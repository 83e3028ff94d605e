//! From what was applied and observed to conditions. Pure.

use portolan_crds::{
    conditions::{reasons, types},
    server::{RevisionState, Sleep},
};

use super::{
    diagnosis::{self, Diagnosis, Failing},
    observed::has_ended,
    rollout::Planned,
    summary::Outcome,
    tool_changes::Changes,
};
use crate::{
    error::Error,
    loaded::Programmed,
    status::{self, Fact},
};

impl Outcome<'_> {
    /// Every condition.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let accepted = self.accepted();
        let (resolved, available, programmed) = (self.resolved(), self.available(), self.programmed());
        let ready = self.ready(&available, &programmed);
        let mut facts = vec![ready, accepted, resolved, programmed, available, self.progressing()];
        facts.extend(self.kstatus(&facts));
        facts
    }

    fn accepted(&self) -> Fact {
        match self.bad_check() {
            Some(bad) => Fact::no(types::ACCEPTED, reasons::INVALID, bad),
            None => Fact::yes(types::ACCEPTED, reasons::ACCEPTED, "the spec is valid"),
        }
    }

    /// A known-answer check that cannot be made.
    fn bad_check(&self) -> Option<String> {
        self.observed.canaries.as_ref()?.as_ref().err().map(ToString::to_string)
    }

    fn resolved(&self) -> Fact {
        match &self.validated.content {
            Ok(_) => Fact::yes(types::RESOLVED_REFS, reasons::RESOLVED_REFS, "everything that the spec names exists"),
            Err(error) => Fact::no(types::RESOLVED_REFS, error.reason, error.message.clone()),
        }
    }

    /// Whether callers are answered, by whichever revision serves.
    fn available(&self) -> Fact {
        let no = |diagnosis: Diagnosis| Fact::no(types::AVAILABLE, diagnosis.reason, diagnosis.message);
        let Some(serving) = self.plan.serving() else {
            return no(self.why_nothing_serves());
        };
        if self.waits(serving) {
            return no(self.coming_up(serving));
        }
        let sleep = self.validated.sleep();
        if serving.replicas == 0 {
            return sleep.map_or_else(|| no(self.scaled_to_zero()), asleep);
        }
        let ready = self.ready_of(&serving.name);
        let lacks = self.diagnosis(serving);
        if ready == 0 {
            let lacks = lacks.unwrap_or_else(|| self.coming_up(serving));
            // Calls wait for it.
            let wakes = sleep.is_some() && lacks.reason == reasons::PENDING;
            return if wakes { Fact::yes(types::AVAILABLE, reasons::WAKING, lacks.message) } else { no(lacks) };
        }
        if let Some(Diagnosis { reason, message }) = self.wrong_answers(serving) {
            return no(Diagnosis { reason, message: format!("{message}; calls still go there") });
        }
        if let Some(fact) = self.said_before(serving) {
            return fact;
        }
        let failing = diagnosis::failing(self.observed.answering(&serving.name));
        if let Failing::All(diagnosis) = failing {
            return no(diagnosis);
        }
        let mut message = format!("{ready} of {} replicas answer", serving.replicas);
        if let Failing::Some(told) = failing {
            message = format!("{message}; {told}");
        }
        if let Some(lacks) = lacks.filter(|_| ready < serving.replicas) {
            message = format!("{message}; {}", lacks.message);
        }
        for why in [self.unmade(serving), self.unscaled(serving)].into_iter().flatten() {
            message = format!("{message}; {why}");
        }
        Fact::yes(types::AVAILABLE, reasons::AVAILABLE, message)
    }

    fn programmed(&self) -> Fact {
        let no = |reason, message: String| Fact::no(types::PROGRAMMED, reason, message);
        let sending = self.plan.sending();
        match self.observed.programmed(&sending) {
            Programmed::NoGateway => no(
                reasons::NO_GATEWAY,
                "no MCPGateway selects the server: see kubectl get mcpgateways -A, and spec.servers of each".into(),
            ),
            Programmed::Waiting(lack) => no(reasons::NOT_LOADED, lack),
            Programmed::Yes if sending.serving.is_none() => no(reasons::PENDING, "no revision serves yet".into()),
            Programmed::Yes => {
                Fact::yes(types::PROGRAMMED, reasons::PROGRAMMED, "every live gateway replica has loaded the server")
            }
        }
    }

    fn progressing(&self) -> Fact {
        if let Some(failed) = self.failed() {
            return Fact::no(types::PROGRESSING, failed.reason, failed.message);
        }
        if let Some(paused) = self.paused() {
            return Fact::no(types::PROGRESSING, paused.reason, paused.message);
        }
        if let Some(sharing) = self.sharing() {
            return Fact::yes(types::PROGRESSING, sharing.reason, sharing.message);
        }
        if let Some(pending) = self.pending() {
            let message = format!("revision {} comes up; {}", pending.name, self.serves_meanwhile());
            return Fact::yes(types::PROGRESSING, reasons::ROLLOUT_IN_PROGRESS, message);
        }
        let Some(serving) = self.plan.serving() else {
            return Fact::no(types::PROGRESSING, reasons::PENDING, "there is no revision yet");
        };
        let draining: Vec<_> = self.plan.draining().map(|revision| revision.name.as_str()).collect();
        if draining.is_empty() {
            let later =
                if self.is_put_off { "; it rolls to this release of the operator when it is its turn" } else { "" };
            let message = format!("revision {} serves{later}", serving.name);
            return Fact::no(types::PROGRESSING, reasons::ROLLOUT_COMPLETE, message);
        }
        let message = format!(
            "revision {} serves; sessions of {} go on until they end, for {} at most",
            serving.name,
            draining.join(", "),
            self.validated.spec.rollout.drain_timeout
        );
        Fact::no(types::PROGRESSING, reasons::DRAINING, message)
    }

    /// Available, programmed, and the latest generation is what serves. The first that is not so is the reason.
    fn ready(&self, available: &Fact, programmed: &Fact) -> Fact {
        let not = |reason, message: String| Fact::no(types::READY, reason, message);
        if let Err(error) = &self.validated.content {
            return not(error.reason, error.message.clone());
        }
        if let Some(bad) = self.bad_check() {
            return not(reasons::INVALID, format!("{bad}; {}", self.serves_meanwhile()));
        }
        let kept = [self.taken_back(), self.stranded(), self.barred(), self.paused(), self.sharing()];
        let kept = kept.into_iter().flatten().next();
        if let Some(kept) = kept {
            return not(kept.reason, kept.message);
        }
        if let Some(pending) = self.pending() {
            let why = self.diagnosis(pending).unwrap_or_else(|| self.coming_up(pending));
            return not(
                why.reason,
                format!("revision {} does not serve yet: {}; {}", pending.name, why.message, self.serves_meanwhile()),
            );
        }
        let required = [types::AVAILABLE, types::PROGRAMMED];
        status::summarise(&[available.clone(), programmed.clone()], &required, available.message.clone())
    }

    /// What is still to be done, or what only a person can do.
    fn kstatus(&self, facts: &[Fact]) -> [Fact; 2] {
        let of = |type_| facts.iter().find(|fact| fact.type_ == type_);
        if let Err(error) = &self.validated.content {
            return unresolved(error);
        }
        if let Some(bad) = self.bad_check() {
            return status::stuck(reasons::INVALID, bad);
        }
        if let Some(failed) = self.failed() {
            return status::stuck(failed.reason, failed.message);
        }
        if let Some(fact) = of(types::AVAILABLE).filter(|fact| fact.reason == reasons::UNKNOWN_TOOL) {
            return status::stuck(fact.reason, fact.message.clone());
        }
        if let Some(paused) = self.paused() {
            return [
                Fact::no(types::RECONCILING, paused.reason, paused.message),
                Fact::no(types::STALLED, reasons::RECONCILING, "nothing needs a person"),
            ];
        }
        let is_stopped = self.plan.serving().is_some_and(|serving| serving.replicas == 0);
        let lacks = |serving: &&Planned| self.waits(serving) || self.ready_of(&serving.name) < serving.replicas;
        let missing = self.plan.serving().filter(lacks);
        let pending = if let Some(sharing) = self.sharing() {
            Some((sharing.reason, sharing.message))
        } else if let Some(pending) = self.pending() {
            Some((reasons::ROLLOUT_IN_PROGRESS, format!("revision {} comes up", pending.name)))
        } else if let Some(serving) = missing {
            let wanted = serving.replicas.max(self.validated.replicas);
            Some((reasons::RECONCILING, format!("not all {wanted} replicas answer yet")))
        } else if is_stopped {
            None
        } else {
            of(types::PROGRAMMED)
                .filter(|fact| fact.reason == reasons::NOT_LOADED)
                .map(|fact| (fact.reason, fact.message.clone()))
        };
        status::progress(pending)
    }

    /// The desired revision while it does not serve.
    pub(super) fn pending(&self) -> Option<&Planned> {
        let desired = self.desired?;
        let serves = self.plan.serving().is_some_and(|serving| serving.name == desired);
        if serves { None } else { self.plan.revision(desired) }
    }

    /// That the desired revision could serve, or take more, and is kept from it.
    fn paused(&self) -> Option<Diagnosis> {
        let (desired, serving) = (self.desired?, self.plan.serving()?);
        let waits = self.validated.spec.rollout.paused && serving.name != desired;
        let is_ready = match self.plan.revision(desired) {
            Some(pending) => self.verified_of(&pending.name) >= pending.replicas,
            // With Recreate it is not even made.
            None => true,
        };
        let stays = match self.plan.canary() {
            Some(canary) => format!("stays at {} % of new sessions", canary.weight),
            None => "waits".to_owned(),
        };
        let message = format!(
            "revision {desired} {stays}, as spec.rollout.paused is true, and revision {} serves; portolan rollout resume {} goes on",
            serving.name, self.validated.server
        );
        (waits && is_ready).then_some(Diagnosis { reason: reasons::ROLLOUT_PAUSED, message })
    }

    /// Why the desired revision does not take the place of the one that serves, although it could.
    fn barred(&self) -> Option<Diagnosis> {
        let (pending, serving) = (self.pending()?, self.plan.serving()?);
        let is_verified = self.verified_of(&pending.name) >= pending.replicas;
        let changes = self.tool_changes.filter(|changes| is_verified && **changes != Changes::Unknown)?;
        let message = format!(
            "revision {} has other tools than revision {}, which serves on: {changes}; write spec.rollout.allowToolChanges: true, or take \
             the change back",
            pending.name, serving.name
        );
        Some(Diagnosis { reason: reasons::TOOLS_CHANGED, message })
    }

    /// Why the desired revision does not come to serve unless something changes: its tools, its answers, or a Deployment that gave up.
    fn failed(&self) -> Option<Diagnosis> {
        if let Some(kept) = self.taken_back().or_else(|| self.stranded()).or_else(|| self.barred()) {
            return Some(kept);
        }
        let failed = self.pending().filter(|pending| pending.state == RevisionState::Failed)?;
        let mut why = self.diagnosis(failed).unwrap_or_else(|| self.coming_up(failed));
        if why.reason == reasons::PENDING {
            why.reason = reasons::PROGRESS_DEADLINE_EXCEEDED;
        }
        let message = format!("revision {} does not serve: {}; {}", failed.name, why.message, self.serves_meanwhile());
        Some(Diagnosis { reason: why.reason, message })
    }

    /// What is wrong with a revision's pods.
    pub(super) fn diagnosis(&self, revision: &Planned) -> Option<Diagnosis> {
        let silent = self.observed.pods_of(&revision.name).filter(|pod| !self.observed.answers(pod));
        diagnosis::worst(silent.map(|pod| (pod, self.observed.probe(pod))))
            .or_else(|| diagnosis::refused(self.observed.deployment(&revision.name)?))
            .or_else(|| self.wrong_answers(revision))
    }

    fn why_nothing_serves(&self) -> Diagnosis {
        if let Some(pending) = self.pending() {
            return self.diagnosis(pending).unwrap_or_else(|| self.coming_up(pending));
        }
        match &self.validated.content {
            Err(error) => Diagnosis { reason: error.reason, message: error.message.clone() },
            Ok(_) => Diagnosis { reason: reasons::PENDING, message: "there is no revision yet".into() },
        }
    }

    pub(super) fn coming_up(&self, revision: &Planned) -> Diagnosis {
        if self.waits(revision) {
            return self.in_the_way(revision);
        }
        let ready = self.ready_of(&revision.name);
        let mut message = format!("{ready} of {} replicas of revision {} answer", revision.replicas, revision.name);
        if let Some(why) = self.unverified(revision) {
            message = format!("{message}; {why}");
        } else if let Some(Changes::Unknown) = self.tool_changes {
            message = format!("{message}; {}", Changes::Unknown);
        }
        Diagnosis { reason: reasons::PENDING, message }
    }

    /// Whether the revision starts only when others have ended.
    fn waits(&self, revision: &Planned) -> bool {
        revision.waits(self.validated.replicas)
    }

    fn in_the_way(&self, revision: &Planned) -> Diagnosis {
        let mut pods =
            self.observed.pods.iter().filter(|pod| !has_ended(pod)).filter_map(|pod| pod.metadata.name.as_deref());
        let first = pods.next().map_or_else(|| "the one before".to_owned(), |name| format!("pod {name}"));
        let more = match pods.count() {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let message = format!(
            "revision {} starts when {first}{more} has ended, as spec.rollout.type is Recreate; sessions have \
             spec.rollout.drainTimeout, {}",
            revision.name, self.validated.spec.rollout.drain_timeout
        );
        Diagnosis { reason: reasons::DRAINING, message }
    }

    fn scaled_to_zero(&self) -> Diagnosis {
        let name = self.validated.server;
        let message = format!("spec.replicas is 0; kubectl scale mcpserver/{name} --replicas=1 starts it");
        Diagnosis { reason: reasons::SCALED_TO_ZERO, message }
    }

    fn serves_meanwhile(&self) -> String {
        match self.plan.serving() {
            Some(serving) => format!("revision {} serves meanwhile", serving.name),
            None => "no revision serves meanwhile".into(),
        }
    }
}

fn asleep(sleep: Sleep) -> Fact {
    let message =
        format!("nobody has called for {} s, so no pod runs; the next call starts one", sleep.after.as_secs());
    Fact::yes(types::AVAILABLE, reasons::ASLEEP, message)
}

/// A missing object may come any moment; a claim that cannot be shared stays so.
fn unresolved(error: &Error) -> [Fact; 2] {
    if error.reason == reasons::CLAIM_NOT_SHAREABLE {
        return [
            Fact::no(types::RECONCILING, error.reason, "see Stalled"),
            Fact::yes(types::STALLED, error.reason, error.message.clone()),
        ];
    }
    status::progress(Some((error.reason, error.message.clone())))
}

#[cfg(test)]
mod tests;
