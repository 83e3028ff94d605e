//! How a rollout by steps goes, in the words of a condition. Pure.

use portolan_crds::{
    conditions::reasons,
    server::{RevisionState, RolloutType},
};

use super::{diagnosis::Diagnosis, rollout::Planned, summary::Outcome};
use crate::loaded::Programmed;

impl Outcome<'_> {
    /// That the desired revision takes a share of new sessions.
    pub(super) fn sharing(&self) -> Option<Diagnosis> {
        let (canary, serving) = (self.plan.canary()?, self.plan.serving()?);
        let steps = self.validated.spec.rollout.steps().len();
        let step = canary.step.map_or(0, |step| step.index.min(steps.saturating_sub(1)) + 1);
        let mut message = format!(
            "step {step} of {steps}: revision {} takes {} % of new sessions, revision {} the rest",
            canary.name, canary.weight, serving.name
        );
        if let Some(why) = self.holds_up(canary) {
            message = format!("{message}; it does not go on meanwhile: {why}");
        }
        Some(Diagnosis { reason: reasons::CANARY_STEP, message })
    }

    /// What keeps a revision that takes a share from the next step, besides its pause.
    fn holds_up(&self, canary: &Planned) -> Option<String> {
        if self.verified_of(&canary.name) < canary.replicas {
            let lacks = self.diagnosis(canary).map(|lacks| lacks.message);
            return Some(lacks.unwrap_or_else(|| self.coming_up(canary).message));
        }
        // Of a share that has just been decided on gateways were not asked yet.
        match (self.tool_changes, self.observed.programmed.get(&self.plan.sending())) {
            (Some(changes), _) => Some(changes.to_string()),
            (None, Some(Programmed::Waiting(lack))) => Some(lack.clone()),
            (None, _) => self.observed.compared.note.clone(),
        }
    }

    /// Why a revision that takes a share does not get further unless something changes: its Deployment gave up.
    pub(super) fn stranded(&self) -> Option<Diagnosis> {
        let canary = self.plan.canary().filter(|canary| self.observed.has_given_up(&canary.name))?;
        let reason = self.diagnosis(canary).map_or(reasons::PROGRESS_DEADLINE_EXCEEDED, |lacks| lacks.reason);
        Some(Diagnosis { reason, message: self.sharing()?.message })
    }

    /// That the desired revision was taken back, by the operator or by who wrote the spec.
    pub(super) fn taken_back(&self) -> Option<Diagnosis> {
        let (desired, serving) = (self.desired?, self.plan.serving()?);
        let rollout = &self.validated.spec.rollout;
        let is_aborted = rollout.abort.as_deref() == Some(desired) && rollout.type_ != RolloutType::Recreate;
        if is_aborted && serving.name != desired {
            let message = format!(
                "revision {desired} does not serve, as spec.rollout.abort names it; revision {} does: apply another spec, or remove abort",
                serving.name
            );
            return Some(Diagnosis { reason: reasons::ROLLOUT_ABORTED, message });
        }
        let failed = self.plan.revision(desired).filter(|revision| revision.state == RevisionState::Failed)?;
        let message = format!(
            "revision {desired} was rolled back: {}; revision {} serves: apply another spec, or go past this with portolan rollout promote {}",
            failed.rolled_back.as_deref()?,
            serving.name,
            self.validated.server
        );
        Some(Diagnosis { reason: reasons::ROLLED_BACK, message })
    }
}

#[cfg(test)]
mod tests;
