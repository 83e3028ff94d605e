//! Pods of a server that is gone or on its way out.
//!
//! A pod drains when it is told to end: it waits for its sessions. Those of a deleted server cannot be reached by anyone,
//! so its pods get a short grace instead.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_crds::labels;
use tokio_util::sync::CancellationToken;

use super::{observed::revision_of, rollout::Plan};
use crate::{context::Ctx, error::Error};

/// Seconds for the processes of a server to end: what is added to the drain timeout for the same purpose.
const GRACE: u32 = 15;
/// Pods that are hastened at once.
const PARALLEL: usize = 8;
/// Before the next try, when the API server did not take it.
const AGAIN: Duration = Duration::from_secs(2);

/// Hastens the pods of every server of a namespace that was seen to be gone, until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, namespace: String, stop: CancellationToken) {
    let mut gone = pin!(ctx.gone_servers.stream(&namespace));
    while let Some(Some((namespace, server))) = stop.run_until_cancelled(gone.next()).await {
        if let Err(error) = hasten(&ctx, &namespace, &server).await {
            tracing::warn!(%error, namespace, server, "the pods of a deleted server cannot be hastened; tried again");
            ctx.gone_servers.wake(&namespace, &server);
            stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }
}

/// Shortens the grace of the server's pods that were told to end. A pod that was not told yet will be, and is news then.
pub(crate) async fn hasten(ctx: &Ctx, namespace: &str, server: &str) -> Result<(), Error> {
    let pods = ctx.cluster.list::<Pod>(namespace, &format!("{}={server}", labels::SERVER)).await?;
    hasten_all(ctx, pods.iter()).await
}

/// The same for pods of revisions that are not `plan`'s: a server of this name was deleted and made again. That they
/// linger is no fault of this one, so a failure is only logged; the next reconcile tries again.
pub(super) async fn hasten_strays(ctx: &Ctx, pods: &[Pod], plan: &Plan) {
    let is_stray = |pod: &&Pod| revision_of(pod).is_none_or(|revision| plan.revision(revision).is_none());
    if let Err(error) = hasten_all(ctx, pods.iter().filter(is_stray)).await {
        tracing::warn!(%error, "pods of a deleted server of the same name cannot be hastened");
    }
}

async fn hasten_all(ctx: &Ctx, pods: impl Iterator<Item = &Pod>) -> Result<(), Error> {
    stream::iter(pods.filter(|pod| waits(pod)).map(Ok))
        .try_for_each_concurrent(PARALLEL, |pod| async move {
            tracing::info!(pod = pod.name_any(), "nobody can reach its sessions any more: it need not wait for them");
            ctx.cluster.hasten(pod, GRACE).await
        })
        .await
}

/// Whether the pod was told to end and has longer than it needs.
fn waits(pod: &Pod) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds;
    pod.metadata.deletion_timestamp.is_some() && grace.is_some_and(|grace| grace > i64::from(GRACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_that_were_told_to_end_and_have_long_to_do_so_are_hastened() {
        let pod = |metadata| serde_json::from_value::<Pod>(serde_json::json!({"metadata": metadata})).unwrap();
        let told = "2026-01-01T00:00:00Z";
        assert!(waits(&pod(serde_json::json!({"deletionTimestamp": told, "deletionGracePeriodSeconds": 615}))));
        assert!(!waits(&pod(serde_json::json!({"deletionTimestamp": told, "deletionGracePeriodSeconds": 15}))));
        assert!(!waits(&pod(serde_json::json!({}))));
    }
}
