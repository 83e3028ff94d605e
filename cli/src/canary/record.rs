//! What the gateway wrote down of a question: its access log, in the cluster or in a file.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};
use portolan_crds::{MCPServer, labels};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long a line may take from the call to the log.
const LATE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// What the lines of the access log have as their target. Those of the operator's checks have no route.
const ACCESS: &str = "portolan::access";

/// Where the gateway's record is.
pub(super) enum Record<'a> {
    /// In the logs of a gateway's pods.
    Cluster(&'a MCPServer),
    /// In a file that `portolan dev` writes its log to, behind so many bytes.
    File(&'a Path, usize),
    /// Nobody said.
    None,
}

impl<'a> Record<'a> {
    /// What is written to `path` from now on.
    pub(super) fn from_now_on(path: &'a Path) -> Self {
        // One that is not there is told of when it is read.
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        Self::File(path, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// How often it has a call of `route` with this value of this field; waits for the first for a while. `Err` says why it cannot be
    /// read.
    pub(super) async fn count(
        &self,
        route: &str,
        (field, value): (&str, &str),
        since: Duration,
    ) -> Result<usize, String> {
        let began = Instant::now();
        loop {
            let lines = match self {
                Self::Cluster(server) => in_cluster(server, since + began.elapsed()).await?,
                Self::File(path, from) => in_file(path, *from)?,
                Self::None => return Err("--access-log names no file of `portolan --log-level info dev`".into()),
            };
            let is_one = |line: &Value| line["target"] == ACCESS && line["route"] == route && line[field] == value;
            let count = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(is_one).count();
            if count > 0 || began.elapsed() > LATE {
                return Ok(count);
            }
            sleep(PAUSE).await;
        }
    }
}

fn in_file(path: &Path, from: usize) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned())
}

/// The logs of every replica of every gateway that serves `server`.
async fn in_cluster(server: &MCPServer, since: Duration) -> Result<String, String> {
    let client = Client::try_default().await.map_err(|error| error.to_string())?;
    let endpoints = server.status.as_ref().map(|status| status.endpoints.as_slice()).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
    let mut all = String::new();
    for endpoint in endpoints {
        let Some((namespace, gateway)) = endpoint.gateway.split_once('/') else { continue };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let replicas = ListParams::default().labels(&format!("{}={gateway}", labels::GATEWAY));
        for pod in pods.list(&replicas).await.map_err(|error| error.to_string())? {
            let parameters = LogParams { since_seconds: Some(seconds), ..LogParams::default() };
            let lines = pods.logs(&pod.name_any(), &parameters).await.map_err(|error| error.to_string())?;
            all.push_str(&lines);
        }
    }
    Ok(all)
}
