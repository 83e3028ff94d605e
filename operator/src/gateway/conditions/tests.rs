use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, PodStatus};
use kube::api::ObjectMeta;
use portolan_snapshot::report::GatewayReport;

use super::*;
use crate::gateways::Replica;

fn gateway() -> MCPGateway {
    let spec = serde_json::from_value(serde_json::json!({"authentication": {"anonymous": {}}})).unwrap();
    let metadata = ObjectMeta { uid: Some("u".into()), generation: Some(2), ..ObjectMeta::default() };
    MCPGateway { metadata, spec, status: None }
}

fn observed(reports: Vec<Option<GatewayReport>>) -> Observed {
    let replica = |index: usize| Replica {
        name: format!("pod-{index}"),
        uid: format!("{index}"),
        ip: "10.0.0.1".into(),
        ready: true,
    };
    Observed {
        keys: Default::default(),
        api_keys: Default::default(),
        servers: Vec::new(),
        kept_macs: Default::default(),
        bad_selector: None,
        pods: Vec::new(),
        replicas: reports.into_iter().enumerate().map(|(index, report)| (replica(index), report)).collect(),
    }
}

fn report(generation: i64) -> Option<GatewayReport> {
    Some(GatewayReport { uid: "u".into(), generation, problems: Vec::new() })
}

#[test]
fn programmed_means_that_every_ready_replica_has_loaded_this_generation() {
    let state = |reports| programmed(&gateway(), &observed(reports)).state;
    assert_eq!(state(vec![report(2), report(2)]), State::True);
    assert_eq!(state(vec![report(2), report(1)]), State::False);
    assert_eq!(state(vec![report(2), None]), State::False);
    assert_eq!(state(Vec::new()), State::False);
    let other = Some(GatewayReport { uid: "other".into(), generation: 2, problems: Vec::new() });
    assert_eq!(state(vec![other]), State::False);
    let problem = Some(GatewayReport { uid: "u".into(), generation: 2, problems: vec!["no keys".into()] });
    let fact = programmed(&gateway(), &observed(vec![problem]));
    assert_eq!(fact.state, State::False);
    assert!(fact.message.contains("no keys") && fact.message.contains("pod-0"), "{}", fact.message);
}

#[test]
fn a_gateway_without_a_ready_pod_says_what_keeps_its_pods() {
    let waiting = ContainerStateWaiting { reason: Some("ErrImagePull".into()), message: Some("not found".into()) };
    let container = ContainerStatus {
        state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
        ..ContainerStatus::default()
    };
    let status = PodStatus { container_statuses: Some(vec![container]), ..PodStatus::default() };
    let pod = Pod { status: Some(status), ..Pod::default() };
    let counts = DeploymentStatus::default();
    let fact = available(&Deployment::default(), &counts, 2, std::slice::from_ref(&pod));
    assert_eq!((fact.state, fact.reason), (State::False, "ImagePullFailed"));
    assert!(fact.message.contains("not found"), "{}", fact.message);
    let counts = DeploymentStatus { ready_replicas: Some(1), ..DeploymentStatus::default() };
    assert_eq!(available(&Deployment::default(), &counts, 2, &[pod]).state, State::True);
}

#[test]
fn a_gateway_whose_pods_are_refused_says_so() {
    let refused = serde_json::json!({"metadata": {}, "status": {"conditions": [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods=0"},
    ]}});
    let refused = serde_json::from_value::<Deployment>(refused).unwrap();
    let fact = available(&refused, &DeploymentStatus::default(), 2, &[]);
    assert_eq!((fact.state, fact.reason), (State::False, "Forbidden"));
    assert!(fact.message.contains("exceeded quota"), "{}", fact.message);
}

#[test]
fn a_rollout_is_over_when_every_pod_of_the_latest_template_is_ready_and_no_other_runs() {
    let deployment =
        Deployment { metadata: ObjectMeta { generation: Some(3), ..ObjectMeta::default() }, ..Deployment::default() };
    let counts = |observed, updated, all, ready| DeploymentStatus {
        observed_generation: Some(observed),
        updated_replicas: Some(updated),
        replicas: Some(all),
        ready_replicas: Some(ready),
        ..DeploymentStatus::default()
    };
    assert!(rollout(&deployment, &counts(2, 2, 2, 2), 2).is_some());
    assert!(rollout(&deployment, &counts(3, 1, 2, 2), 2).is_some());
    assert!(rollout(&deployment, &counts(3, 2, 3, 3), 2).is_some());
    assert_eq!(rollout(&deployment, &counts(3, 2, 2, 1), 2).as_deref(), Some("1 of 2 pods are ready"));
    assert_eq!(rollout(&deployment, &counts(3, 2, 2, 2), 2), None);
    let progressing = summarise(&[], Some(&"1 of 2".to_owned()), 2);
    assert_ne!(progressing.state, State::True);
}
