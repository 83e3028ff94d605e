//! What the operator makes for a server: as declared, whoever edits or deletes it, and never what is someone else's.

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::tidy::{deleting, finally, in_a_namespace};
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

/// Edits a child as a strategic merge patch says, and waits until it declares what it did before: seconds, or for a
/// Secret, which the operator may not watch, half a minute.
pub(crate) async fn is_mended<K>(cluster: &Cluster, namespace: &str, name: &str, edit: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Serialize
        + Clone
        + std::fmt::Debug,
{
    let api = cluster.api::<K>(namespace);
    let kind = K::kind(&());
    let before = content(&api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")));
    let edited = api.patch(name, &PatchParams::default(), &Patch::Strategic(edit)).await.expect("a hand edits");
    assert_ne!(content(&edited), before, "the edit of {kind} {name} says something else");
    let limit = if kind == "Secret" { HALF_A_MINUTE } else { SECONDS };
    until(&format!("{kind} {name} is as before"), limit, || async {
        let now = content(&api.get(name).await.map_err(|error| error.to_string())?);
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn every_child_that_is_edited_by_hand_is_restored_within_seconds() {
    let cluster = Cluster::connect().await;
    let name = "edited";
    deleting(&cluster, &[name], async {
        let revision = cluster.serve(&everything(name)).await;
        let shared = format!("{name}-mcp");
        let intruders = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "server", "env": [{"name": "INTRUDER", "value": "1"}]},
            {"name": "miner", "image": "localhost/portolan-test/everything:1"},
        ]}}}});
        is_mended::<Deployment>(&cluster, TENANT, &revision, intruders).await;
        is_mended::<Service>(
            &cluster,
            TENANT,
            &revision,
            json!({"spec": {"selector": {"portolan.dev/server": "another"}}}),
        )
        .await;
        is_mended::<NetworkPolicy>(&cluster, TENANT, &shared, json!({"spec": {"ingress": [{}]}})).await;
        is_mended::<ServiceAccount>(&cluster, TENANT, &shared, json!({"automountServiceAccountToken": true})).await;
        is_mended::<ConfigMap>(&cluster, TENANT, &format!("{revision}-tools"), json!({"data": {"tools.json": "[]"}}))
            .await;
        // The API server lets nobody change its data.
        is_mended::<ControllerRevision>(&cluster, TENANT, &revision, json!({"revision": 1000})).await;
        is_mended::<Secret>(&cluster, TENANT, &format!("{name}-mac"), json!({"data": {"intruder": "eA=="}})).await;
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "an edit by hand is no revision");
    })
    .await;
}

#[tokio::test]
async fn an_old_revision_that_serves_after_a_bad_edit_gets_its_pod_template_back_when_a_hand_edits_it() {
    let cluster = Cluster::connect().await;
    let name = "old-edited";
    deleting(&cluster, &[name], async {
        let old = cluster.serve(&everything(name)).await;
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, name).await;
        let session = Session::open(&url, Some(&token)).await.expect("a session");
        let mut bad = everything(name);
        bad["spec"]["container"]["command"] = json!(["node", "-e", "process.exit(1)"]);
        cluster.apply::<MCPServer>(&bad).await.expect("the manifest is accepted");
        cluster.condition(TENANT, name, "Ready", "False", "ServerExited", PATIENCE).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, old);

        // The spec says no longer what this Deployment's pods are.
        let intruder = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "server", "env": [{"name": "INTRUDER", "value": "1"}]},
        ]}}}});
        is_mended::<Deployment>(&cluster, TENANT, &old, intruder).await;
        until("every pod of the old revision is as before", PATIENCE, || async {
            let pods = cluster.pods(TENANT, &format!("portolan.dev/revision={old}")).await;
            let edited = pods.iter().filter(|pod| content(pod).to_string().contains("INTRUDER")).count();
            if edited == 0 && !pods.is_empty() { Ok(()) } else { Err(format!("{edited} of {} pods", pods.len())) }
        })
        .await;
        echo(&session, 1, "through it").await.expect("the session goes on");
        cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, old, "an edit by hand is no revision");
        let fresh = Session::open(&url, Some(&token)).await.expect("the server goes on serving");
        let environment = fresh.call(1, "get-env", json!({})).await.expect("answers");
        assert!(!environment.answer().to_string().contains("INTRUDER"), "{:?}", environment.answer());
    })
    .await;
}

#[tokio::test]
async fn every_child_that_is_deleted_by_hand_comes_back_with_the_keys_that_it_had_and_sessions_go_on() {
    let cluster = Cluster::connect().await;
    let name = "restored";
    deleting(&cluster, &[name], async {
        let (_, url, token) = Cluster::serving(name).await;
        let revision = cluster.serving_revision(TENANT, name).await;
        let shared = format!("{name}-mcp");
        let session = Session::open(&url, Some(&token)).await.expect("a session");
        let goes_on = async || echo(&session, 1, "through it").await;
        comes_back::<ServiceAccount>(&cluster, TENANT, &shared, SECONDS, &goes_on).await;
        comes_back::<NetworkPolicy>(&cluster, TENANT, &shared, SECONDS, &goes_on).await;
        comes_back::<ConfigMap>(&cluster, TENANT, &format!("{revision}-tools"), SECONDS, &goes_on).await;
        let before = content(&cluster.api::<ControllerRevision>(TENANT).get(&revision).await.expect("it is kept"));
        let after = comes_back::<ControllerRevision>(&cluster, TENANT, &revision, SECONDS, &goes_on).await;
        assert_eq!(content(&after), before, "the pod template is the same");

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
        until("a session begins on new pods", PATIENCE, || async {
            Session::open(&url, Some(&token)).await.map(|_| ())
        })
        .await;
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "what was deleted by hand is no revision");
    })
    .await;
}

#[tokio::test]
async fn a_foreign_object_of_a_childs_name_is_never_overwritten_and_its_owner_is_named() {
    let cluster = Cluster::connect().await;
    let name = "foreign";
    let account = format!("{name}-mcp");
    let body = async {
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
    };
    // After the server, whose own account may have this name by then.
    finally(deleting(&cluster, &[name], body), cluster.delete::<ServiceAccount>(TENANT, &account)).await;
}

#[tokio::test]
async fn a_pod_of_a_server_is_restricted_and_has_no_token() {
    let cluster = Cluster::connect().await;
    let name = "restricted";
    deleting(&cluster, &[name], async {
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
    })
    .await;
}
