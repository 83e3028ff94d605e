//! Why a Deployment has no pods, when the API server refuses them: a quota, Pod Security, an account that is missing.

use k8s_openapi::api::apps::v1::Deployment;

/// The API server's words, in a sentence; `None` when it takes the pods.
pub(crate) fn refusal(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_deref()?;
    let failure =
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    Some(format!("the API server refuses the pods: {}", failure.message.as_deref().unwrap_or("it gives no reason")))
}
