//! The messages of a run. Each carries the name of what it belongs to, so that one in the wrong hands is recognised.

use bytes::Bytes;
use serde_json::Value;

/// A client's call, by its session and its number there.
pub(crate) type CallId = u64;

pub(crate) fn initialize(session: &str) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"2025-11-25","session":"{session}"}}}}"#
    )
    .into()
}

pub(crate) fn call(session: &str, id: CallId) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"session":"{session}","_meta":{{"progressToken":{id}}}}}}}"#
    )
    .into()
}

pub(crate) fn answer(session: &str, id: CallId) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"session":"{session}"}}}}"#).into()
}

pub(crate) fn ask(session: &str, number: u64) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"sampling/createMessage","params":{{"session":"{session}"}}}}"#)
        .into()
}

pub(crate) fn progress(session: &str, call: CallId, step: u64) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{call},"progress":{step},"session":"{session}"}}}}"#
    )
    .into()
}

pub(crate) fn news(session: &str, number: u64) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"number":{number},"session":"{session}"}}}}"#
    )
    .into()
}

/// What a message of this module says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// `initialize` or a call.
    Call { session: String, id: CallId },
    /// The answer to a call; no session where the bridge made it in the server's stead.
    Answer { session: Option<String>, id: CallId },
    /// A request of the server.
    Ask { session: String, number: u64 },
    /// A notification that comes once: its text is its name.
    News { session: String, text: String },
    /// A call was given up.
    Cancelled,
}

/// Reads a message back.
pub(crate) fn read(message: &[u8]) -> Said {
    let value: Value = serde_json::from_slice(message).expect("a message of this run is JSON");
    let id = value["id"].as_u64();
    let session = |of: &Value| of["session"].as_str().map(str::to_owned);
    match (value["method"].as_str(), id) {
        (Some("notifications/cancelled"), _) => Said::Cancelled,
        (Some("sampling/createMessage"), Some(number)) => {
            Said::Ask { session: session(&value["params"]).expect("a session"), number }
        }
        (Some(_), Some(id)) => Said::Call { session: session(&value["params"]).expect("a session"), id },
        (Some(_), None) => {
            Said::News { session: session(&value["params"]).expect("a session"), text: value.to_string() }
        }
        (None, id) => Said::Answer { session: session(&value["result"]), id: id.expect("an answer names its request") },
    }
}
