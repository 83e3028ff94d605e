//! Parts that end under load: what goes on, and what is lost.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

const GATEWAY: &str = "portolan.dev/gateway=default";

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test]
async fn sessions_survive_the_replicas_that_made_them() {
    let (cluster, url, token) = Cluster::serving("survivor").await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    let pods = cluster.api::<Pod>(PLATFORM);
    let original: BTreeSet<_> = cluster.pods(PLATFORM, GATEWAY).await.iter().filter_map(ResourceExt::uid).collect();
    assert_eq!(original.len(), 2, "two replicas");
    for pod in cluster.pods(PLATFORM, GATEWAY).await {
        pods.delete(&pod.name_any(), &DeleteParams::default()).await.expect("deleted");
        until(&format!("the gateway goes on without {}", pod.name_any()), PATIENCE, || async {
            let all = pods.list(&ListParams::default().labels(GATEWAY)).await.map_err(|error| error.to_string())?;
            let is_gone = all.items.iter().all(|left| left.uid() != pod.uid());
            let ready = all.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
            let ready = ready.count();
            if is_gone && ready == 2 { Ok(()) } else { Err(format!("gone: {is_gone}, {ready} ready")) }
        })
        .await;
    }
    let now: BTreeSet<_> = cluster.pods(PLATFORM, GATEWAY).await.iter().filter_map(ResourceExt::uid).collect();
    assert!(now.is_disjoint(&original), "every replica is another one: {now:?} after {original:?}");
    for replica in cluster.replica_urls(TENANT, "survivor").await {
        let reply = session.at(&replica).call(1, "echo", json!({"message": "still here"})).await.expect("answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: still here");
    }
    cluster.delete::<MCPServer>(TENANT, "survivor").await;
}
