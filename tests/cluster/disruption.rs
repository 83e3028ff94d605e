//! Parts that end under load: what goes on, and what is lost.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

#[tokio::test]
async fn sessions_survive_the_replicas_that_made_them() {
    let (cluster, url, token) = Cluster::serving("survivor").await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    for pod in cluster.pods(PLATFORM, "portolan.dev/gateway=default").await {
        cluster.api::<Pod>(PLATFORM).delete(&pod.name_any(), &DeleteParams::default()).await.expect("deleted");
        until("the gateway has two ready replicas again", PATIENCE, || async {
            let deployment = cluster
                .api::<Deployment>(PLATFORM)
                .get("portolan-gateway-default")
                .await
                .map_err(|error| error.to_string())?;
            let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default();
            if ready == 2 { Ok(()) } else { Err(format!("{ready} ready")) }
        })
        .await;
    }
    let reply = session.call(1, "echo", json!({"message": "still here"})).await.expect("answers");
    assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: still here");
    cluster.delete::<MCPServer>(TENANT, "survivor").await;
}
