//! The messages of a run. Each carries the canary of its client, so that one in the wrong hands is recognised.

use bytes::Bytes;
use portolan_mcp::{aggregate::Member, modern::meta};
use serde_json::{Value, json};

use crate::cluster::NAMESPACE;

/// The revision of sessions.
const LEGACY: &str = "2025-11-25";
/// The revision without.
const MODERN: &str = "2026-07-28";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    Result,
    Error,
}

/// A message as it was read.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) kind: Kind,
    /// The id as JSON text; empty for a notification.
    pub(crate) id: String,
    /// Empty for an answer.
    pub(crate) method: String,
    /// Parameters, result or error.
    pub(crate) body: Value,
}

/// Reads a message back.
pub(crate) fn read(message: &[u8]) -> Said {
    let mut value: Value = serde_json::from_slice(message).expect("a message of this run is JSON");
    let method = value["method"].as_str().unwrap_or_default().to_owned();
    let id = value.get("id").map(Value::to_string).unwrap_or_default();
    let (kind, member) = match (method.is_empty(), id.is_empty()) {
        (false, false) => (Kind::Request, "params"),
        (false, true) => (Kind::Notification, "params"),
        _ if value.get("error").is_some() => (Kind::Error, "error"),
        _ => (Kind::Result, "result"),
    };
    Said { kind, id, method, body: value[member].take() }
}

/// What begins and ends a canary.
const MARK: char = '~';

/// The canary of a client's session, or of a client without.
pub(crate) fn canary(name: &str) -> String {
    format!("{MARK}{name}{MARK}")
}

/// Fails if anything in `message` is someone else's than `name`'s.
pub(crate) fn assert_is_of(name: &str, message: &[u8], where_it_is: &str) {
    let text = String::from_utf8_lossy(message);
    for found in text.split(MARK).skip(1).step_by(2) {
        assert_eq!(found, name, "{where_it_is} of {name}: {text}");
    }
}

pub(crate) fn request(id: impl std::fmt::Display, method: &str, params: &Value) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}

pub(crate) fn notification(method: &str, params: &Value) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into()
}

pub(crate) fn result(id: &str, result: &Value) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

pub(crate) fn error(id: &str, message: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"{message}"}}}}"#).into()
}

pub(crate) fn initialize(session: &str) -> Bytes {
    let params = json!({
        "protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "client", "version": "1"},
        "canary": canary(session),
    });
    request(0, "initialize", &params)
}

/// The name of a client's session with all servers; other sessions and clients have others.
pub(crate) fn session_with_all(client: usize, number: u64) -> String {
    format!("all{client}s{number}")
}

/// Whether that is the name of a session with all servers.
pub(crate) fn is_of_all(name: &str) -> bool {
    name.starts_with("all")
}

/// A call of a session. Every session has the same ids and tokens.
pub(crate) fn call(session: &str, id: u64) -> Bytes {
    let params = json!({"name": "tool", "canary": canary(session), "call": id, "_meta": {"progressToken": id}});
    request(id, "tools/call", &params)
}

/// The same in a session with all servers, of a tool of `server`.
pub(crate) fn call_at(server: &str, session: &str, id: u64) -> Bytes {
    let params =
        json!({"name": server_tool(server), "canary": canary(session), "call": id, "_meta": {"progressToken": id}});
    request(id, "tools/call", &params)
}

/// The name of its tool where all servers are one.
pub(crate) fn server_tool(server: &str) -> String {
    Member { namespace: NAMESPACE, server }.name("tool")
}

/// What a request without a session says of its client, which may be one of two programs of the same user.
pub(crate) fn introduction(other: bool, token: u64) -> Value {
    json!({
        (meta::PROTOCOL_VERSION): MODERN,
        (meta::CLIENT_INFO): {"name": if other { "other" } else { "client" }, "version": "1"},
        (meta::CLIENT_CAPABILITIES): {"elicitation": {}},
        (meta::LOG_LEVEL): "info",
        "progressToken": token,
    })
}

/// Whether `of_request` says what every request of that revision must.
pub(crate) fn is_introduced(of_request: &Value) -> bool {
    of_request[meta::PROTOCOL_VERSION] == MODERN && of_request[meta::CLIENT_CAPABILITIES].is_object()
}

/// A question to a client, and its answer.
pub(crate) fn question(owner: &str, call: u64, number: u64) -> Value {
    json!({"message": "?", "canary": canary(owner), "call": call, "number": number})
}

pub(crate) fn answer(owner: &str, number: u64) -> Value {
    json!({"action": "accept", "canary": canary(owner), "number": number})
}
