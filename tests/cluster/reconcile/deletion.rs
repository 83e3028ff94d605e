//! A server that is deleted: nothing of it is left, and nobody waits for sessions that no one can reach.

use std::collections::BTreeSet;
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
        nothing_is_left_of("gone").await;
    })
    .await;
}

async fn nothing_is_left_of(server: &str) {
    let kinds = "deployments,controllerrevisions,services,configmaps,secrets,networkpolicies,serviceaccounts,pods";
    let selector = format!("portolan.dev/server={server}");
    until("every child is gone", PATIENCE, || async {
        let names = kubectl(&["get", kinds, "-n", TENANT, "--selector", &selector, "--output", "name"]).await?;
        if names.trim().is_empty() { Ok(()) } else { Err(names) }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_deleted_in_the_middle_of_a_rollout_takes_both_revisions_with_it() {
    let cluster = Cluster::connect().await;
    let name = "gone-halfway";
    deleting(&cluster, &[name], async {
        let mut manifest = puppet::stdio(TENANT, name);
        let canary = json!({"steps": [{"setWeight": 50, "pause": "10m"}]});
        manifest["spec"]["rollout"] = json!({"type": "Canary", "drainTimeout": "1h", "canary": canary});
        let first = cluster.serve(&manifest).await;
        let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
        let session = Session::open(&url, Some(&token)).await.expect("a session");
        let edit = json!({"container": {"env": [{"name": "EDIT", "value": "1"}]}});
        cluster.patch_spec(TENANT, name, &edit).await;
        cluster.condition(TENANT, name, "Progressing", "True", "CanaryStep", PATIENCE).await;
        let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
        let of = |pod: &Pod| pod.labels().get("portolan.dev/revision").cloned().expect("a pod is of a revision");
        let revisions: BTreeSet<_> = pods.iter().map(of).collect();
        assert!(revisions.len() == 2 && revisions.contains(&first), "both have pods: {revisions:?}");
        puppet::eval(&session, 1, "1").await.expect("a session is open");

        cluster.delete::<MCPServer>(TENANT, name).await;
        nothing_is_left_of(name).await;
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
