//! A server that is deleted: nothing of it is left, and nobody waits for sessions that no one can reach.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

use crate::everything;

#[tokio::test]
async fn a_deleted_server_leaves_nothing_behind() {
    let cluster = Cluster::connect().await;
    deleting(&cluster, &["gone"], async {
        cluster.serve(&everything("gone")).await;
        cluster.delete::<MCPServer>(TENANT, "gone").await;
        let kinds = "deployments,controllerrevisions,services,configmaps,secrets,networkpolicies,serviceaccounts,pods";
        until("every child is gone", PATIENCE, || async {
            let selector = ["--selector", "portolan.dev/server=gone", "--output", "name"];
            let names = kubectl(&[&["get", kinds, "--namespace", TENANT][..], &selector[..]].concat()).await?;
            if names.trim().is_empty() { Ok(()) } else { Err(names) }
        })
        .await;
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
    deleting(&cluster, &ways.each_ref().map(|(name, _)| *name), async {
        for (name, _) in &ways {
            let mut manifest = puppet::stdio(TENANT, name);
            manifest["spec"]["rollout"] = json!({"drainTimeout": "1h"});
            cluster.serve(&manifest).await;
            let session =
                Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session");
            puppet::eval(&session, 1, "1").await.expect("it is open");
        }
        let mut pods = Vec::new();
        for (name, way) in &ways {
            pods.extend(
                cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await.iter().map(ResourceExt::name_any),
            );
            cluster.api::<MCPServer>(TENANT).delete(name, way).await.expect("deleted");
        }
        assert_eq!(pods.len(), 2, "a pod of each: {pods:?}");
        for pod in &pods {
            cluster.gone::<Pod>(TENANT, pod, SOON).await;
        }
        for (name, _) in &ways {
            cluster.gone::<MCPServer>(TENANT, name, PATIENCE).await;
        }
    })
    .await;
}
