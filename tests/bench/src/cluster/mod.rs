//! What the suites of the test cluster share: servers that are the bench's own, applied as a user applies them.

mod audit;
pub(crate) mod changes;
pub(crate) mod hang;
pub(crate) mod idle;
mod marks;
mod memory;
pub(crate) mod rollback;
pub(crate) mod start;
pub(crate) mod wake;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PropagationPolicy};
use portolan_crds::{MCPServer, labels};
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::manifest::hosted;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The label of every object that the bench makes, by which it finds them again.
const OWN: (&str, &str) = ("app.kubernetes.io/part-of", "portolan-bench");
/// The small server, loaded by `hack/bench`.
const ECHO_IMAGE: &str = "localhost/portolan/echo:bench";
/// Longest wait for servers to come or go.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the API server is asked while waiting for many.
const ASK: Duration = Duration::from_millis(500);

/// An `MCPServer` that runs the small server.
fn echo_server(name: &str) -> Value {
    let container = json!({"transport": "Stdio", "command": ["/portolan-echo", "stdio"]});
    own(hosted(TENANT, name, ECHO_IMAGE, &container))
}

/// The same manifest with the bench's label.
fn own(mut manifest: Value) -> Value {
    manifest["metadata"]["labels"][OWN.0] = OWN.1.into();
    manifest
}

/// `kubectl apply`, as a user runs it.
async fn apply(manifests: &[Value]) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests}).to_string();
    let mut kubectl = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl does not start")?;
    let mut input = kubectl.stdin.take().context("kubectl has no standard input")?;
    input.write_all(list.as_bytes()).await?;
    drop(input);
    let output = kubectl.wait_with_output().await?;
    ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Deletes every server of the bench, and waits until their pods are gone too.
async fn sweep(cluster: &Cluster) -> anyhow::Result<()> {
    let servers: Api<MCPServer> = cluster.api(TENANT);
    let own = ListParams::default().labels(&format!("{}={}", OWN.0, OWN.1));
    let names: Vec<String> =
        servers.list(&own).await?.items.into_iter().filter_map(|server| server.metadata.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    servers.delete_collection(&foreground, &own).await.context("the servers cannot be deleted")?;
    let pods: Api<Pod> = cluster.api(TENANT);
    let of_servers = ListParams::default().labels(&format!("{} in ({})", labels::SERVER, names.join(",")));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = servers.list(&own).await?.items.len() + pods.list(&of_servers).await?.items.len();
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{left} servers and pods are still there after {PATIENCE:?}");
        }
        tokio::time::sleep(ASK).await;
    }
}

/// The version of the API server.
async fn kubernetes(cluster: &Cluster) -> anyhow::Result<String> {
    Ok(format!("Kubernetes {}", cluster.client.apiserver_version().await?.git_version))
}
