//! Answers to what the bridge itself asks a server.

use bytes::Bytes;
use portolan_mcp::envelope::Message;
use portolan_mcp::wire::ProbeReason;
use serde_json::Value;

use crate::kept::Over;
use crate::stderr::shorten;

/// What is quoted of what a server said.
const MAX_QUOTE: usize = 200;

/// A JSON-RPC answer.
#[derive(Debug)]
pub(crate) enum Rpc {
    Result(Value),
    Error { code: i64, message: String },
}

impl Rpc {
    pub(crate) fn parse(answer: &Bytes) -> Result<Self, CallError> {
        let Ok(Message::Response { is_error, payload, .. }) = Message::parse(answer) else {
            return Err(CallError::NotMcp(quote(&String::from_utf8_lossy(answer))));
        };
        let payload: Value = serde_json::from_str(payload.get()).map_err(|e| CallError::NotMcp(e.to_string()))?;
        if !is_error {
            return Ok(Self::Result(payload));
        }
        let code = payload.get("code").and_then(Value::as_i64).unwrap_or_default();
        let message = payload.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self::Error { code, message })
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum CallError {
    TimedOut,
    Over(Over),
    Unreachable(ProbeReason, String),
    /// An HTTP server no longer knows the session.
    SessionGone,
    NotMcp(String),
}

/// As much of what a server said as is told.
pub(crate) fn quote(text: &str) -> String {
    shorten(text, MAX_QUOTE).to_owned()
}
