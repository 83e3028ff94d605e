use serde_json::{Value, json};

use super::*;

fn autoscaler(conditions: &Value) -> HorizontalPodAutoscaler {
    serde_json::from_value(json!({
        "metadata": {"name": "s-1", "namespace": "tools"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "s-1"}, "minReplicas": 2, "maxReplicas": 5,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
        "status": {"currentReplicas": 3, "desiredReplicas": 3, "conditions": conditions},
    }))
    .unwrap()
}

fn told(conditions: &Value, now: i64) -> Option<String> {
    unscaled(&autoscaler(conditions), Timestamp::from_second(now).unwrap())
}

#[test]
fn that_nobody_tells_what_pods_use_is_said_with_what_to_do_once_it_lasts() {
    let missing = json!([{
        "type": "ScalingActive", "status": "False", "reason": "FailedGetContainerResourceMetric",
        "message": "the HPA was unable to compute the replica count: failed to get cpu container metric value: unable to \
            get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find \
            the requested resource (get pods.metrics.k8s.io)",
        "lastTransitionTime": "1970-01-01T00:10:00Z",
    }]);
    assert_eq!(told(&missing, 659), None, "pods that have just started");
    assert_eq!(
        told(&missing, 660).as_deref(),
        Some(
            "the number of replicas stays as it is, as nothing in the cluster tells what pods use: install metrics-server, \
             or see kubectl describe apiservice v1beta1.metrics.k8s.io"
        )
    );
}

#[test]
fn another_cause_is_named_with_the_command_that_shows_more_and_what_is_well_is_not_told() {
    let of = |type_: &str, status: &str, reason: &str| json!([{"type": type_, "status": status, "reason": reason, "lastTransitionTime": "1970-01-01T00:10:00Z"}]);
    let message = told(&of("AbleToScale", "False", "FailedGetScale"), 900).unwrap();
    assert!(message.ends_with("(FailedGetScale); see kubectl describe hpa -n tools s-1"), "{message}");
    assert_eq!(told(&of("ScalingActive", "True", "ValidMetricFound"), 900), None);
    assert_eq!(told(&of("ScalingLimited", "False", "DesiredWithinRange"), 900), None);
    assert_eq!(told(&json!([]), 900), None);
}

#[test]
fn pods_may_go_while_only_the_delay_keeps_them_or_when_there_is_hardly_any() {
    let keeps = json!([{"type": "AbleToScale", "status": "True", "reason": "ScaleDownStabilized"}]);
    let fits = json!([{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale"}]);
    assert!(may_take_away(&autoscaler(&keeps)));
    assert!(!may_take_away(&autoscaler(&fits)));
    let with = |replicas: i32, delay: i32| {
        let mut autoscaler = autoscaler(&fits);
        autoscaler.status.as_mut().unwrap().current_replicas = Some(replicas);
        let behavior = autoscaler.spec.as_mut().unwrap().behavior.as_mut().unwrap();
        behavior.scale_down.as_mut().unwrap().stabilization_window_seconds = Some(delay);
        may_take_away(&autoscaler)
    };
    assert!(with(3, 0) && with(3, 29));
    assert!(!with(3, 30) && !with(2, 0), "of the least there are none goes");
}
