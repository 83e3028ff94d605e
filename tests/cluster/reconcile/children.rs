//! What the operator makes for a server: as declared, whoever edits or deletes it, and never what is someone else's.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::tidy::in_a_namespace;
use portolan_tests::wait::{PATIENCE, until};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{HALF_A_MINUTE, SECONDS, comes_back, echo, everything};

/// What an object declares.
fn content(object: &impl Serialize) -> Value {
    let mut content = serde_json::to_value(object).expect("JSON");
    for beside in ["metadata", "status"] {
        content.as_object_mut().expect("an object").remove(beside);
    }
    content
}

/// Edits a child as a strategic merge patch says, and waits until it declares what it did before.
async fn is_mended<K>(cluster: &Cluster, name: &str, edit: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Serialize
        + Clone
        + std::fmt::Debug,
{
    let api = cluster.api::<K>(TENANT);
    let kind = K::kind(&());
    let before = content(&api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")));
    let edited = api.patch(name, &PatchParams::default(), &Patch::Strategic(edit)).await.expect("a hand edits");
    assert_ne!(content(&edited), before, "the edit of {kind} {name} says something else");
    until(&format!("{kind} {name} is as before"), SECONDS, || async {
        let now = content(&api.get(name).await.map_err(|error| error.to_string())?);
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn every_child_that_is_edited_by_hand_is_restored_within_seconds() {
    let cluster = Cluster::connect().await;
    let name = "edited";
    let revision = cluster.serve(&everything(name)).await;
    let shared = format!("{name}-mcp");
    let intruders = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "server", "env": [{"name": "INTRUDER", "value": "1"}]},
        {"name": "miner", "image": "localhost/portolan-test/everything:1"},
    ]}}}});
    is_mended::<Deployment>(&cluster, &revision, intruders).await;
    is_mended::<Service>(&cluster, &revision, json!({"spec": {"selector": {"portolan.dev/server": "another"}}})).await;
    is_mended::<NetworkPolicy>(&cluster, &shared, json!({"spec": {"ingress": [{}]}})).await;
    is_mended::<ServiceAccount>(&cluster, &shared, json!({"automountServiceAccountToken": true})).await;
    is_mended::<ConfigMap>(&cluster, &format!("{revision}-tools"), json!({"data": {"tools.json": "[]"}})).await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "an edit by hand is no revision");
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn every_child_that_is_deleted_by_hand_comes_back_with_the_keys_that_it_had_and_sessions_go_on() {
    let name = "restored";
    let (cluster, url, token) = Cluster::serving(name).await;
    let revision = cluster.serving_revision(TENANT, name).await;
    let shared = format!("{name}-mcp");
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    let goes_on = async || echo(&session, 1, "through it").await;
    comes_back::<ServiceAccount>(&cluster, TENANT, &shared, SECONDS, &goes_on).await;
    comes_back::<NetworkPolicy>(&cluster, TENANT, &shared, SECONDS, &goes_on).await;
    comes_back::<ConfigMap>(&cluster, TENANT, &format!("{revision}-tools"), SECONDS, &goes_on).await;

    let mac = format!("{name}-mac");
    let before = cluster.api::<Secret>(TENANT).get(&mac).await.expect("the server has a key").data;
    let after = comes_back::<Secret>(&cluster, TENANT, &mac, HALF_A_MINUTE, &goes_on).await.data;
    assert!(before.is_some() && before == after, "the key is the same");
    goes_on().await.expect("the session goes on");
    Session::open(&url, Some(&token)).await.expect("and another one begins");

    // Without their Service nobody finds the pods, and without the Deployment there are none.
    comes_back::<Service>(&cluster, TENANT, &revision, SECONDS, async || Ok(())).await;
    until("the session goes on", PATIENCE, &goes_on).await;
    comes_back::<Deployment>(&cluster, TENANT, &revision, SECONDS, async || Ok(())).await;
    until("a session begins on new pods", PATIENCE, || async { Session::open(&url, Some(&token)).await.map(|_| ()) })
        .await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "what was deleted by hand is no revision");
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn a_foreign_object_of_a_childs_name_is_never_overwritten_and_its_owner_is_named() {
    let cluster = Cluster::connect().await;
    let name = "foreign";
    let account = format!("{name}-mcp");
    let theirs = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": account, "namespace": TENANT, "annotations": {"team": "billing"}}});
    cluster.apply::<ServiceAccount>(&theirs).await.expect("someone else made it first");

    cluster.apply::<MCPServer>(&everything(name)).await.expect("the manifest is accepted");
    let stalled = cluster.condition(TENANT, name, "Stalled", "True", "ForeignObject", PATIENCE).await;
    assert!(stalled.message.contains(&account), "{}", stalled.message);
    assert!(stalled.message.contains("portolan-tests"), "the owner is named: {}", stalled.message);
    let kept = cluster.api::<ServiceAccount>(TENANT).get(&account).await.expect("it is still there");
    assert_eq!(kept.annotations().get("team").map(String::as_str), Some("billing"));
    assert!(kept.owner_references().is_empty());

    cluster.delete::<ServiceAccount>(TENANT, &account).await;
    cluster.ready(TENANT, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn a_pod_of_a_server_is_restricted_and_has_no_token() {
    let cluster = Cluster::connect().await;
    let name = "restricted";
    let revision = cluster.serve(&everything(name)).await;
    let pod: Pod = cluster.pods(TENANT, &format!("portolan.dev/revision={revision}")).await.remove(0);
    let spec = serde_json::to_value(pod.spec).expect("JSON");
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    for container in spec["containers"].as_array().into_iter().chain(spec["initContainers"].as_array()).flatten() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{container}");
    }
    // The API server itself judges: a namespace that enforces `restricted` takes this pod.
    let enforced = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let verdict = in_a_namespace(&cluster, &enforced, |judge| async move {
        let mut copy =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy", "namespace": judge}, "spec": spec});
        copy["spec"]["nodeName"] = Value::Null;
        copy["spec"]["serviceAccountName"] = "default".into();
        copy["spec"]["serviceAccount"] = Value::Null;
        let manifest = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(manifest.path(), copy.to_string()).expect("written");
        until("the judge's account is there", PATIENCE, || async {
            kubectl(&["get", "serviceaccount", "default", "--namespace", &judge]).await
        })
        .await;
        kubectl(&["create", "--dry-run=server", "--filename", &manifest.path().display().to_string()]).await
    });
    verdict.await.expect("the pod is restricted");
    cluster.delete::<MCPServer>(TENANT, name).await;
}
