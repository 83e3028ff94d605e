//! What the operator makes for a gateway comes back, with the keys that it had.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use portolan_crds::conditions::find;
use portolan_crds::{MCPGateway, MCPServer};
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::front::{Front, service};
use portolan_tests::mcp::Session;
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

use crate::children::is_mended;
use crate::{HALF_A_MINUTE, SECONDS, comes_back, echo, everything};

const NAME: &str = "children";

#[tokio::test]
async fn every_child_of_a_gateway_that_is_edited_by_hand_is_restored_within_seconds() {
    let name = "edited-front";
    let cluster = Cluster::connect().await;
    let body = async {
        let spec = json!({"replicas": 1, "authentication": {"anonymous": {}},
            "servers": {"selector": {"matchLabels": {"tests/front": name}}}});
        Front::open(name, &spec).await;
        let child = service(name);
        let intruder = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "gateway", "env": [{"name": "INTRUDER", "value": "1"}]},
        ]}}}});
        is_mended::<Deployment>(&cluster, PLATFORM, &child, intruder).await;
        is_mended::<Service>(&cluster, PLATFORM, &child, json!({"spec": {"selector": {"more": "b"}}})).await;
        is_mended::<NetworkPolicy>(&cluster, PLATFORM, &child, json!({"spec": {"ingress": [{}]}})).await;
    };
    finally(body, Front::close(&cluster, name)).await;
}

#[tokio::test]
async fn a_foreign_object_of_the_name_of_a_gateways_child_is_never_overwritten_and_its_owner_is_named() {
    let name = "foreign-front";
    let cluster = Cluster::connect().await;
    let child = service(name);
    let theirs = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": child, "namespace": PLATFORM, "annotations": {"team": "billing"}},
        "spec": {"ports": [{"port": 1}]}});
    let gateway = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
        "metadata": {"name": name, "namespace": PLATFORM},
        "spec": {"replicas": 1, "authentication": {"anonymous": {}},
            "servers": {"selector": {"matchLabels": {"tests/front": name}}}}});
    let body = async {
        cluster.apply::<Service>(&theirs).await.expect("someone else made it first");
        cluster.apply::<MCPGateway>(&gateway).await.expect("the manifest is accepted");
        let stalled = until("the gateway is stalled", PATIENCE, || async {
            let gateway = cluster.api::<MCPGateway>(PLATFORM).get(name).await.map_err(|error| error.to_string())?;
            let conditions = gateway.status.map(|status| status.conditions).unwrap_or_default();
            let stalled = find(&conditions, "Stalled").filter(|stalled| stalled.reason == "ForeignObject").cloned();
            stalled.ok_or_else(|| format!("{conditions:?}"))
        })
        .await;
        assert!(stalled.message.contains(&child), "{}", stalled.message);
        assert!(stalled.message.contains("portolan-tests"), "who wrote it is named: {}", stalled.message);
        let kept = cluster.api::<Service>(PLATFORM).get(&child).await.expect("it is still there");
        assert_eq!(kept.annotations().get("team").map(String::as_str), Some("billing"));
        assert!(kept.owner_references().is_empty());
    };
    finally(body, async {
        cluster.delete::<MCPGateway>(PLATFORM, name).await;
        cluster.delete::<Service>(PLATFORM, &child).await;
    })
    .await;
}

#[tokio::test]
async fn every_child_of_a_gateway_that_is_deleted_by_hand_comes_back_with_the_keys_that_it_had_and_sessions_go_on() {
    let cluster = Cluster::connect().await;
    finally(children_come_back(&cluster), async {
        Front::close(&cluster, NAME).await;
        cluster.delete::<MCPServer>(TENANT, "kept").await;
    })
    .await;
}

async fn children_come_back(cluster: &Cluster) {
    let mut server = everything("kept");
    server["metadata"]["labels"] = json!({"tests/front": NAME});
    let revision = cluster.serve(&server).await;
    let spec = json!({"replicas": 1, "authentication": {"anonymous": {}},
        "servers": {"selector": {"matchLabels": {"tests/front": NAME}}}});
    let mut front = Front::open(NAME, &spec).await;
    let child = service(NAME);
    let session = Session::open(&front.direct_url(TENANT, "kept"), None).await.expect("a session");
    let goes_on = async || echo(&session, 1, "through it").await;

    let before = cluster.api::<Secret>(PLATFORM).get(&child).await.expect("the gateway has keys").data;
    let after = comes_back::<Secret>(cluster, PLATFORM, &child, HALF_A_MINUTE, &goes_on).await.data;
    assert!(before.is_some() && before == after, "the keys are the same");
    comes_back::<NetworkPolicy>(cluster, PLATFORM, &child, SECONDS, &goes_on).await;
    goes_on().await.expect("the session goes on");
    // A new pod opens what the one before it sealed.
    comes_back::<Deployment>(cluster, PLATFORM, &child, SECONDS, async || Ok(())).await;
    front.loaded().await;
    until("the session goes on at a new pod", PATIENCE, &goes_on).await;
    comes_back::<Service>(cluster, PLATFORM, &child, SECONDS, async || Ok(())).await;
    front.find_again().await;
    let session = session.at(&front.direct_url(TENANT, "kept"));
    echo(&session, 2, "by its new address").await.expect("the session goes on");
    front.loaded().await;
    assert_eq!(cluster.serving_revision(TENANT, "kept").await, revision);
}
