use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::*;
use crate::apply::{Resources, difference, without_surplus};

fn child(replicas: Option<i32>) -> Child {
    let reference = OwnerReference { controller: Some(true), uid: "owner".into(), ..OwnerReference::default() };
    let metadata = ObjectMeta {
        name: Some("s-1".into()),
        owner_references: Some(vec![reference.clone()]),
        ..ObjectMeta::default()
    };
    let spec = DeploymentSpec { replicas, revision_history_limit: Some(0), ..DeploymentSpec::default() };
    let mut resources = Resources::new(Owner { reference, namespace: "team".into() });
    resources.add(&Deployment { metadata, spec: Some(spec), status: None }).unwrap();
    resources.state.children.remove(0)
}

/// As the API server has it with so many pods, after `child` was applied and these managers did something.
fn live(child: &Child, replicas: i32, others: &[Value]) -> Value {
    let mut live = child.desired.clone();
    live["spec"]["replicas"] = json!(replicas);
    live["metadata"]["uid"] = json!("1");
    let mut ours = json!({"f:spec": {"f:revisionHistoryLimit": {}}});
    if !is_left(child) {
        ours["f:spec"]["f:replicas"] = json!({});
    }
    let ours = json!({"manager": portolan_crds::OPERATOR_MANAGER, "operation": "Apply", "fieldsV1": ours});
    live["metadata"]["managedFields"] = [&[ours], others].concat().into();
    live
}

fn entry(manager: &str, operation: &str, subresource: &str) -> Value {
    let fields = json!({"f:spec": {"f:replicas": {}}});
    json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields})
}

fn said(live: &Value, child: &Child) -> Option<String> {
    difference(&serde_json::from_value(live.clone()).unwrap(), child).unwrap()
}

#[test]
fn whoever_says_how_many_pods_there_are_makes_no_difference_to_one_who_leaves_it_to_others() {
    let left = child(None);
    for (manager, operation, subresource) in
        [(KEEPER, "Apply", ""), ("kube-controller-manager", "Update", "scale"), ("kubectl-edit", "Update", "")]
    {
        let live = live(&left, 3, &[entry(manager, operation, subresource)]);
        assert_eq!(said(&live, &left), None, "{manager}");
    }
}

#[test]
fn a_restart_stays_and_what_someone_adds_beside_it_does_not() {
    let child = child(Some(2));
    let annotations =
        |annotations: Value| json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": annotations}}}});
    let restart = annotations(json!({".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}));
    let restart = json!({"manager": "kubectl-rollout", "operation": "Update", "fieldsV1": restart});
    let note = annotations(json!({"f:note": {}}));
    let note = json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": note});
    let written = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z", "note": "x"});

    let mut restarted = live(&child, 2, std::slice::from_ref(&restart));
    restarted["spec"]["template"]["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/restartedAt": written["kubectl.kubernetes.io/restartedAt"]});
    assert_eq!(said(&restarted, &child), None);
    let mut noted = live(&child, 2, &[restart, note]);
    noted["spec"]["template"]["metadata"]["annotations"] = written;
    assert_eq!(said(&noted, &child).as_deref(), Some("someone else added spec.template.metadata.annotations.note"));
    let whole = without_surplus(&serde_json::from_value(noted).unwrap(), &child).unwrap();
    let whole = serde_json::to_value(whole).unwrap();
    assert_eq!(whole["spec"]["template"], restarted["spec"]["template"], "only the note is taken away");
}

#[test]
fn what_is_taken_away_beside_it_leaves_the_number_as_it_is() {
    let left = child(None);
    let paused = json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}});
    let live = live(&left, 3, &[entry(KEEPER, "Apply", ""), paused]);
    assert_eq!(said(&live, &left).as_deref(), Some("someone else added spec.paused"));
    let whole = without_surplus(&serde_json::from_value(live).unwrap(), &left).unwrap();
    assert_eq!(whole.data["spec"]["replicas"], json!(3));
}

#[test]
fn a_number_that_is_asked_for_is_held_against_everyone() {
    let ours = child(Some(2));
    assert_eq!(said(&live(&ours, 2, &[entry(KEEPER, "Apply", "")]), &ours), None);
    assert!(said(&live(&ours, 3, &[entry("kube-controller-manager", "Update", "scale")]), &ours).is_some());
    assert!(said(&live(&ours, 2, &[]), &child(None)).is_some(), "what is not asked for any more is applied so");
}

#[test]
fn only_what_we_asked_for_has_to_be_handed_over() {
    let (ours, left) = (child(Some(2)), child(None));
    assert!(is_ours(&live(&ours, 2, &[])) && is_left(&left) && !is_left(&ours));
    assert!(!is_ours(&live(
        &left,
        2,
        &[entry(KEEPER, "Apply", ""), entry("kube-controller-manager", "Update", "scale")]
    )));
}
