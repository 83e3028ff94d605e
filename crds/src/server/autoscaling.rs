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
#[x_kube(validation = Rule::new("self.metrics.all(metric, metric.type in ['CPU', 'Memory']) || self.metrics.all(metric, !(metric.type in ['CPU', 'Memory']))")
    .message("a HorizontalPodAutoscaler decides by CPU and Memory, and does so alone: write metrics of types CPU and Memory, or metrics of types InFlight and Sessions")
    .field_path(".metrics"))]
#[x_kube(validation = Rule::new("self.minReplicas > 0 || self.metrics.all(metric, !(metric.type in ['CPU', 'Memory']))")
    .message("pods that are not there use nothing, and none would ever be made: write minReplicas: 1, or a metric of type InFlight in place of CPU and Memory")
    .field_path(".minReplicas"))]
pub struct Autoscaling {
    /// How many pods there are at least. With 0 there is none while nobody calls, and the next call starts one.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 0, max = 100))]
    pub min_replicas: i32,

    /// How many pods there are at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,

    /// What decides: the one that asks for most pods. Either what pods have to do (`InFlight`, `Sessions`) or what they use
    /// (`CPU`, `Memory`).
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

    /// Whether what pods use decides, and so a HorizontalPodAutoscaler.
    #[must_use]
    pub fn is_by_usage(&self) -> bool {
        self.metrics.iter().any(|metric| metric.type_.resource().is_some())
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
#[x_kube(validation = Rule::new("!(self.type in ['CPU', 'Memory']) || self.target <= 1000")
    .message("CPU and Memory are in percent of what the container requests: write a target from 1 to 1000, such as 80")
    .field_path(".target"))]
pub struct ScalingMetric {
    /// What is measured.
    #[serde(rename = "type")]
    pub type_: ScalingMetricType,

    /// How much of it one pod is to have: calls, sessions, or percent of what the server's container requests.
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
    /// Processor time of the server's container, as the kubelet counts it.
    #[serde(rename = "CPU")]
    Cpu,
    /// Memory of the server's container, as the kubelet counts it.
    Memory,
}

impl ScalingMetricType {
    /// The name of the resource that is used, where it is one.
    #[must_use]
    pub const fn resource(self) -> Option<&'static str> {
        match self {
            Self::InFlight | Self::Sessions => None,
            Self::Cpu => Some("cpu"),
            Self::Memory => Some("memory"),
        }
    }
}

fn min_replicas() -> i32 {
    1
}

fn scale_down_delay() -> Duration {
    Duration::from_secs(5 * 60)
}
