//! Condition types and reasons, and how to look one up.
//!
//! Reasons are part of the API: scripts match on them. A reason is added here before anything writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition of that type, when it has been written.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of that type is `True`. `False`, `Unknown` and absent are all not.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Condition types.
pub mod types {
    /// The summary: available, programmed on every live gateway replica, and the latest generation is what serves.
    pub const READY: &str = "Ready";
    /// The spec makes sense to the operator.
    pub const ACCEPTED: &str = "Accepted";
    /// Every Secret, ConfigMap and claim that the spec names exists and has the keys it names.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// Every live replica of every gateway that selects the server has loaded it.
    pub const PROGRAMMED: &str = "Programmed";
    /// Pods of the serving revision answered `initialize` and `tools/list` within the last check interval, none of them fails a
    /// known-answer check, and calls of clients do not fail one after the other at each of them.
    pub const AVAILABLE: &str = "Available";
    /// A revision other than the serving one is being brought up.
    pub const PROGRESSING: &str = "Progressing";
    /// kstatus, abnormal when true: the operator is still working towards the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus, abnormal when true: nothing will change until someone acts on the message.
    pub const STALLED: &str = "Stalled";
}

/// Condition reasons.
pub mod reasons {
    /// `Ready=True`.
    pub const READY: &str = "Ready";
    /// Work is under way and nothing is wrong so far.
    pub const RECONCILING: &str = "Reconciling";
    /// Waiting for something outside the operator, named in the message.
    pub const PENDING: &str = "Pending";
    /// `Available=True`.
    pub const AVAILABLE: &str = "Available";
    /// `Accepted=True`.
    pub const ACCEPTED: &str = "Accepted";
    /// The spec, or what the API server said about an object made from it, is invalid; the message says which field.
    pub const INVALID: &str = "Invalid";
    /// `ResolvedRefs=True`.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// A Secret that the spec names does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// A ConfigMap that the spec names does not exist.
    pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
    /// The Secret or ConfigMap exists, the key that the spec names does not.
    pub const KEY_NOT_FOUND: &str = "KeyNotFound";
    /// A PersistentVolumeClaim that the spec names does not exist.
    pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
    /// A PersistentVolumeClaim cannot be mounted by two revisions at once (`ReadWriteOnce`).
    pub const CLAIM_NOT_SHAREABLE: &str = "ClaimNotShareable";
    /// The kubelet cannot pull the image.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// The server's process ended; the message has its code or signal and its last line on stderr.
    pub const SERVER_EXITED: &str = "ServerExited";
    /// The command could not be started at all: not found, not executable.
    pub const SPAWN_FAILED: &str = "SpawnFailed";
    /// Nothing answers where the server should be.
    pub const UNREACHABLE: &str = "Unreachable";
    /// The host of a remote server has an address of a private network, and the platform did not allow it by name.
    pub const ADDRESS_NOT_ALLOWED: &str = "AddressNotAllowed";
    /// A remote server and its relay do not trust each other's certificates; the message says whose and why.
    pub const TLS_FAILED: &str = "TLSFailed";
    /// The server started and did not answer `initialize` in time.
    pub const HANDSHAKE_TIMEOUT: &str = "HandshakeTimeout";
    /// The server answered with something that is not MCP.
    pub const NOT_MCP: &str = "NotMCP";
    /// The server speaks only protocol revisions that the bridge does not.
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    /// `initialize` worked, `tools/list` did not, or has lost all of its tools.
    pub const TOOLS_LIST_FAILED: &str = "ToolsListFailed";
    /// The server was available and stopped answering checks.
    pub const PROBE_TIMEOUT: &str = "ProbeTimeout";
    /// Checks are answered and calls are not: call after call of more than one caller fails at every pod that serves.
    pub const CALLS_FAIL: &str = "CallsFail";
    /// The server answers, and not what it is known to have to answer; the message names check, pod, what was expected and what came.
    pub const CANARY_FAILED: &str = "CanaryFailed";
    /// A known-answer check calls a tool that the server does not have.
    pub const UNKNOWN_TOOL: &str = "UnknownTool";
    /// A new revision lacks tools that the one that serves has, or defines them differently; the message says which.
    pub const TOOLS_CHANGED: &str = "ToolsChanged";
    /// The scheduler found no node; the message is the scheduler's.
    pub const POD_NOT_SCHEDULED: &str = "PodNotScheduled";
    /// The kubelet cannot make the container from its configuration; the message is the kubelet's.
    pub const CONTAINER_CONFIG_ERROR: &str = "ContainerConfigError";
    /// The namespace is not among those that the chart's values enrol.
    pub const NOT_ENROLLED: &str = "NotEnrolled";
    /// No gateway selects this server.
    pub const NO_GATEWAY: &str = "NoGateway";
    /// A gateway replica has not loaded the object yet, or refused it; the message names the replica.
    pub const NOT_LOADED: &str = "NotLoaded";
    /// `Programmed=True`.
    pub const PROGRAMMED: &str = "Programmed";
    /// An object with a name that the operator needs belongs to someone else; the message names its owner.
    pub const FOREIGN_OBJECT: &str = "ForeignObject";
    /// No pod runs, as nobody calls; the next call starts one.
    pub const ASLEEP: &str = "Asleep";
    /// A pod starts, as a call waits for one.
    pub const WAKING: &str = "Waking";
    /// `spec.replicas` is 0.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// An older revision still holds sessions.
    pub const DRAINING: &str = "Draining";
    /// A new revision exists and does not serve yet.
    pub const ROLLOUT_IN_PROGRESS: &str = "RolloutInProgress";
    /// A new revision could serve, and `rollout.paused` keeps it from doing so.
    pub const ROLLOUT_PAUSED: &str = "RolloutPaused";
    /// A new revision took a share of new sessions and was taken back; the message says why.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// `rollout.abort` names the new revision, so it does not serve.
    pub const ROLLOUT_ABORTED: &str = "RolloutAborted";
    /// A new revision takes a share of new sessions; the message says which.
    pub const CANARY_STEP: &str = "CanaryStep";
    /// The latest generation's revision serves.
    pub const ROLLOUT_COMPLETE: &str = "RolloutComplete";
    /// A revision's pods did not all answer within ten minutes, and none says why.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// None of the Secrets that a gateway's API keys come from holds a usable hash.
    pub const NO_CREDENTIALS: &str = "NoCredentials";
    /// The API server is away, slow, or failed.
    pub const API_SERVER_ERROR: &str = "APIServerError";
    /// The API server refused for lack of rights, or a quota is used up.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The API server refused a write because another field manager owns the field.
    pub const CONFLICT: &str = "Conflict";
}
