//! Pods of a server that is gone or on its way out.
//!
//! A pod drains when it is told to end: it waits for its sessions. Those of a deleted server cannot be reached by anyone,
//! so its bridges are told not to wait. The kubelet would not do it: it holds to the grace that a pod had when it was
//! first told to end (kubernetes/kubernetes#113606).

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_crds::labels;
use portolan_mcp::mac::MacKey;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    dereference::address,
    observed::{has_ended, revision_of},
    rollout::Plan,
};
use crate::{bridge_client::BridgeError, context::Ctx, error::Error};

/// Bridges that are told at once.
const PARALLEL: usize = 8;
/// Before the next try, when the API server did not say which pods there are, or a bridge was not reached.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// Tells the bridges of every server of a namespace that was seen to be gone, until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, namespace: String, stop: CancellationToken) {
    let mut gone = pin!(ctx.gone_servers.stream(&namespace));
    let mut again = BTreeSet::new();
    let mut clock = interval(AGAIN);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some((_, server)) = gone.next() => {
                if !is_told(&ctx, &namespace, &server).await {
                    again.insert(server);
                }
            }
            _ = clock.tick(), if !again.is_empty() => {
                for server in std::mem::take(&mut again) {
                    ctx.gone_servers.wake(&namespace, &server);
                }
            }
        }
    }
}

/// Whether nothing is left to tell.
async fn is_told(ctx: &Ctx, namespace: &str, server: &str) -> bool {
    match abandon(ctx, namespace, server).await {
        Ok(told) => told == Told::Everyone,
        Err(error) => {
            tracing::warn!(%error, namespace, server, "the pods of a deleted server are not known; tried again");
            false
        }
    }
}

/// How far the word came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Every bridge that can be told was.
    Everyone,
    /// A bridge was not reached and may be later.
    SomeLater,
}

/// Tells the bridges of the server's pods that were told to end. A pod that was not yet will be, and is news then.
pub(super) async fn abandon(ctx: &Ctx, namespace: &str, server: &str) -> Result<Told, Error> {
    let pods = ctx.cluster.list::<Pod>(namespace, &format!("{}={server}", labels::SERVER)).await?;
    Ok(tell(ctx, server, pods.iter()).await)
}

/// The same for pods of revisions that are not `plan`'s: a server of this name was deleted and made again.
pub(super) async fn abandon_strays(ctx: &Ctx, server: &str, pods: &[Pod], plan: &Plan) -> Told {
    let is_stray = |pod: &&Pod| revision_of(pod).is_none_or(|revision| plan.revision(revision).is_none());
    tell(ctx, server, pods.iter().filter(is_stray)).await
}

async fn tell(ctx: &Ctx, server: &str, pods: impl Iterator<Item = &Pod>) -> Told {
    let ending: Vec<Pod> = pods.filter(|pod| ends(pod)).cloned().collect();
    let told = stream::iter(ending).map(|pod| tell_one(ctx, server, pod)).buffer_unordered(PARALLEL);
    let told: Vec<Told> = told.collect().await;
    if told.contains(&Told::SomeLater) { Told::SomeLater } else { Told::Everyone }
}

/// Tells one bridge with every key that it may have. One that none fits waits for its sessions, until the drain timeout.
async fn tell_one(ctx: &Ctx, server: &str, pod: Pod) -> Told {
    let name = pod.name_any();
    let Some(address) = address(&pod) else { return Told::Everyone };
    for key in ctx.macs.last(&pod.namespace().unwrap_or_default(), server) {
        let Some(key) = MacKey::new(&key) else { continue };
        match ctx.bridges.abandon(&address, &key).await {
            Ok(()) => {
                tracing::info!(pod = name, "nobody can reach its sessions: it need not wait for them");
                return Told::Everyone;
            }
            Err(BridgeError::Refused { .. }) => {}
            Err(error) => {
                tracing::info!(pod = name, %error, "a bridge of a deleted server is not reached; tried again");
                return Told::SomeLater;
            }
        }
    }
    tracing::info!(pod = name, "the key of a deleted server's pod is not known: it may wait for its sessions");
    Told::Everyone
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
