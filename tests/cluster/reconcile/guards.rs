//! What guards a server's pods is there before they are, and stays as it is declared to the last field.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::refusal::{lift, refuse};
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{SECONDS, everything};

/// Edits the server's NetworkPolicy as `edit` turns its spec into another, and waits until it is as before.
async fn edited_and_mended(cluster: &Cluster, name: &str, edit: impl FnOnce(&mut Value)) {
    let api = cluster.api::<NetworkPolicy>(TENANT);
    let before = api.get(name).await.expect("the policy exists").spec;
    let mut spec = serde_json::to_value(&before).expect("JSON");
    edit(&mut spec);
    let patch = Patch::Merge(json!({"spec": spec}));
    let edited = api.patch(name, &PatchParams::default(), &patch).await.expect("a hand edits").spec;
    assert_ne!(edited, before, "the edit says something else");
    until("the NetworkPolicy is as before", SECONDS, || async {
        let now = api.get(name).await.map_err(|error| error.to_string())?.spec;
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_field_that_a_hand_slips_into_a_servers_network_policy_is_taken_out_within_seconds() {
    let cluster = Cluster::connect().await;
    let name = "slipped";
    cluster.apply::<MCPServer>(&everything(name)).await.expect("the manifest is accepted");
    finally(
        async {
            cluster.ready(TENANT, name).await;
            let policy = format!("{name}-mcp");
            // It would choose no pod any more, so nothing would guard them.
            edited_and_mended(&cluster, &policy, |spec| {
                spec["podSelector"]["matchExpressions"] = json!([{"key": "nobody", "operator": "Exists"}]);
            })
            .await;
            edited_and_mended(&cluster, &policy, |spec| spec["ingress"][0]["ports"][0]["endPort"] = json!(65535)).await;
            edited_and_mended(&cluster, &policy, |spec| {
                spec["ingress"][0]["from"].as_array_mut().expect("peers").push(json!({"podSelector": {}}));
            })
            .await;
        },
        cluster.delete::<MCPServer>(TENANT, name),
    )
    .await;
}

/// Makes the API server take no NetworkPolicy of that name.
async fn refuse_policy(cluster: &Cluster, network_policy: &str) {
    let rule = json!({
        "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["networkpolicies"], "resourceNames": [network_policy],
    });
    let trial = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": network_policy, "namespace": TENANT}, "spec": {"podSelector": {}}});
    let trial: NetworkPolicy = serde_json::from_value(trial).expect("a NetworkPolicy");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    refuse(cluster, network_policy, (&rule, "true"), "ask the network team for this policy", async || {
        cluster.api::<NetworkPolicy>(TENANT).create(&dry, &trial).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn no_pod_starts_before_the_policy_that_guards_it_is_taken() {
    let cluster = Cluster::connect().await;
    let name = "unguarded";
    let network_policy = format!("{name}-mcp");
    let body = async {
        refuse_policy(&cluster, &network_policy).await;
        cluster.apply::<MCPServer>(&everything(name)).await.expect("the manifest is accepted");
        let told = cluster.condition(TENANT, name, "Accepted", "False", "Invalid", PATIENCE).await;
        assert!(told.message.contains(&network_policy), "what is refused is named: {}", told.message);
        assert!(told.message.contains("ask the network team"), "in the policy's words: {}", told.message);
        let ours = ListParams::default().labels(&format!("portolan.dev/server={name}"));
        let made = cluster.api::<Deployment>(TENANT).list(&ours).await.expect("a list").items;
        assert!(made.is_empty(), "{made:?}");
        lift(&cluster, &network_policy).await;
        cluster.ready(TENANT, name).await;
    };
    finally(deleting(&cluster, &[name], body), lift(&cluster, &network_policy)).await;
}
