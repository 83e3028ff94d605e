//! API keys: who has one that is listed is let in, until it is not; a list that cannot be read is told.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use portolan_crds::{MCPGateway, MCPServer};
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::front::Front;
use portolan_tests::puppet;
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use reqwest::StatusCode;
use serde_json::{Value, json};

const NAME: &str = "keys";

/// A key that the program made, and its hash.
async fn minted(subject: &str) -> (String, String) {
    let minted = tokio::process::Command::new(portolan_tests::paths::binary("portolan"))
        .args(["apikey", "--subject", subject, "-o", "json"])
        .output()
        .await
        .expect("portolan runs");
    let minted: Value = serde_json::from_slice(&minted.stdout).expect("JSON");
    let text = |field: &str| minted[field].as_str().expect("text").to_owned();
    (text("key"), text("sha256"))
}

async fn store(cluster: &Cluster, name: &str, entry: &str, value: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": PLATFORM},
        "stringData": {entry: value}});
    cluster.apply::<Secret>(&secret).await.expect("made");
}

/// Secrets are read by name every half a minute, and at once when the gateway's object changes.
async fn look_again(cluster: &Cluster, time: u64) {
    let label = Patch::Merge(json!({"metadata": {"labels": {"tests/looked-at": time.to_string()}}}));
    let gateways = cluster.api::<MCPGateway>(PLATFORM);
    gateways.patch(NAME, &PatchParams::default(), &label).await.expect("labelled");
}

async fn answers(front: &Front, key: &str, expected: StatusCode) {
    until(&format!("the key is answered by {expected}"), PATIENCE, || async {
        let status = front.initialize(TENANT, NAME, Some(key)).await;
        if status == expected { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

fn list(name: &str) -> Value {
    json!({"name": name, "secretRef": {"name": format!("keys-{name}")}})
}

#[tokio::test]
async fn an_api_key_opens_a_gateway_that_lists_it_and_a_list_that_is_missing_or_malformed_is_told_and_stops_no_other() {
    let cluster = Cluster::connect().await;
    finally(lists_come_and_go(&cluster), async {
        Front::close(&cluster, NAME).await;
        for secret in ["keys-ours", "keys-theirs"] {
            cluster.delete::<Secret>(PLATFORM, secret).await;
        }
        cluster.delete::<MCPServer>(TENANT, NAME).await;
    })
    .await;
}

async fn lists_come_and_go(cluster: &Cluster) {
    let mut server = puppet::stdio(TENANT, NAME);
    server["metadata"]["labels"] = json!({"tests/front": NAME});
    cluster.serve(&server).await;
    let ((ours, ours_hash), (theirs, theirs_hash)) = (minted("alice").await, minted("bob").await);
    store(cluster, "keys-ours", "alice", &ours_hash).await;
    store(cluster, "keys-theirs", "bob", &theirs_hash).await;
    let front = Front::open(
        NAME,
        &json!({"replicas": 1, "authentication": {"apiKeys": [list("ours"), list("theirs")]},
            "servers": {"selector": {"matchLabels": {"tests/front": NAME}}}}),
    )
    .await;
    answers(&front, &ours, StatusCode::OK).await;
    answers(&front, &theirs, StatusCode::OK).await;

    cluster.delete::<Secret>(PLATFORM, "keys-theirs").await;
    look_again(cluster, 1).await;
    for type_ in ["ResolvedRefs", "Ready"] {
        let missing = front.condition(type_, "False", "SecretNotFound").await;
        assert!(missing.message.contains("keys-theirs"), "{}", missing.message);
    }
    answers(&front, &theirs, StatusCode::UNAUTHORIZED).await;
    answers(&front, &ours, StatusCode::OK).await;

    // Whoever stores the key itself has made it known to every reader of Secrets; the message must not do so, too.
    store(cluster, "keys-theirs", "bob", &theirs).await;
    look_again(cluster, 2).await;
    let malformed = front.condition("Ready", "False", "Invalid").await;
    assert!(malformed.message.contains("keys-theirs/bob"), "{}", malformed.message);
    assert!(!malformed.message.contains(&theirs), "{}", malformed.message);
    answers(&front, &theirs, StatusCode::UNAUTHORIZED).await;
    answers(&front, &ours, StatusCode::OK).await;

    store(cluster, "keys-theirs", "bob", &theirs_hash).await;
    look_again(cluster, 3).await;
    front.loaded().await;
    answers(&front, &theirs, StatusCode::OK).await;

    front.change(&json!({"authentication": {"apiKeys": [list("theirs")]}})).await;
    answers(&front, &ours, StatusCode::UNAUTHORIZED).await;
    answers(&front, &theirs, StatusCode::OK).await;
}
