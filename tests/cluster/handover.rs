//! The leader ends and another operator takes over. Alone in its suite, because no other test has two operators.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use portolan_crds::MCPServer;
use portolan_crds::conditions::is_true;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT};
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{operator, puppet};
use serde_json::json;
use tokio::sync::oneshot;

const UNTOUCHED: [&str; 2] = ["untouched-a", "untouched-b"];
const CHANGED: &str = "changed";

/// Follows the servers that nobody touches until told to stop; returns how each was not well in between.
async fn watched(cluster: Cluster, mut stop: oneshot::Receiver<()>) -> Vec<String> {
    let servers = cluster.api::<MCPServer>(TENANT);
    let from = servers.list_metadata(&Default::default()).await.expect("listed").metadata.resource_version;
    let mut events =
        servers.watch(&WatchParams::default().timeout(290), &from.unwrap_or_default()).await.expect("watched").boxed();
    let mut unwell = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event.expect("the watch goes on").expect("an event"),
            _ = &mut stop => return unwell,
        };
        let WatchEvent::Modified(server) = event else { continue };
        let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let is_well = ["Ready", "Programmed", "Available"].iter().all(|type_| is_true(conditions, type_));
        if UNTOUCHED.contains(&server.name_any().as_str()) && !is_well {
            unwell.push(format!("{}: {}", server.name_any(), serde_json::to_string(conditions).expect("JSON")));
        }
    }
}

#[tokio::test]
async fn another_operator_takes_over_when_the_leader_ends_and_no_untouched_server_notices() {
    let cluster = Cluster::connect().await;
    finally(takes_over(&cluster), async {
        operator::replicas(&cluster, 1).await;
        for name in UNTOUCHED.into_iter().chain([CHANGED]) {
            cluster.delete::<MCPServer>(TENANT, name).await;
        }
    })
    .await;
}

async fn takes_over(cluster: &Cluster) {
    for name in UNTOUCHED.into_iter().chain([CHANGED]) {
        cluster.serve(&puppet::stdio(TENANT, name)).await;
    }
    operator::replicas(cluster, 2).await;
    let pods = cluster.pods(PLATFORM, OPERATOR).await;
    let first = operator::leader(cluster).await.expect("somebody leads");
    assert!(pods.iter().any(|pod| pod.name_any() == first), "{first} is an operator's pod");
    let (stop, stopped) = oneshot::channel();
    let watch = tokio::spawn(watched(cluster.clone(), stopped));

    cluster.api::<Pod>(PLATFORM).delete(&first, &DeleteParams::default()).await.expect("deleted");
    until("another one leads", PATIENCE, || async {
        let now = operator::leader(cluster).await?;
        if now == first { Err(format!("{now} does")) } else { Ok(()) }
    })
    .await;
    cluster.patch_spec(TENANT, CHANGED, &json!({"replicas": 2})).await;
    until("the change is made", PATIENCE, || async {
        let server = cluster.api::<MCPServer>(TENANT).get(CHANGED).await.map_err(|error| error.to_string())?;
        let ready = server.status.map(|status| status.ready_replicas).unwrap_or_default();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} replicas are ready")) }
    })
    .await;
    operator::replicas(cluster, 2).await;
    stop.send(()).expect("it still watches");
    let unwell = watch.await.expect("the watch ends");
    assert!(unwell.is_empty(), "{unwell:#?}");
}
