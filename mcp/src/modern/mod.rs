//! Requests of the sessionless era (2026-07-28): each stands alone, names its revision in its body, and repeats in its
//! headers what those in between may want to know.

mod head;
mod mux;
mod params;

use http::HeaderName;

pub use head::{Head, unsupported};
pub use mux::{Mux, MuxOutput, Reply};
pub use params::{check_params, header_value, headers_of, without_unsound_tools};

/// Header that names the protocol revision.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Header that repeats `method`.
pub const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
/// Header that repeats `params.name`, `params.uri` or `params.taskId`.
pub const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// Members of `params._meta` and `result._meta` that the protocol gives a meaning.
pub mod meta {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = crate::revision::META_PROTOCOL_VERSION;
    /// Who asks.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What whoever asks can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// From which level on the request wants to hear log messages.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The request of the subscription that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// Who answered.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
}

/// The request that opens a stream of notifications.
pub const LISTEN: &str = "subscriptions/listen";
/// The request that asks who a server is.
pub const DISCOVER: &str = "server/discover";

/// A change of a list, of which a stream of notifications may tell.
#[derive(Clone, Copy, Debug)]
pub struct ListChange {
    /// The notification.
    pub method: &'static str,
    /// The member of `params.notifications` that asks for it.
    pub filter: &'static str,
    /// The capability that announces it, with its member `listChanged`.
    pub capability: &'static str,
}

/// All of them.
pub const LIST_CHANGES: [ListChange; 3] = [
    ListChange { method: "notifications/tools/list_changed", filter: "toolsListChanged", capability: "tools" },
    ListChange { method: "notifications/prompts/list_changed", filter: "promptsListChanged", capability: "prompts" },
    ListChange {
        method: "notifications/resources/list_changed",
        filter: "resourcesListChanged",
        capability: "resources",
    },
];

/// Methods whose requests name a thing, with the member that names it ("Standard Request Headers").
pub const NAMED: [(&str, &str); 3] = [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")];

/// Methods of earlier revisions that this era does not have.
pub const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// The HTTP status under which a JSON-RPC error of this code is sent ("Streamable HTTP").
#[must_use]
pub fn status_of(code: i64) -> http::StatusCode {
    match code {
        -32601 => http::StatusCode::NOT_FOUND,
        -32022..=-32020 => http::StatusCode::BAD_REQUEST,
        _ => http::StatusCode::OK,
    }
}
