//! What the HorizontalPodAutoscaler of a revision says, where what pods use decides. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};
use kube::ResourceExt;

use super::{rollout::Planned, summary::Outcome};

/// For how long it may not know: what new pods use is told only after a while.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// A shorter delay is over before it is seen that pods are kept for it.
const SHORT_DELAY: Duration = Duration::from_secs(30);

impl Outcome<'_> {
    /// Why the autoscaler of a revision neither makes nor takes away pods.
    pub(super) fn unscaled(&self, revision: &Planned) -> Option<String> {
        unscaled(self.observed.autoscaler(&revision.name)?, self.observed.now)
    }
}

fn unscaled(autoscaler: &HorizontalPodAutoscaler, now: Timestamp) -> Option<String> {
    let lacks = |type_: &str| condition(autoscaler, type_).filter(|condition| condition.status == "False");
    let is_lasting = |condition: &&HorizontalPodAutoscalerCondition| {
        let since = condition.last_transition_time.as_ref();
        since.is_some_and(|since| now.duration_since(since.0) >= PATIENCE)
    };
    let condition = [lacks("AbleToScale"), lacks("ScalingActive")].into_iter().flatten().find(is_lasting)?;
    // Its message names the API where that does not answer.
    let message = condition.message.as_deref().unwrap_or_default();
    let why = if message.contains("metrics.k8s.io") {
        "nothing in the cluster tells what pods use: install metrics-server, or see kubectl describe apiservice \
         v1beta1.metrics.k8s.io"
            .to_owned()
    } else {
        let (namespace, name) = (autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
        let reason = condition.reason.as_deref().unwrap_or("for no reason that it gives");
        format!("its HorizontalPodAutoscaler cannot decide ({reason}); see kubectl describe hpa -n {namespace} {name}")
    };
    Some(format!("the number of replicas stays as it is, as {why}"))
}

/// Whether there may be fewer pods before anyone hears of it: only `scaleDownDelay` keeps those there are, or not even that.
pub(super) fn may_take_away(autoscaler: &HorizontalPodAutoscaler) -> bool {
    let Some(spec) = &autoscaler.spec else { return false };
    let pods = autoscaler.status.as_ref().and_then(|status| status.current_replicas).unwrap_or_default();
    let scale_down = spec.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
    let delay = scale_down.and_then(|rules| rules.stabilization_window_seconds).unwrap_or_default();
    let is_short = u64::try_from(delay).is_ok_and(|delay| delay < SHORT_DELAY.as_secs());
    let keeps = condition(autoscaler, "AbleToScale")
        .is_some_and(|condition| condition.reason.as_deref() == Some("ScaleDownStabilized"));
    pods > spec.min_replicas.unwrap_or(1) && (is_short || keeps)
}

fn condition<'a>(autoscaler: &'a HorizontalPodAutoscaler, type_: &str) -> Option<&'a HorizontalPodAutoscalerCondition> {
    let conditions = autoscaler.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests;
