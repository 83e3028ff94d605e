//! Which pods go when there are to be fewer: those with the fewest sessions.
//!
//! The controller of the pods decides, and asks first what it would cost to lose each (`controller.kubernetes.io/pod-deletion-cost`). Where an
//! autoscaler says how many there are, nobody is asked before it takes some away: they are marked while it is about to.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::Patch};
use portolan_mcp::mac::MacKey;
use serde_json::json;

use super::{dereference::address, observed::Observed, rollout::Plan, usage};
use crate::context::Ctx;

/// Annotation of a pod: the higher, the later it goes.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Bridges that are asked, and pods that are marked, at once.
const PARALLEL: usize = 8;

/// Marks the pods of every revision that is to have fewer, but some, or may have any moment, with how many sessions each has. Best effort: a pod of which nobody knows goes
/// first, as it does where none is marked.
pub(super) async fn mark(ctx: &Ctx, observed: &Observed, plan: &Plan) {
    let Some(key) = MacKey::new(&observed.mac.0) else { return };
    let mut marks = Vec::new();
    for revision in revisions_with_fewer(observed, plan) {
        let pods = observed.pods_of(revision).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        marks.extend(pods.map(|pod| mark_one(ctx, &key, pod)));
    }
    stream::iter(marks).buffer_unordered(PARALLEL).collect::<()>().await;
}

fn revisions_with_fewer<'a>(observed: &'a Observed, plan: &'a Plan) -> impl Iterator<Item = &'a str> {
    let has = |revision: &str| observed.deployment(revision)?.spec.as_ref()?.replicas;
    let is_to_have_fewer = move |revision: &&super::rollout::Planned| {
        let may_have_fewer = || observed.autoscaler(&revision.name).is_some_and(usage::may_take_away);
        revision.replicas > 0 && (has(&revision.name).is_some_and(|has| revision.replicas < has) || may_have_fewer())
    };
    plan.revisions.iter().filter(is_to_have_fewer).map(|revision| revision.name.as_str())
}

async fn mark_one(ctx: &Ctx, key: &MacKey, pod: &Pod) {
    let Some(address) = address(pod) else { return };
    let sessions = match ctx.bridges.sessions(&address, key).await {
        Ok(sessions) => sessions.to_string(),
        Err(error) => {
            tracing::warn!(pod = pod.name_any(), %error, "how many sessions a pod has is not known; it may go before others");
            return;
        }
    };
    if pod.annotations().get(COST) == Some(&sessions) {
        return;
    }
    let annotations = BTreeMap::from([(COST, sessions)]);
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    if let Err(error) = ctx.cluster.patch(pod, &patch).await {
        tracing::warn!(pod = pod.name_any(), %error, "a pod could not be marked with how many sessions it has");
    }
}

#[cfg(test)]
mod tests {
    use portolan_crds::server::RevisionState::{Draining, Pending, Serving};

    use super::*;
    use crate::server::fixtures::{self, planned};

    #[test]
    fn only_pods_of_which_some_go_and_some_stay_are_told_apart() {
        let deployment = |name: &str, replicas: i32| {
            serde_json::from_value(json!({
                "metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}, "template": {}},
            }))
            .unwrap()
        };
        let deployments =
            vec![deployment("fewer", 5), deployment("none", 5), deployment("more", 1), deployment("same", 2)];
        let observed = Observed { deployments, ..fixtures::nothing() };
        let revisions = vec![
            planned("fewer", Serving, 2),
            planned("none", Draining, 0),
            planned("more", Pending, 2),
            planned("same", Pending, 2),
            planned("new", Pending, 2),
        ];
        let plan = Plan { revisions, delete: Vec::new() };
        assert_eq!(revisions_with_fewer(&observed, &plan).collect::<Vec<_>>(), ["fewer"]);
        let autoscaler = json!({
            "metadata": {"name": "same"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "same"}, "minReplicas": 1, "maxReplicas": 5},
            "status": {"currentReplicas": 2, "desiredReplicas": 2},
        });
        let observed = Observed { autoscalers: vec![serde_json::from_value(autoscaler).unwrap()], ..observed };
        assert_eq!(revisions_with_fewer(&observed, &plan).collect::<Vec<_>>(), ["fewer", "same"], "it may any moment");
    }
}
