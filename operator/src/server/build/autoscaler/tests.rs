use portolan_crds::server::RevisionState::{Canary, Draining, Failed, Pending, Serving};
use serde_json::json;

use super::*;
use crate::{
    apply::Owner,
    server::{
        build::{Before, Parts, build, wanted},
        fixtures,
        observed::Observed,
        validate,
    },
};

const SPEC: &str = "
container:
  {image: i, transport: Stdio, command: [x], resources: {requests: {cpu: 100m, memory: 64Mi}}}
autoscaling:
  {minReplicas: 2, maxReplicas: 5, metrics: [{type: CPU, target: 80}, {type: Memory, target: 90}], scaleDownDelay: 1500ms}
";

fn deployment(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {
            "name": "everything-1",
            "annotations": {(super::super::SERVING_SINCE): "1970-01-01T00:00:01Z"},
        },
        "spec": {"replicas": replicas, "selector": {}, "template": {}},
    }))
    .unwrap()
}

fn made(spec: &str, state: RevisionState, replicas: i32, live: Option<&Deployment>) -> Option<HorizontalPodAutoscaler> {
    let server = fixtures::server(spec);
    let validated = validate::validate(&server, "everything", &fixtures::nothing());
    let (owner, config) = (Owner::of(&server).unwrap(), fixtures::config());
    of(&Parts::new(&validated, &owner, &config), &fixtures::planned("everything-1", state, replicas), live)
}

#[test]
fn what_the_servers_container_uses_of_what_it_requests_decides() {
    insta::assert_yaml_snapshot!(made(SPEC, Serving, 3, Some(&deployment(3))));
}

#[test]
fn only_a_revision_that_takes_sessions_and_has_pods_is_left_to_an_autoscaler() {
    let is_left =
        |state, replicas, live: Option<i32>| made(SPEC, state, replicas, live.map(deployment).as_ref()).is_some();
    assert!(is_left(Serving, 2, Some(2)) && is_left(Canary, 2, Some(2)));
    for (state, replicas, live) in [
        (Pending, 2, Some(2)),
        (Draining, 2, Some(2)),
        (Failed, 2, Some(2)),
        (Serving, 2, None),
        (Serving, 2, Some(0)),
        (Serving, 0, Some(2)),
    ] {
        assert!(!is_left(state, replicas, live), "{state:?} {replicas} {live:?}");
    }
    let by_calls = SPEC.replace("type: CPU", "type: InFlight").replace("type: Memory", "type: Sessions");
    assert!(made(&by_calls, Serving, 2, Some(&deployment(2))).is_none());
}

#[test]
fn a_revision_with_a_share_has_no_fewer_pods_than_the_one_that_serves() {
    let least = |state, replicas| {
        made(SPEC, state, replicas, Some(&deployment(replicas))).and_then(|made| made.spec?.min_replicas)
    };
    assert_eq!((least(Serving, 4), least(Canary, 4), least(Canary, 9)), (Some(2), Some(4), Some(5)));
}

#[test]
fn a_deployment_says_no_number_while_an_autoscaler_does_and_the_one_there_is_when_it_stops() {
    let of = |spec: &str, replicas: i32| {
        let server = fixtures::server(spec);
        let deployments = vec![deployment(4)];
        let templates = Vec::new();
        let observed = Observed { deployments, templates, replicas, ..fixtures::nothing() };
        let validated = validate::validate(&server, "everything", &observed);
        let (owner, config) = (Owner::of(&server).unwrap(), fixtures::config());
        let wanted = wanted(&validated, &observed, Before::default(), &owner, &config).unwrap();
        let built = build(&wanted, &validated, &observed, Some("everything-1"), &owner, &config).unwrap();
        let deployment = built.resources.prepared::<Deployment>("everything-1");
        let autoscaler = built.resources.prepared::<HorizontalPodAutoscaler>("everything-1");
        (deployment.map(|deployment| deployment.spec.unwrap().replicas), autoscaler.is_some())
    };
    // Nobody kept its template, so its Deployment is written only for its number.
    let (deployment, autoscaled) = of(SPEC, 4);
    assert!(deployment.is_none_or(|replicas| replicas.is_none()) && autoscaled);
    let by_calls = SPEC.replace("type: CPU", "type: InFlight").replace("type: Memory", "type: Sessions");
    let (deployment, autoscaled) = of(&by_calls, 4);
    assert!(deployment.is_none_or(|replicas| replicas == Some(4)) && !autoscaled, "{deployment:?}");
    let (deployment, autoscaled) = of(&by_calls, 3);
    assert_eq!((deployment, autoscaled), (Some(Some(3)), false));
}
