//! The contract between gateway, operator and bridge, version 1.
//!
//! Data port: `POST`, `GET` and `DELETE` on [`DATA_PATH`], MCP streamable HTTP with the session named by
//! [`SESSION`] instead of `Mcp-Session-Id`. The gateway names the session before `initialize`; the bridge makes it. The gateway
//! sends only what takes JSON as well as event streams as an answer, and `TE: trailers`: see [`FAILURE`].
//! Admin port: [`LIVEZ`], [`READYZ`] and, from loopback, [`DRAINED`] are open; [`STATUS`], [`PROBE`] and [`ABANDON`] need the MAC, as
//! every data request does. A gateway's admin port has [`STREAM`] and [`CHECKS`] for whoever has that gateway's stream key.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::revision::Era;

/// Version of this contract; each side refuses one that it does not know.
pub const CONTRACT: u32 = 1;

/// The bridge's port for MCP.
pub const DATA_PORT: u16 = 8700;
/// The bridge's port for probes and reports.
pub const ADMIN_PORT: u16 = 8701;

/// A gateway's admin port: what it has loaded, and what it finds of pods, for the operator.
pub const STREAM: &str = "/v1/stream";
/// A gateway's admin port: `/v1/checks/{namespace}/{server}/{UID of a pod}` is an MCP endpoint of that pod alone, of whichever
/// revision, for the operator.
pub const CHECKS: &str = "/v1/checks/";

/// Path of the MCP endpoint on the data port.
pub const DATA_PATH: &str = "/mcp";
/// 200 while the bridge itself works.
pub const LIVEZ: &str = "/livez";
/// 200 while the kept probe session answers.
pub const READYZ: &str = "/readyz";
/// Answers once the bridge has drained; loopback only (a `preStop` of the container beside it waits here).
pub const DRAINED: &str = "/drained";
/// [`BridgeStatus`] as JSON; with `?definitions=1` the tools' definitions too.
pub const STATUS: &str = "/v1/status";
/// [`ProbeStatus`] without the tools' definitions, as lines of JSON: what it is, then what it becomes, until either side ends it.
/// An empty line, at least every [`HEARTBEAT`], says that it is what it was.
pub const PROBE: &str = "/v1/probe";
/// Longest silence of [`PROBE`].
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// A `POST` here says that nobody can reach the sessions any more: a drain, now or later, does not wait for them. 204.
pub const ABANDON: &str = "/v1/abandon";

/// Request header: the session's key.
pub const SESSION: HeaderName = HeaderName::from_static("portolan-session");
/// Request header: UID of the pod that is meant. Another one that has its address by now refuses with
/// status 421 and [`crate::failure::Kind::ServerUnreachable`]: a session must not begin or be looked for where its name
/// does not point.
pub const POD: HeaderName = HeaderName::from_static("portolan-pod");
/// Environment variable from which a bridge knows its pod's UID.
pub const POD_VARIABLE: &str = "PORTOLAN_POD_UID";
/// Request header: a list, or `server/discover`, of the sessionless era that is the same for everyone. It is answered from
/// what the bridge keeps for itself, so that nothing is started for it.
pub const SHARED: HeaderName = HeaderName::from_static("portolan-shared");
/// Request header of what opens a session: the [`SessionKey::of_caller`] of whoever it is for. Sessions of one caller are
/// bounded.
pub const CALLER: HeaderName = HeaderName::from_static("portolan-caller");
/// Request header of what opens a session in a client's stead: the bridge says `notifications/initialized` when the server
/// has answered, and lets requests wait that come before. Whoever opened it may be gone by then, and others that have its
/// name may not know how far it is.
pub const HANDSHAKE: HeaderName = HeaderName::from_static("portolan-handshake");
/// Response header of a session that was opened with [`HANDSHAKE`]: a name that no other session of the same key has had,
/// there or elsewhere. As a request header it says which one is meant; another is [`crate::failure::Kind::UnknownSession`].
pub const PART: HeaderName = HeaderName::from_static("portolan-part");
/// Request header: milliseconds after which the caller no longer waits for the answer.
pub const TIMEOUT: HeaderName = HeaderName::from_static("portolan-timeout-ms");
/// Response header: the [`crate::failure::Kind`] of an answer that the bridge made in the server's stead. Of an answer that
/// is the last event of a stream it is the trailer: when the head left, nobody knew.
pub const FAILURE: HeaderName = HeaderName::from_static("portolan-failure");

/// Headers of a server's answer that mean something to a client. No other travels: what a server adds would be read, kept
/// for as long as a stream lasts, and thrown away.
const RETURNED: [HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER, ALLOW];

/// What of the `headers` of a server's answer goes on to its client.
pub fn returned(headers: &HeaderMap) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    RETURNED.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)))
}

/// What a bridge knows of the server behind it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeStatus {
    /// [`CONTRACT`] of the bridge.
    pub contract: u32,
    /// Release of the bridge.
    pub version: String,
    /// What the kept probe session found.
    pub probe: ProbeStatus,
    /// Sessions now.
    pub sessions: SessionCounts,
    /// Whether the bridge takes no new sessions because its pod is going away.
    pub draining: bool,
    /// The latest ends of server processes, newest last; at most [`MAX_EXITS`].
    pub exits: Vec<SessionExit>,
    /// What was refused, dropped or ended, since the bridge started.
    pub counters: Counters,
}

/// Bound of [`BridgeStatus::exits`].
pub const MAX_EXITS: usize = 32;

/// State of the kept probe session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    /// Where the probe stands.
    pub state: ProbeState,
    /// Why it is not `Ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ProbeReason>,
    /// The reason in words, with what was expected and what came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Who answered `initialize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerFound>,
    /// What `tools/list` answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsFound>,
}

/// Where a probe stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeState {
    /// No verdict yet.
    Starting,
    /// `initialize` and `tools/list` were answered, the last time within the healthy threshold.
    Ready,
    /// The server does not answer as it should.
    Failing,
}

/// Why a server does not count as ready. The names are condition reasons on the `MCPServer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProbeReason {
    /// The command could not be started.
    SpawnFailed,
    /// The process ended.
    ServerExited,
    /// Nothing listens on the server's port.
    Unreachable,
    /// The server's host has an address that is not connected to.
    AddressNotAllowed,
    /// The two sides do not trust each other's certificates, or one of them does not speak TLS.
    #[serde(rename = "TLSFailed")]
    TlsFailed,
    /// `initialize` was not answered in time.
    HandshakeTimeout,
    /// What came is not MCP.
    #[serde(rename = "NotMCP")]
    NotMcp,
    /// The server speaks no revision that opens with `initialize`.
    UnsupportedProtocol,
    /// `tools/list` was answered with an error, or with no tools where there were some.
    ToolsListFailed,
    /// `tools/list` was not answered in time.
    ProbeTimeout,
}

impl ProbeReason {
    /// The reason as a condition carries it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpawnFailed => "SpawnFailed",
            Self::ServerExited => "ServerExited",
            Self::Unreachable => "Unreachable",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::TlsFailed => "TLSFailed",
            Self::HandshakeTimeout => "HandshakeTimeout",
            Self::NotMcp => "NotMCP",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::ToolsListFailed => "ToolsListFailed",
            Self::ProbeTimeout => "ProbeTimeout",
        }
    }
}

/// Who answered `initialize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerFound {
    /// `serverInfo.name`.
    pub name: String,
    /// `serverInfo.version`.
    pub version: String,
    /// The revision that was agreed upon.
    pub protocol_version: String,
    /// The era that was found.
    pub era: Era,
    /// Every revision that it was found to speak, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_versions: Vec<String>,
    /// Names of the capabilities it declared, sorted.
    pub capabilities: Vec<String>,
}

/// What `tools/list` answered, all pages together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsFound {
    /// How many tools.
    pub count: u32,
    /// `sha256:` and the digest of the definitions, sorted by name, keys sorted.
    pub hash: String,
    /// The definitions, a JSON array; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<Box<RawValue>>,
}

/// Sessions of one bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCounts {
    /// Clients' sessions; the probe's is not one.
    pub active: u32,
    /// Started processes that wait for a client.
    pub warm: u32,
    /// Most sessions it will hold.
    pub max: u32,
}

/// How a server process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionExit {
    /// The session's key, `probe`, or `warm`.
    pub session: String,
    /// Unix milliseconds.
    pub at: u64,
    /// What ended it.
    pub cause: ExitCause,
    /// Exit code, when it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal number, when one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The last line it wrote to stderr, shortened; why there is none where it did not start, or where what ended by itself
    /// is a connection to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_stderr: String,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitCause {
    /// The process ended by itself, or someone else ended it.
    ServerExited,
    /// The client said `DELETE`.
    Deleted,
    /// Nobody used it for `sessions.idleTimeout`.
    Idle,
    /// It did not answer its client's `initialize` with a result.
    NotInitialized,
    /// It was the largest when memory ran short: a session's process, the probe's or a warm one.
    MemoryPressure,
    /// It sent a message over the bound.
    MessageTooLong,
    /// The bridge went away.
    Shutdown,
    /// A probe or a warm process that was not needed any more; or a server of the other era came in its server's place.
    Replaced,
}

/// Counts since the bridge started; each is a bound that was hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Requests without a valid MAC.
    pub refused_mac: u64,
    /// Sessions refused at `maxPerReplica`.
    pub refused_sessions: u64,
    /// Messages refused because too many wait already, or because the server does not read, or refused by an HTTP+SSE server.
    #[serde(default)]
    pub refused_calls: u64,
    /// Lines of stdout that were no JSON-RPC message.
    pub skipped_lines: u64,
    /// Messages over the bound, a client's or a server's.
    pub oversized_messages: u64,
    /// Lines of stderr past the rate.
    pub dropped_stderr_lines: u64,
    /// Messages for a stream that nobody opened, past the queue's bound.
    pub dropped_messages: u64,
    /// Processes ended for memory: of sessions, the probe's, warm ones.
    pub memory_ends: u64,
    /// Calls not answered in time.
    pub timeouts: u64,
}
