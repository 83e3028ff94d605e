//! `MCPServer`: one MCP server, hosted as pods or running elsewhere, and reachable through every gateway that selects it.

mod autoscaling;
mod canary;
mod container;
mod pod;
mod remote;
mod resilience;
mod rollout;
mod status;
mod volume;

pub use autoscaling::{Autoscaling, ScalingMetric, ScalingMetricType, Sleep};
pub use canary::{
    CanaryCheck, CanaryChecks, CanaryDocument, CanaryExpectation, CanaryResource, CanaryTool, CanaryValue,
};
pub use container::{
    ConfigMapEnv, Container, EnvFrom, EnvFromSource, EnvSource, EnvVar, EnvVarSource, ImagePullPolicy, KeyRef,
    LocalName, Resources, SecretEnv, Transport, VolumeMount,
};
pub use pod::Pod;
pub use remote::{
    BackendAuth, BackendAuthType, CaCertificateRef, CaSource, HeaderCredential, Remote, RemoteTls, RemoteTransport,
    RequiredKeyRef,
};
pub use resilience::{HealthCheck, Limits, SessionType, Sessions, Timeouts};
pub use rollout::{CanaryAnalysis, CanaryRollout, CanaryStep, Rollout, RolloutType};
pub use status::{Endpoint, Era, MCPServerStatus, Revision, RevisionState, ServerInfo, Tools};
pub use volume::{
    ConfigMapVolume, EmptyDir, KeyToPath, Medium, PersistentVolumeClaim, SecretVolume, Volume, VolumeSource,
};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// How to run the server, and what callers may expect of it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "MCPServer",
    plural = "mcpservers",
    shortname = "mcps",
    category = "portolan",
    namespaced,
    doc = "An MCP server that Portolan runs, or reaches where it runs, and puts behind its gateways.",
    derive = "PartialEq",
    status = "MCPServerStatus",
    validation = crate::rules::name_is_a_service_name(),
    validation = crate::rules::name_has_at_most(crate::MAX_SERVER_NAME_LENGTH),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Transport", type_ = "string", json_path = ".spec['container','remote'].transport"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.tools.count"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.endpoints[0].url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".status.server.protocolVersion", priority = 1)
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
#[x_kube(validation = crate::rules::exactly_one(&["container", "remote"], "a server runs in one place"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || self.replicas == 1")
    .message("autoscaling says how many pods there are: remove replicas, and write autoscaling.minReplicas and maxReplicas")
    .field_path(".replicas"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || self.sessions.type != 'Stateless' || self.autoscaling.metrics.all(metric, metric.type != 'Sessions')")
    .message("a Stateless server has no sessions to count: write a metric of type InFlight")
    .field_path(".autoscaling.metrics"))]
#[x_kube(validation = crate::rules::requested("CPU", "cpu", "100m"))]
#[x_kube(validation = crate::rules::requested("Memory", "memory", "128Mi"))]
#[x_kube(validation = Rule::new("!has(self.remote) || !has(self.autoscaling) || self.autoscaling.metrics.all(metric, !(metric.type in ['CPU', 'Memory']))")
    .message("what a relay uses says little of a server that runs elsewhere: write metrics of types InFlight and Sessions")
    .field_path(".autoscaling.metrics"))]
pub struct MCPServerSpec {
    /// The server's container and how to talk to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,

    /// The server is elsewhere: where, and how to talk to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,

    /// How many pods run the server, or its relay where it is `remote`. 0 stops them. Not together with `autoscaling`.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,

    /// How many pods run the server, by its load. Not together with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// How sessions are kept.
    #[serde(default)]
    pub sessions: Sessions,

    /// How the bridge in each pod checks that the server still answers. The checks are MCP requests on a session kept
    /// for them.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// Questions whose answers are known, asked before a revision takes traffic and from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_checks: Option<CanaryChecks>,

    /// How long the gateway waits.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// What one gateway replica sends to the server at once. Beyond it callers get 503 with `Retry-After`.
    #[serde(default)]
    pub limits: Limits,

    /// How a new revision replaces the old one.
    #[serde(default)]
    pub rollout: Rollout,

    /// What to add to the pods. Nothing here can weaken their security.
    #[serde(default)]
    pub pod: Pod,
}

impl MCPServerSpec {
    /// Fields that say how many pods there are, what reaches them, and how revisions follow each other: no revision is made of them.
    pub const NOT_OF_A_REVISION: [&str; 4] = ["replicas", "autoscaling", "limits", "rollout"];

    /// Whether the bridge adds a document to the server's resources.
    #[must_use]
    pub fn has_canary_document(&self) -> bool {
        self.canary_checks.as_ref().is_some_and(|checks| checks.document == CanaryDocument::SaintAnthony)
    }

    /// The one place where the server runs; `None` only for an object that no API server admitted.
    #[must_use]
    pub fn place(&self) -> Option<Place<'_>> {
        match (&self.container, &self.remote) {
            (Some(container), None) => Some(Place::Container(container)),
            (None, Some(remote)) => Some(Place::Remote(remote)),
            _ => None,
        }
    }
}

/// Where a server runs, as one of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place<'a> {
    /// In pods of its own.
    Container(&'a Container),
    /// Elsewhere; pods of the server relay to it.
    Remote(&'a Remote),
}

fn one() -> i32 {
    1
}
