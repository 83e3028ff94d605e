//! How many pods run a server, where that follows from its load.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How many pods run a server, as its load asks for.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("write a maxReplicas that is at least minReplicas")
    .field_path(".maxReplicas"))]
pub struct Autoscaling {
    /// How many pods there are at least.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,

    /// How many pods there are at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,

    /// What decides: the one that asks for most pods.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub metrics: Vec<ScalingMetric>,

    /// How long fewer pods must have been enough before there are fewer.
    #[serde(default = "scale_down_delay")]
    #[x_kube(validation = crate::rules::duration("0s", "1h", "5m"))]
    pub scale_down_delay: Duration,
}

impl Autoscaling {
    /// The target of that type.
    #[must_use]
    pub fn target(&self, type_: ScalingMetricType) -> Option<u32> {
        self.metrics.iter().find(|metric| metric.type_ == type_).map(|metric| metric.target)
    }
}

/// One measure of load, and how much of it a pod is to have.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingMetric {
    /// What is measured.
    #[serde(rename = "type")]
    pub type_: ScalingMetricType,

    /// How much of it one pod is to have.
    #[schemars(range(min = 1, max = 100_000), extend("format" = "int32"))]
    pub target: u32,
}

/// A measure of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ScalingMetricType {
    /// Calls that the server works on or that wait for it, as gateways count them.
    InFlight,
    /// Open sessions, as bridges count them.
    Sessions,
}

fn min_replicas() -> i32 {
    1
}

fn scale_down_delay() -> Duration {
    Duration::from_secs(5 * 60)
}
