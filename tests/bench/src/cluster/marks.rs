//! When a server's objects reached the states on the way to the first call, seen by watches.
//!
//! Timestamps in objects have whole seconds, so the moment is when the watch tells of it: milliseconds late.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{BoxStream, SelectAll, StreamExt, select_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use portolan_crds::conditions::{is_true, types};
use portolan_crds::server::RevisionState;
use portolan_crds::{MCPServer, labels};
use portolan_tests::cluster::{Cluster, TENANT};

/// A state on the way, in the order in which they are usually reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Stored,
    DeploymentMade,
    PodScheduled,
    BridgeInstalled,
    ContainersStarted,
    PodReady,
    Serving,
    Programmed,
    FirstCall,
}

impl Mark {
    pub(super) const ALL: [Self; 9] = [
        Self::Stored,
        Self::DeploymentMade,
        Self::PodScheduled,
        Self::BridgeInstalled,
        Self::ContainersStarted,
        Self::PodReady,
        Self::Serving,
        Self::Programmed,
        Self::FirstCall,
    ];

    /// All but the last.
    pub(super) const BEFORE_A_CALL: &'static [Self] = {
        let [before @ .., _] = &Self::ALL;
        before
    };

    /// What has happened, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Stored => "MCPServer stored",
            Self::DeploymentMade => "Deployment made",
            Self::PodScheduled => "pod scheduled",
            Self::BridgeInstalled => "init container done",
            Self::ContainersStarted => "containers started",
            Self::PodReady => "bridge ready (pod Ready)",
            Self::Serving => "revision Serving",
            Self::Programmed => "Programmed",
            Self::FirstCall => "first successful call",
        }
    }
}

/// Watches that are open.
pub(super) struct Watches(SelectAll<BoxStream<'static, anyhow::Result<Vec<Mark>>>>);

impl Watches {
    /// Begins to watch for a server that does not exist yet.
    pub(super) async fn open(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let children = WatchParams::default().labels(&format!("{}={name}", labels::SERVER));
        let itself = WatchParams::default().fields(&format!("metadata.name={name}"));
        Ok(Self(select_all([
            watch(cluster.api(TENANT), &itself, of_server).await?,
            watch(cluster.api(TENANT), &children, |_: &Deployment| vec![Mark::DeploymentMade]).await?,
            watch(cluster.api(TENANT), &children, of_pod).await?,
        ])))
    }

    /// Begins to watch for a pod of a server that has none.
    pub(super) async fn of_pods(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let children = WatchParams::default().labels(&format!("{}={name}", labels::SERVER));
        Ok(Self(select_all([
            watch(cluster.api(TENANT), &children, asks_for_a_pod).await?,
            watch(cluster.api(TENANT), &children, of_pod).await?,
        ])))
    }

    /// How many pods a server has, those too that end.
    pub(super) async fn pods(cluster: &Cluster, name: &str) -> anyhow::Result<usize> {
        let all = ListParams::default().labels(&format!("{}={name}", labels::SERVER));
        Ok(cluster.api::<Pod>(TENANT).list(&all).await?.items.len())
    }

    /// Collects marks until those that are `wanted` are there, for at most `limit`.
    pub(super) async fn collect(mut self, wanted: &[Mark], limit: Duration) -> anyhow::Result<BTreeMap<Mark, Instant>> {
        let mut seen = BTreeMap::new();
        let all = async {
            while wanted.iter().any(|mark| !seen.contains_key(mark)) {
                let marks = self.0.next().await.context("the watches ended")??;
                let now = Instant::now();
                for mark in marks {
                    seen.entry(mark).or_insert(now);
                }
            }
            anyhow::Ok(())
        };
        let done = tokio::time::timeout(limit, all).await;
        let missing = || wanted.iter().find(|mark| !seen.contains_key(mark)).map_or("", |mark| mark.words());
        done.with_context(|| format!("not within {limit:?}: {}", missing()))??;
        Ok(seen)
    }
}

async fn watch<K>(
    api: Api<K>,
    parameters: &WatchParams,
    marks: impl Fn(&K) -> Vec<Mark> + Send + 'static,
) -> anyhow::Result<BoxStream<'static, anyhow::Result<Vec<Mark>>>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = api.watch(parameters, "0").await.context("the watch does not open")?;
    Ok(events
        .map(move |event| match event.context("the watch broke off")? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Ok(marks(&object)),
            WatchEvent::Error(status) => Err(anyhow::anyhow!("the watch failed: {}", status.message)),
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => Ok(Vec::new()),
        })
        .boxed())
}

fn asks_for_a_pod(deployment: &Deployment) -> Vec<Mark> {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    if replicas > 0 { vec![Mark::DeploymentMade] } else { Vec::new() }
}

fn of_server(server: &MCPServer) -> Vec<Mark> {
    let mut marks = vec![Mark::Stored];
    let Some(status) = &server.status else { return marks };
    if status.revisions.iter().any(|revision| revision.state == RevisionState::Serving) {
        marks.push(Mark::Serving);
    }
    if is_true(&status.conditions, types::PROGRAMMED) {
        marks.push(Mark::Programmed);
    }
    marks
}

fn of_pod(pod: &Pod) -> Vec<Mark> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut marks = Vec::new();
    for (condition, mark) in
        [("PodScheduled", Mark::PodScheduled), ("Initialized", Mark::BridgeInstalled), ("Ready", Mark::PodReady)]
    {
        if has(status, condition) {
            marks.push(mark);
        }
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let running = |state: &Option<_>| {
        state.as_ref().is_some_and(|state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some())
    };
    if !containers.is_empty() && containers.iter().all(|container| running(&container.state)) {
        marks.push(Mark::ContainersStarted);
    }
    marks
}

fn has(status: &PodStatus, condition: &str) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions.iter().any(|found| found.type_ == condition && found.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: &serde_json::Value) -> Vec<Mark> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": status});
        of_pod(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_pod_counts_as_started_when_all_its_containers_run() {
        let container = |state| json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let (running, waiting) = (container(json!({"running": {}})), container(json!({"waiting": {}})));
        assert!(pod(&json!({"containerStatuses": []})).is_empty());
        assert!(pod(&json!({"containerStatuses": [running, waiting]})).is_empty());
        assert_eq!(pod(&json!({"containerStatuses": [running, running]})), [Mark::ContainersStarted]);
    }

    #[test]
    fn a_condition_counts_when_it_is_true() {
        let conditions = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]);
        assert_eq!(pod(&json!({"conditions": conditions})), [Mark::PodScheduled]);
    }
}
