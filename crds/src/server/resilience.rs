//! Sessions, checks, timeouts and limits of a server.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How sessions are kept.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Stateless' || !(has(self.idleTimeout) || has(self.maxPerReplica) || has(self.maxPerCaller))")
    .message("a Stateless server has no sessions to end or count: remove idleTimeout, maxPerReplica and maxPerCaller; limits bounds its calls"))]
#[x_kube(validation = Rule::new("!has(self.maxPerCaller) || self.maxPerCaller <= (has(self.maxPerReplica) ? self.maxPerReplica : 64)")
    .message("one caller cannot hold more sessions of a pod than the pod holds: lower maxPerCaller or raise maxPerReplica (64 when not set)"))]
pub struct Sessions {
    /// Whether a session stays with one pod (`Stateful`) or any pod may answer any request (`Stateless`).
    #[serde(default, rename = "type")]
    pub type_: SessionType,

    /// A session without a request or an open call for this long is ended, and its process with it. When not set, `30m`.
    /// Not with `Stateless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = crate::rules::duration("1s", "168h", "30m"))]
    pub idle_timeout: Option<Duration>,

    /// How many sessions one pod holds. When every pod is full, opening another gets 503 with `Retry-After`. When not
    /// set, 64. Not with `Stateless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_per_replica: Option<u32>,

    /// How many of one pod's sessions one caller holds, so that no one takes them all. Who opens another gets 503 with
    /// `Retry-After`. When not set, three quarters of `maxPerReplica`. Not with `Stateless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_per_caller: Option<u32>,
}

impl Sessions {
    /// How long a session may be idle.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or_else(|| Duration::from_secs(30 * 60))
    }

    /// How many sessions one pod holds.
    #[must_use]
    pub fn max_per_replica(&self) -> u32 {
        self.max_per_replica.unwrap_or(64)
    }
}

/// Whether a session stays with one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum SessionType {
    /// A session stays with the pod that opened it.
    #[default]
    Stateful,
    /// Any pod may answer any request.
    Stateless,
}

/// How the bridge in each pod checks that the server still answers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.timeout) <= duration(self.interval)")
    .message("a check must end before the next one starts: write a timeout no longer than interval")
    .field_path(".timeout"))]
pub struct HealthCheck {
    /// Time from one check to the next.
    #[serde(default = "interval")]
    #[x_kube(validation = crate::rules::duration("1s", "1h", "10s"))]
    pub interval: Duration,

    /// How long a check may take; at most `interval`.
    #[serde(default = "check_timeout")]
    #[x_kube(validation = crate::rules::duration("100ms", "1h", "3s"))]
    pub timeout: Duration,

    /// How many checks in a row must fail before the pod counts as unhealthy.
    #[serde(default = "unhealthy_threshold")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub unhealthy_threshold: u32,

    /// How many checks in a row must succeed before the pod counts as healthy again.
    #[serde(default = "healthy_threshold")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub healthy_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: interval(),
            timeout: check_timeout(),
            unhealthy_threshold: unhealthy_threshold(),
            healthy_threshold: healthy_threshold(),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn check_timeout() -> Duration {
    Duration::from_secs(3)
}

fn unhealthy_threshold() -> u32 {
    3
}

fn healthy_threshold() -> u32 {
    1
}

/// How long the gateway waits.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From a request to its answer.
    #[serde(default = "request")]
    #[x_kube(validation = crate::rules::duration("100ms", "24h", "30s"))]
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: request() }
    }
}

fn request() -> Duration {
    Duration::from_secs(30)
}

/// What one gateway replica sends to the server at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests under way at the server.
    #[serde(default = "max_parallel_requests")]
    #[schemars(range(min = 1, max = 100_000), extend("format" = "int32"))]
    pub max_parallel_requests: u32,

    /// Requests that wait for one of those to end. 0 refuses at once.
    #[serde(default = "max_pending_requests")]
    #[schemars(range(min = 0, max = 100_000), extend("format" = "int32"))]
    pub max_pending_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_parallel_requests: max_parallel_requests(), max_pending_requests: max_pending_requests() }
    }
}

fn max_parallel_requests() -> u32 {
    200
}

fn max_pending_requests() -> u32 {
    100
}
