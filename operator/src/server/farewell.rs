//! Pods of a server that is gone or on its way out.
//!
//! A pod drains when it is told to end: it waits for its sessions. Those of a deleted server cannot be reached by anyone,
//! so its bridges are told not to wait. The kubelet would not do it: it holds to the grace that a pod had when it was
//! first told to end (kubernetes/kubernetes#113606).

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_crds::labels;
use portolan_mcp::mac::MacKey;
use tokio_util::sync::CancellationToken;

use super::{
    dereference::address,
    observed::{has_ended, revision_of},
    rollout::Plan,
};
use crate::{bridge_client::BridgeError, context::Ctx, error::Error};

/// Bridges that are told at once.
const PARALLEL: usize = 8;
/// Before the next try, when the API server did not say which pods there are.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells the bridges of every server of a namespace that was seen to be gone, until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, namespace: String, stop: CancellationToken) {
    let mut gone = pin!(ctx.gone_servers.stream(&namespace));
    while let Some(Some((namespace, server))) = stop.run_until_cancelled(gone.next()).await {
        if let Err(error) = abandon(&ctx, &namespace, &server).await {
            tracing::warn!(%error, namespace, server, "the pods of a deleted server are not known; tried again");
            ctx.gone_servers.wake(&namespace, &server);
            stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }
}

/// Tells the bridges of the server's pods that were told to end. A pod that was not yet will be, and is news then.
pub(super) async fn abandon(ctx: &Ctx, namespace: &str, server: &str) -> Result<(), Error> {
    let pods = ctx.cluster.list::<Pod>(namespace, &format!("{}={server}", labels::SERVER)).await?;
    tell(ctx, server, pods.iter()).await;
    Ok(())
}

/// The same for pods of revisions that are not `plan`'s: a server of this name was deleted and made again.
pub(super) async fn abandon_strays(ctx: &Ctx, server: &str, pods: &[Pod], plan: &Plan) {
    let is_stray = |pod: &&Pod| revision_of(pod).is_none_or(|revision| plan.revision(revision).is_none());
    tell(ctx, server, pods.iter().filter(is_stray)).await;
}

/// Whoever is not reached ends with its drain timeout; a pod that changes once more is told once more.
async fn tell(ctx: &Ctx, server: &str, pods: impl Iterator<Item = &Pod>) {
    stream::iter(pods.filter(|pod| ends(pod)))
        .for_each_concurrent(PARALLEL, |pod| async move {
            let name = pod.name_any();
            match tell_one(ctx, server, pod).await {
                Ok(()) => tracing::info!(pod = name, "nobody can reach its sessions: it need not wait for them"),
                Err(why) => tracing::info!(pod = name, why, "a pod of a deleted server may wait for its sessions"),
            }
        })
        .await;
}

async fn tell_one(ctx: &Ctx, server: &str, pod: &Pod) -> Result<(), String> {
    let ip = address(pod).ok_or("it has no address")?;
    let mut refused = "its key is not known any more".to_owned();
    for key in ctx.macs.last(&pod.namespace().unwrap_or_default(), server) {
        let Some(key) = MacKey::new(&key) else { continue };
        match ctx.bridges.abandon(ip, &key).await {
            Ok(()) => return Ok(()),
            Err(error @ BridgeError::Refused { .. }) => refused = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(refused)
}

/// Whether the pod was told to end and has not ended.
fn ends(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !has_ended(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_that_were_told_to_end_and_still_run_are_told() {
        let pod = |metadata, phase| {
            let pod = serde_json::json!({"metadata": metadata, "status": {"phase": phase}});
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        let told = serde_json::json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(ends(&pod(told.clone(), "Running")));
        assert!(!ends(&pod(told, "Succeeded")));
        assert!(!ends(&pod(serde_json::json!({}), "Running")));
    }
}
