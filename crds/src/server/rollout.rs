//! How a new revision of a server replaces the one that serves.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How a new revision replaces the old one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
#[x_kube(validation = Rule::new("(self.type == 'Canary') == has(self.canary)")
    .message("type: Canary and canary.steps belong together: write both, or neither"))]
#[x_kube(validation = Rule::new("!has(self.promote) || self.type != 'Recreate'")
    .message("with type: Recreate there are no steps to go past, and nothing is rolled back: remove promote")
    .field_path(".promote"))]
#[x_kube(validation = Rule::new("!has(self.abort) || self.type != 'Recreate'")
    .message("with type: Recreate the old revision has ended by then: remove abort, and apply the spec from before")
    .field_path(".abort"))]
#[x_kube(validation = Rule::new("!(has(self.promote) && has(self.abort)) || self.promote != self.abort")
    .message("a revision is promoted or aborted: remove one of promote and abort"))]
pub struct Rollout {
    /// Whether the new revision comes up beside the old one (`BlueGreen`, and step by step `Canary`) or after it (`Recreate`).
    #[serde(default, rename = "type")]
    pub type_: RolloutType,

    /// The steps by which a new revision takes over. With `type: Canary`, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRollout>,

    /// Whether the revision that serves goes on doing so, however far a new one is. A new one comes up and is checked all the same, with
    /// `Recreate` not even that; one that takes a share of new sessions keeps that share. Where nothing serves there is nothing to wait for.
    #[serde(default)]
    pub paused: bool,

    /// Name of a revision that takes over as soon as it is verified, past the steps that are left and past having been rolled back. It says
    /// nothing of any other revision, so it may stay. Not while `paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub promote: Option<String>,

    /// Name of a revision that does not serve although the rest of the spec asks for it: the one that served before goes on, or serves again.
    /// It says nothing of any other revision, nor of one that has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub abort: Option<String>,

    /// Whether a new revision may lack tools that the one that serves has, or define them differently. Where it may not, such a revision does not serve:
    /// `Ready` says which tools. New tools are no obstacle. With `Recreate` nothing serves that it could be compared with.
    #[serde(default)]
    pub allow_tool_changes: bool,

    /// How many revisions that have served and are gone are remembered, so that `portolan rollout undo` can ask for one again.
    #[serde(default = "revision_history_limit")]
    #[schemars(range(min = 0, max = 50), extend("format" = "int32"))]
    pub revision_history_limit: u32,

    /// How long the old revision keeps the sessions it has; those still open are ended then. 0s ends them at once.
    #[serde(default = "drain_timeout")]
    #[x_kube(validation = crate::rules::duration("0s", "24h", "10m"))]
    pub drain_timeout: Duration,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            type_: RolloutType::default(),
            canary: None,
            paused: false,
            promote: None,
            abort: None,
            allow_tool_changes: false,
            revision_history_limit: revision_history_limit(),
            drain_timeout: drain_timeout(),
        }
    }
}

impl Rollout {
    /// The steps by which a new revision takes over; none where it does so at once.
    #[must_use]
    pub fn steps(&self) -> &[CanaryStep] {
        self.canary.as_ref().map(|canary| canary.steps.as_slice()).unwrap_or_default()
    }
}

/// How a new revision relates to the one that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RolloutType {
    /// The new revision comes up beside the one that serves, and takes new sessions once all of its replicas answer.
    #[default]
    BlueGreen,
    /// The same, but it takes a growing share of new sessions, and is taken back where calls of clients or known-answer checks fail at it.
    Canary,
    /// The old revision takes no new sessions any more, keeps those it has for `drainTimeout` at most, and ends; only then
    /// does the new one start. Nobody is served in between: this is for servers that must not run twice. Where a pod is
    /// evicted or lost, Kubernetes may start its replacement before it has ended.
    Recreate,
}

/// The steps by which a new revision takes over.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryRollout {
    /// What share the new revision takes, and for how long, before it takes everything. The shares ascend.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("self.map(step, step.setWeight).isSorted() && self.all(step, self.exists_one(other, other.setWeight == step.setWeight))")
        .message("each step takes more than the one before: write ascending values of setWeight, such as 10, 25, 50"))]
    pub steps: Vec<CanaryStep>,

    /// What takes the new revision back.
    #[serde(default)]
    pub analysis: CanaryAnalysis,
}

/// One step.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// Share of new sessions, and of calls without a session, in percent.
    #[schemars(range(min = 1, max = 99), extend("format" = "int32"))]
    pub set_weight: u8,

    /// How long at least. The next step waits beyond it until every replica of the new revision answers and the analysis of this one has found nothing.
    #[x_kube(validation = crate::rules::duration("1s", "168h", "1m"))]
    pub pause: Duration,
}

/// What takes a new revision back: real calls to it fail more often, or take longer, than those to the revision that serves meanwhile.
///
/// Calls of tools, and of what else a server is there for, count: those that get no answer, an error that is not about what was asked, or a tool's result
/// that is one, and those that are given up. That none of its replicas answers, or that its tools change, is to its disadvantage as well, where it is not so of the
/// revision that serves. A known answer that is wrong there alone takes it back when it still is after `canaryChecks.interval`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAnalysis {
    /// Time from one comparison to the next.
    #[serde(default = "interval")]
    #[x_kube(validation = crate::rules::duration("1s", "1h", "10s"))]
    pub interval: Duration,

    /// How many comparisons in a row must be to its disadvantage.
    #[serde(default = "failure_threshold")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub failure_threshold: u32,

    /// How many calls of the new revision a comparison takes. With fewer it waits for more, or, where nothing is wrong with those, says nothing and they
    /// count in the next one.
    #[serde(default = "min_calls")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub min_calls: u32,

    /// How many more of a thousand calls may fail than at the revision that serves. A few more than that may be chance and do not count, nor do calls of
    /// one caller where others are answered.
    #[serde(default = "max_error_permille")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub max_error_permille: u32,

    /// How long its calls may take, in percent of those to the revision that serves: at the 95th percentile, and as far as it is 50 ms more.
    #[serde(default = "max_latency_percent")]
    #[schemars(range(min = 110, max = 100_000), extend("format" = "int32"))]
    pub max_latency_percent: u32,
}

impl Default for CanaryAnalysis {
    fn default() -> Self {
        Self {
            interval: interval(),
            failure_threshold: failure_threshold(),
            min_calls: min_calls(),
            max_error_permille: max_error_permille(),
            max_latency_percent: max_latency_percent(),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn failure_threshold() -> u32 {
    3
}

fn min_calls() -> u32 {
    10
}

fn max_error_permille() -> u32 {
    20
}

fn max_latency_percent() -> u32 {
    200
}

fn revision_history_limit() -> u32 {
    5
}

fn drain_timeout() -> Duration {
    Duration::from_secs(10 * 60)
}
