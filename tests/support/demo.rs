//! The server of the quickstart as one that a test runs in a cluster: a process of a few megabytes for each session.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PLATFORM};

/// An `MCPServer` that runs `portolan demo-server` from the image that the operator itself runs from.
///
/// # Panics
/// The operator has no Deployment.
pub async fn stdio(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    let operator = cluster.api::<Deployment>(PLATFORM).get("portolan-operator").await.expect("the operator is there");
    let pod = operator.spec.and_then(|spec| spec.template.spec).expect("it has a pod template");
    let container = &pod.containers[0];
    json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"container": {
            "image": container.image,
            "imagePullPolicy": container.image_pull_policy,
            "transport": "Stdio",
            "command": ["/portolan", "demo-server"],
        }},
    })
}
