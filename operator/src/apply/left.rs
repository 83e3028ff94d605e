//! What a child leaves to others: how many pods a Deployment has that says nothing of it, and when its pods were told to be replaced.
//!
//! Server-side apply resets a field to its default when its last owner does not apply it any more, which would be one pod. So the number is
//! handed to a field manager that applies nothing else, and whoever scales the Deployment takes it from there.

use kube::api::{DynamicObject, PatchParams};
use serde_json::{Value, json};

use super::{Child, as_value};
use crate::{apply::Owner, cluster::Cluster, error::Error};

/// The field manager that holds the number until someone changes it.
const KEEPER: &str = "portolan-scaling";

/// Where `kubectl rollout restart` says when: to take that back would undo the restart before a pod is replaced.
const RESTARTED: (&str, &str) = ("/spec/template/metadata/annotations", "kubectl.kubernetes.io/restartedAt");

/// What we want, completed by what is left to others as it is now.
pub(super) fn with(live: &Value, child: &Child) -> Value {
    let mut desired = child.desired.clone();
    if child.resource.kind == "Deployment"
        && let Some(when) = live.pointer(RESTARTED.0).and_then(|annotations| annotations.get(RESTARTED.1))
    {
        desired["spec"]["template"]["metadata"]["annotations"][RESTARTED.1] = when.clone();
    }
    if is_left(child)
        && let Some(replicas) = live.pointer("/spec/replicas")
    {
        desired["spec"]["replicas"] = replicas.clone();
    }
    desired
}

/// Has another manager hold what we are about to apply no more.
///
/// # Errors
/// What the API server said: a conflict when the number was changed a moment ago.
pub(super) async fn hand_over(
    cluster: &Cluster,
    owner: &Owner,
    child: &Child,
    live: &DynamicObject,
) -> Result<(), Error> {
    let object = as_value(live)?;
    let Some(replicas) = object.pointer("/spec/replicas").filter(|_| is_left(child) && is_ours(&object)) else {
        return Ok(());
    };
    let held = json!({
        "apiVersion": child.resource.api_version,
        "kind": child.resource.kind,
        "metadata": {"name": child.name, "uid": live.metadata.uid},
        "spec": {"replicas": replicas},
    });
    cluster.apply(&child.resource, owner.namespace(), &child.name, &held, &PatchParams::apply(KEEPER)).await.map(drop)
}

/// Whether it says nothing of what is left to others, who decide over one that is there.
pub(super) fn is_left(child: &Child) -> bool {
    child.resource.kind == "Deployment" && child.desired.pointer("/spec/replicas").is_none()
}

/// Whether it was we who said how many pods there are.
fn is_ours(live: &Value) -> bool {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().any(|entry| {
        entry["manager"] == portolan_crds::OPERATOR_MANAGER && entry.pointer("/fieldsV1/f:spec/f:replicas").is_some()
    })
}

#[cfg(test)]
mod tests;
