//! What the operator makes for a gateway comes back, with the keys that it had.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::front::{Front, service};
use portolan_tests::mcp::Session;
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

use crate::{HALF_A_MINUTE, SECONDS, comes_back, echo, everything};

const NAME: &str = "children";

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
