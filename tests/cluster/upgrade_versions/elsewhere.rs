//! A server that Portolan knows nothing of, for a remote one to be: a pod behind a Service whose name
//! `tests/cluster/values.yaml` allows.

use k8s_openapi::api::core::v1::{Pod, Service};
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::pods::settled;
use portolan_tests::puppet;
use portolan_tests::wait::PATIENCE;
use serde_json::json;

const NAME: &str = "elsewhere";
const PORT: u16 = 3001;

/// Where it answers.
pub(crate) fn url() -> String {
    format!("http://{NAME}.{TENANT}.svc.cluster.local:{PORT}/mcp")
}

/// Makes it, and waits until it answers.
pub(crate) async fn open(cluster: &Cluster) {
    let metadata = json!({"name": NAME, "namespace": TENANT, "labels": {"app": NAME}});
    let container = json!({
        "name": "server",
        "image": puppet::IMAGE,
        "imagePullPolicy": "Never",
        "command": ["mcp-server-everything", "streamableHttp"],
        "env": [{"name": "PORT", "value": PORT.to_string()}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]}});
    cluster.apply::<Pod>(&pod).await.expect("the manifest is accepted");
    cluster.apply::<Service>(&service).await.expect("the manifest is accepted");
    settled(cluster, TENANT, &format!("app={NAME}"), 1, PATIENCE).await;
}

/// Takes it away.
pub(crate) async fn close(cluster: &Cluster) {
    cluster.delete::<Service>(TENANT, NAME).await;
    cluster.delete::<Pod>(TENANT, NAME).await;
}
