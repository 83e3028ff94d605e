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
#[x_kube(validation = Rule::new("self.minReplicas == 0 || !has(self.scaleToZeroAfter)")
    .message("a server with a minReplicas over 0 always has pods: write minReplicas: 0, or remove scaleToZeroAfter")
    .field_path(".scaleToZeroAfter"))]
#[x_kube(validation = Rule::new("self.minReplicas == 0 || !has(self.activationTimeout)")
    .message("a server with a minReplicas over 0 is never waited for: write minReplicas: 0, or remove activationTimeout")
    .field_path(".activationTimeout"))]
pub struct Autoscaling {
    /// How many pods there are at least. With 0 there is none while nobody calls, and the next call starts one.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 0, max = 100))]
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

    /// With a `minReplicas` of 0: after how long without a call there is no pod. 10m where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = crate::rules::duration("10s", "24h", "10m"))]
    pub scale_to_zero_after: Option<Duration>,

    /// With a `minReplicas` of 0: how long a call waits for a pod that it starts. 30s where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = crate::rules::duration("1s", "10m", "30s"))]
    pub activation_timeout: Option<Duration>,
}

impl Autoscaling {
    /// When the server sleeps; `None` where it always has pods.
    #[must_use]
    pub fn sleep(&self) -> Option<Sleep> {
        let or = |written: Option<Duration>, usual: u16| written.unwrap_or(Duration::from_secs(usual)).as_std();
        let sleep = Sleep { after: or(self.scale_to_zero_after, 10 * 60), activation: or(self.activation_timeout, 30) };
        (self.min_replicas == 0).then_some(sleep)
    }

    /// The target of that type.
    #[must_use]
    pub fn target(&self, type_: ScalingMetricType) -> Option<u32> {
        self.metrics.iter().find(|metric| metric.type_ == type_).map(|metric| metric.target)
    }
}

/// A server that has no pods while nobody calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// After how long without a call.
    pub after: std::time::Duration,
    /// How long a call waits for a pod that it starts.
    pub activation: std::time::Duration,
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
