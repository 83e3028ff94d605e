//! The operator in its pods: how many there are, which of them leads, and how much it has looked at.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, OPERATOR, PLATFORM};
use crate::mcp;
use crate::wait::{PATIENCE, until};

/// Has so many operators, and waits until they are ready.
///
/// # Panics
/// They are not within [`PATIENCE`].
pub async fn replicas(cluster: &Cluster, replicas: u32) {
    let deployments = cluster.api::<Deployment>(PLATFORM);
    let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch("portolan-operator", &PatchParams::default(), &scale).await.expect("scaled");
    until(&format!("{replicas} operators are ready"), PATIENCE, || async {
        let status = deployments.get("portolan-operator").await.map_err(|error| error.to_string())?.status;
        let status = status.unwrap_or_default();
        let counts = [status.replicas, status.ready_replicas].map(Option::unwrap_or_default);
        if counts.iter().all(|count| u32::try_from(*count) == Ok(replicas)) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
}

/// The pod that leads.
///
/// # Errors
/// Nobody does, or the API server does not say.
pub async fn leader(cluster: &Cluster) -> Result<String, String> {
    let lease = cluster.api::<Lease>(PLATFORM).get("portolan-operator").await.map_err(|error| error.to_string())?;
    lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()).ok_or("nobody".into())
}

/// Waits until a pod that runs leads, and returns its name.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub async fn led(cluster: &Cluster) -> String {
    until("an operator that runs leads", PATIENCE, || async {
        let leader = leader(cluster).await?;
        let pods = cluster.pods(PLATFORM, OPERATOR).await;
        let runs = pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&leader));
        if runs { Ok(leader) } else { Err(format!("{leader} does")) }
    })
    .await
}

/// A number of the operator's own count: the sum over all samples whose text begins so. Of one operator alone.
///
/// # Errors
/// It does not say.
pub async fn counted(cluster: &Cluster, sample: &str) -> Result<u64, String> {
    let mut pods = cluster.pods(PLATFORM, OPERATOR).await.into_iter();
    let address = pods.next().and_then(|pod| pod.status?.pod_ip).ok_or("no address")?;
    let read = mcp::http().get(format!("http://{address}:8082/metrics")).send().await;
    let text = read.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
    let samples = text.lines().filter(|line| line.starts_with(sample));
    samples.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).ok_or(line.to_owned())).sum()
}

/// Waits until the operator has looked at servers that often again.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub async fn looks_again(cluster: &Cluster, times: u64) {
    const LOOKS: &str = "portolan_operator_reconcile_total{kind=\"MCPServer\"";
    let before = counted(cluster, LOOKS).await.expect("counted");
    until("the operator looks again", PATIENCE, || async {
        let now = counted(cluster, LOOKS).await?;
        if now >= before + times { Ok(()) } else { Err(format!("{now} after {before}")) }
    })
    .await;
}
