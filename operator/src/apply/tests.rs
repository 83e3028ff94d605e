use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::*;

fn owner() -> Owner {
    let reference = OwnerReference {
        api_version: "portolan.dev/v1alpha1".into(),
        kind: "MCPServer".into(),
        name: "s".into(),
        uid: "owner".into(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    Owner { reference, namespace: "team".into() }
}

fn config_map(entries: &[(&str, &str)]) -> ConfigMap {
    let data = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("c".into()),
            owner_references: Some(vec![owner().reference()]),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..ConfigMap::default()
    }
}

fn child(object: &ConfigMap) -> Child {
    let mut resources = Resources::new(owner());
    resources.add(object).unwrap();
    resources.state.children.remove(0)
}

/// As the API server has it right after `child` was applied.
fn live(child: &Child) -> DynamicObject {
    let mut live = child.desired.clone();
    live["metadata"]["uid"] = json!("1");
    live["metadata"]["managedFields"] = json!([{
        "manager": portolan_crds::OPERATOR_MANAGER, "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}}},
    }]);
    serde_json::from_value(live).unwrap()
}

#[test]
fn what_was_applied_and_not_touched_needs_no_write() {
    let child = child(&config_map(&[("a", "1")]));
    assert_eq!(difference(&live(&child), &child).unwrap(), None);
}

#[test]
fn a_field_that_we_no_longer_want_is_noticed_although_the_live_object_holds_all_that_we_do() {
    let before = child(&config_map(&[("a", "1"), ("b", "2")]));
    let now = child(&config_map(&[("a", "1")]));
    let live = live(&before);
    assert!(compare::contains(&live.data, &json!({"data": {"a": "1"}})));
    assert!(difference(&live, &now).unwrap().is_some());
}

#[test]
fn a_value_changed_and_a_value_added_by_someone_else_are_both_noticed() {
    let child = child(&config_map(&[("a", "1")]));
    let mut changed = live(&child);
    changed.data["data"]["a"] = json!("2");
    assert!(difference(&changed, &child).unwrap().is_some());

    let mut added = serde_json::to_value(live(&child)).unwrap();
    added["data"]["b"] = json!("2");
    let entry = json!({"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {"f:b": {}}}});
    added["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
    let added: DynamicObject = serde_json::from_value(added).unwrap();
    assert_eq!(difference(&added, &child).unwrap().as_deref(), Some("someone else added data.b"));
    let whole = without_surplus(&added, &child).unwrap();
    assert_eq!(whole.data["data"], json!({"a": "1"}));
    assert_eq!(whole.metadata.uid.as_deref(), Some("1"));
}

#[test]
fn an_object_of_that_name_that_is_not_ours_is_never_ours_to_write_and_its_owner_is_named() {
    let child = child(&config_map(&[("a", "1")]));
    check_ownership(&owner(), "ConfigMap team/c", &live(&child)).unwrap();

    let refused = |change: &dyn Fn(&mut DynamicObject)| {
        let mut foreign = live(&child);
        change(&mut foreign);
        check_ownership(&owner(), "ConfigMap team/c", &foreign).unwrap_err()
    };
    let error = refused(&|foreign| {
        for reference in foreign.metadata.owner_references.iter_mut().flatten() {
            (reference.name, reference.uid) = ("other".into(), "other".into());
        }
    });
    assert_eq!((error.reason, error.class), ("ForeignObject", crate::error::Class::Stalled));
    assert!(error.message.contains("MCPServer other"), "{}", error.message);
    // The same name and kind of owner, made anew: not the same owner, and what was the earlier one's goes away.
    let error = refused(&|foreign| {
        for reference in foreign.metadata.owner_references.iter_mut().flatten() {
            reference.uid = "earlier".into();
        }
    });
    assert_eq!((error.reason, error.class), ("Pending", crate::error::Class::Waiting(DELETION_POLL)));
    let error = refused(&|foreign| {
        for reference in foreign.metadata.owner_references.iter_mut().flatten() {
            reference.controller = Some(false);
        }
    });
    assert!(error.message.contains("MCPServer s"), "{}", error.message);
    let error = refused(&|foreign| {
        foreign.metadata.owner_references = None;
        let entry = json!([{"manager": "helm", "operation": "Apply"}]);
        foreign.metadata.managed_fields = serde_json::from_value(entry).unwrap();
    });
    assert!(error.message.contains("helm"), "{}", error.message);
}

#[test]
fn an_object_that_someone_else_made_a_moment_before_is_told_from_one_that_we_made() {
    let child = child(&config_map(&[("a", "1")]));
    let mut made = live(&child);
    assert!(!written_by_others(&made));
    let entry = |more: Value| {
        let mut entry = json!({"manager": "kube-controller-manager", "operation": "Update"});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(entry).unwrap()
    };
    made.metadata.managed_fields.as_mut().unwrap().push(entry(json!({"subresource": "status"})));
    assert!(!written_by_others(&made));
    made.metadata.managed_fields.as_mut().unwrap().push(entry(json!({})));
    assert!(written_by_others(&made));
}

#[test]
fn a_child_without_its_owner_reference_is_refused_before_it_reaches_the_cluster() {
    let mut orphan = config_map(&[]);
    orphan.metadata.owner_references = None;
    assert!(Resources::new(owner()).add(&orphan).is_err());
}
