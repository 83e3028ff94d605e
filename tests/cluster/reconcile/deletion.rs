//! A server that is deleted: nothing of it is left, and nobody waits for sessions that no one can reach.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

use crate::everything;

#[tokio::test]
async fn a_deleted_server_leaves_nothing_behind() {
    let cluster = Cluster::connect().await;
    cluster.serve(&everything("gone")).await;
    cluster.delete::<MCPServer>(TENANT, "gone").await;
    let kinds = "deployments,services,configmaps,secrets,networkpolicies,serviceaccounts,pods";
    until("every child is gone", PATIENCE, || async {
        let selector = ["--selector", "portolan.dev/server=gone", "--output", "name"];
        let names = kubectl(&[&["get", kinds, "--namespace", TENANT][..], &selector[..]].concat()).await?;
        if names.trim().is_empty() { Ok(()) } else { Err(names) }
    })
    .await;
}

/// Far less than the drain timeout, far more than the grace that processes get.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_deleted_server_is_gone_within_seconds_however_long_its_open_sessions_might_drain() {
    let cluster = Cluster::connect().await;
    let token = cluster.token(TENANT, "default").await;
    let ways = [("left-behind", DeleteParams::background()), ("left-in-front", DeleteParams::foreground())];
    for (name, _) in &ways {
        let mut manifest = puppet::stdio(TENANT, name);
        manifest["spec"]["rollout"] = json!({"drainTimeout": "1h"});
        cluster.serve(&manifest).await;
        let session = Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session");
        puppet::eval(&session, 1, "1").await.expect("it is open");
    }
    for (name, way) in &ways {
        cluster.api::<MCPServer>(TENANT).delete(name, way).await.expect("deleted");
    }
    for (name, _) in &ways {
        until(&format!("no pod of {name} is left"), SOON, || async {
            let pods = ListParams::default().labels(&format!("portolan.dev/server={name}"));
            let pods = cluster.api::<Pod>(TENANT).list(&pods).await.map_err(|error| error.to_string())?;
            let grace = |pod: Pod| (pod.metadata.name, pod.metadata.deletion_grace_period_seconds);
            let left: Vec<_> = pods.into_iter().map(grace).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        cluster.gone::<MCPServer>(TENANT, name, PATIENCE).await;
    }
}
