//! The HorizontalPodAutoscaler of a revision, where what its pods use decides how many there are.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::{
        ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler,
        HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    },
};
use portolan_crds::server::{Autoscaling, RevisionState, ScalingMetric};

use super::{Parts, SERVER};
use crate::server::rollout::Planned;

/// The autoscaler; `None` where the operator says how many pods the revision has.
pub(super) fn of(parts: &Parts<'_>, planned: &Planned, live: Option<&Deployment>) -> Option<HorizontalPodAutoscaler> {
    let autoscaling = parts.spec.autoscaling.as_ref().filter(|_| decides(parts, planned, live))?;
    let target = CrossVersionObjectReference {
        api_version: Some("apps/v1".into()),
        kind: "Deployment".into(),
        name: planned.name.clone(),
    };
    let scale_down =
        HPAScalingRules { stabilization_window_seconds: Some(delay(autoscaling)), ..HPAScalingRules::default() };
    Some(HorizontalPodAutoscaler {
        metadata: parts.revision_metadata(&planned.name),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target,
            min_replicas: Some(least(autoscaling, planned)),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(autoscaling.metrics.iter().filter_map(metric).collect()),
            behavior: Some(HorizontalPodAutoscalerBehavior { scale_down: Some(scale_down), scale_up: None }),
        }),
        status: None,
    })
}

/// Whether an autoscaler says how many pods the revision has: of one that takes sessions, once there are some, as no autoscaler starts what
/// stands at none. One that comes up has as many as the one whose place it takes, and one that drains keeps those it has.
pub(super) fn decides(parts: &Parts<'_>, planned: &Planned, live: Option<&Deployment>) -> bool {
    let has_some = live.and_then(|live| live.spec.as_ref()?.replicas).is_some_and(|replicas| replicas > 0);
    let takes_sessions = matches!(planned.state, RevisionState::Serving | RevisionState::Canary);
    let by_usage = parts.spec.autoscaling.as_ref().is_some_and(Autoscaling::is_by_usage);
    by_usage && takes_sessions && has_some && planned.replicas > 0
}

/// A revision that takes a share may have all sessions any moment, and has no fewer pods than the one that serves.
fn least(autoscaling: &Autoscaling, planned: &Planned) -> i32 {
    let with_share = planned.state == RevisionState::Canary;
    let least = if with_share { planned.replicas } else { autoscaling.min_replicas };
    least.clamp(autoscaling.min_replicas, autoscaling.max_replicas.max(autoscaling.min_replicas))
}

/// In whole seconds.
fn delay(autoscaling: &Autoscaling) -> i32 {
    let delay = autoscaling.scale_down_delay.as_std();
    let whole = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// Of the server's container alone: what its author requests says nothing of the bridge beside it.
fn metric(metric: &ScalingMetric) -> Option<MetricSpec> {
    let source = ContainerResourceMetricSource {
        container: SERVER.into(),
        name: metric.type_.resource()?.into(),
        target: MetricTarget {
            type_: "Utilization".into(),
            average_utilization: Some(i32::try_from(metric.target).unwrap_or(i32::MAX)),
            ..MetricTarget::default()
        },
    };
    Some(MetricSpec { type_: "ContainerResource".into(), container_resource: Some(source), ..MetricSpec::default() })
}

#[cfg(test)]
mod tests;
