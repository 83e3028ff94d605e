//! Pods by what Kubernetes says of them, and how they are told to go.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams};

use crate::cluster::{Cluster, kubectl};
use crate::wait::{PATIENCE, until};

/// Whether it takes calls.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Waits until there are so many pods with these labels, every one ready and none on its way out; returns them.
///
/// # Panics
/// It is not so within `limit`.
pub async fn settled(cluster: &Cluster, namespace: &str, labels: &str, count: usize, limit: Duration) -> Vec<Pod> {
    let api = cluster.api::<Pod>(namespace);
    until(&format!("{count} pods of {labels}, all ready"), limit, || async {
        let pods = api.list(&ListParams::default().labels(labels)).await.map_err(|error| error.to_string())?.items;
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod);
        let staying = pods.iter().filter(stays).count();
        if pods.len() == count && staying == count { Ok(pods) } else { Err(format!("{staying} of {}", pods.len())) }
    })
    .await
}

/// Evicts a pod, as whoever drains its node does.
///
/// # Panics
/// The API server refuses.
pub async fn evict(cluster: &Cluster, namespace: &str, pod: &str) {
    cluster.api::<Pod>(namespace).evict(pod, &EvictParams::default()).await.expect("nothing forbids to evict it");
}

/// Replaces every pod of a Deployment, as `kubectl rollout restart` does, and waits until all that were there are gone.
///
/// # Panics
/// It does not end within `limit`.
pub async fn restart(cluster: &Cluster, namespace: &str, deployment: &str, labels: &str, limit: Duration) {
    let before = cluster.pods(namespace, labels).await;
    let name = format!("deployment/{deployment}");
    kubectl(&["rollout", "restart", "--namespace", namespace, &name]).await.expect("restarted");
    let timeout = format!("--timeout={}s", limit.as_secs());
    kubectl(&["rollout", "status", "--namespace", namespace, &name, &timeout]).await.expect("every pod is another one");
    let after = settled(cluster, namespace, labels, before.len(), PATIENCE).await;
    let uids = |pods: &[Pod]| pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    assert!(uids(&before).is_disjoint(&uids(&after)), "every pod is another one");
}
