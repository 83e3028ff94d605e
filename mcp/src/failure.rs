//! Failures: what went wrong, whose fault it is, whether asking again may help, and how that is said.
//!
//! One place turns a failure into HTTP and JSON-RPC. A refused message gets an HTTP status; a call that was accepted
//! and then failed is answered inside the protocol, a tool call as a result that a model can act on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::envelope::{EnvelopeError, Id};

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The request.
    Client,
    /// The caller's rights.
    Policy,
    /// Portolan itself.
    Gateway,
    /// The MCP server.
    Upstream,
}

/// What went wrong. The names are metric labels and the `error_type` of a failed tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The body is not JSON, or not the same JSON to everyone.
    Malformed,
    /// The body is JSON, and not one JSON-RPC message that may be sent now.
    InvalidRequest,
    /// The body is over the cap.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// `Content-Type` is not `application/json`, or the body is encoded.
    UnsupportedMediaType,
    /// `Accept` leaves no way to answer.
    NotAcceptable,
    /// No credential, or one that is not accepted.
    Unauthenticated,
    /// The authenticator could not be asked.
    AuthenticatorUnavailable,
    /// `Host` is not one of this gateway's.
    HostNotAllowed,
    /// `Origin` is not allowed.
    OriginNotAllowed,
    /// No such endpoint, or none that this caller may see.
    UnknownRoute,
    /// The method is not allowed on this endpoint.
    MethodNotAllowed,
    /// No session id where one is needed.
    MissingSession,
    /// The session does not exist, ended, or is someone else's.
    UnknownSession,
    /// The revision that is named is not served.
    UnsupportedVersion,
    /// Headers do not say what the body says (2026-07-28, "Server Validation").
    HeaderMismatch,
    /// `params` lacks what every request of its kind must have.
    InvalidParams,
    /// The method is not one of the revision that is named.
    UnknownMethod,
    /// No pod of the server is ready.
    NotReady,
    /// A bound on calls or sessions is reached.
    Overloaded,
    /// The replica is going away.
    Draining,
    /// The bridge could not be reached.
    ServerUnreachable,
    /// The server's process ended during the call.
    ServerExited,
    /// The session was ended to save the others: memory.
    MemoryPressure,
    /// The server did not answer in time.
    RequestTimeout,
    /// The client took the request back.
    Cancelled,
    /// What the server answered is not MCP or is over the cap.
    BadServerReply,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// The kind's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::InvalidRequest => "InvalidRequest",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyTimeout => "BodyTimeout",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::NotAcceptable => "NotAcceptable",
            Self::Unauthenticated => "Unauthenticated",
            Self::AuthenticatorUnavailable => "AuthenticatorUnavailable",
            Self::HostNotAllowed => "HostNotAllowed",
            Self::OriginNotAllowed => "OriginNotAllowed",
            Self::UnknownRoute => "UnknownRoute",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::MissingSession => "MissingSession",
            Self::UnknownSession => "UnknownSession",
            Self::UnsupportedVersion => "UnsupportedVersion",
            Self::HeaderMismatch => "HeaderMismatch",
            Self::InvalidParams => "InvalidParams",
            Self::UnknownMethod => "UnknownMethod",
            Self::NotReady => "NotReady",
            Self::Overloaded => "Overloaded",
            Self::Draining => "Draining",
            Self::ServerUnreachable => "ServerUnreachable",
            Self::ServerExited => "ServerExited",
            Self::MemoryPressure => "MemoryPressure",
            Self::RequestTimeout => "RequestTimeout",
            Self::Cancelled => "Cancelled",
            Self::BadServerReply => "BadServerReply",
            Self::Internal => "Internal",
        }
    }

    /// Reads a name back, as the bridge's response header carries it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(name)).ok()
    }

    /// Whose fault it is.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::Malformed
            | Self::InvalidRequest
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::UnsupportedMediaType
            | Self::NotAcceptable
            | Self::UnknownRoute
            | Self::MethodNotAllowed
            | Self::MissingSession
            | Self::UnknownSession
            | Self::UnsupportedVersion
            | Self::HeaderMismatch
            | Self::InvalidParams
            | Self::UnknownMethod
            | Self::Cancelled => Source::Client,
            Self::Unauthenticated | Self::HostNotAllowed | Self::OriginNotAllowed => Source::Policy,
            Self::AuthenticatorUnavailable | Self::Overloaded | Self::Draining | Self::Internal => Source::Gateway,
            Self::NotReady
            | Self::ServerUnreachable
            | Self::ServerExited
            | Self::MemoryPressure
            | Self::RequestTimeout
            | Self::BadServerReply => Source::Upstream,
        }
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::AuthenticatorUnavailable
                | Self::BodyTimeout
                | Self::NotReady
                | Self::Overloaded
                | Self::Draining
                | Self::ServerUnreachable
                | Self::ServerExited
                | Self::MemoryPressure
                | Self::RequestTimeout
        )
    }

    /// Whether the call had been accepted: then the answer is a JSON-RPC one under HTTP 200.
    #[must_use]
    pub fn is_in_protocol(self) -> bool {
        matches!(
            self,
            Self::ServerUnreachable
                | Self::ServerExited
                | Self::MemoryPressure
                | Self::RequestTimeout
                | Self::Cancelled
                | Self::BadServerReply
        )
    }

    /// The HTTP status (2025-11-25, "Streamable HTTP").
    #[must_use]
    pub fn status(self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Self::Malformed
            | Self::InvalidRequest
            | Self::MissingSession
            | Self::UnsupportedVersion
            | Self::HeaderMismatch
            | Self::InvalidParams => S::BAD_REQUEST,
            Self::BodyTooLarge => S::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => S::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => S::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => S::NOT_ACCEPTABLE,
            Self::Unauthenticated => S::UNAUTHORIZED,
            Self::OriginNotAllowed => S::FORBIDDEN,
            Self::HostNotAllowed => S::MISDIRECTED_REQUEST,
            Self::UnknownRoute | Self::UnknownSession | Self::UnknownMethod => S::NOT_FOUND,
            Self::MethodNotAllowed => S::METHOD_NOT_ALLOWED,
            Self::AuthenticatorUnavailable | Self::NotReady | Self::Overloaded | Self::Draining => {
                S::SERVICE_UNAVAILABLE
            }
            Self::Internal => S::INTERNAL_SERVER_ERROR,
            _ if self.is_in_protocol() => S::OK,
            _ => S::INTERNAL_SERVER_ERROR,
        }
    }

    /// The JSON-RPC code: the standard ones and those of MCP (-32020…-32099) where they fit, else one of -32000…-32019.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Malformed => -32700,
            Self::InvalidRequest
            | Self::BodyTooLarge
            | Self::UnsupportedMediaType
            | Self::NotAcceptable
            | Self::BodyTimeout => -32600,
            Self::Internal => -32603,
            Self::UnknownSession => -32001,
            Self::Unauthenticated | Self::HostNotAllowed | Self::OriginNotAllowed => -32002,
            Self::UnknownRoute | Self::MethodNotAllowed => -32003,
            Self::NotReady | Self::Overloaded | Self::Draining | Self::AuthenticatorUnavailable => -32004,
            Self::ServerUnreachable | Self::ServerExited | Self::MemoryPressure => -32005,
            Self::RequestTimeout => -32006,
            Self::BadServerReply => -32007,
            Self::Cancelled => -32008,
            Self::MissingSession => -32000,
            Self::HeaderMismatch => -32020,
            Self::UnsupportedVersion => -32022,
            Self::UnknownMethod => -32601,
            Self::InvalidParams => -32602,
        }
    }
}

/// A failure with the words for its reader.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub kind: Kind,
    /// What to tell the caller: what happened and what to do.
    pub message: String,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
    /// What a program reads of it besides, as members of `error.data`.
    details: Vec<(&'static str, serde_json::Value)>,
}

impl Failure {
    /// A failure without a time to come back at.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, details: Vec::new() }
    }

    /// The same failure, with a member of `error.data` that the protocol asks for.
    #[must_use]
    pub fn detail(mut self, member: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.details.push((member, value.into()));
        self
    }

    /// The same failure, with a time to come back at.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The `Retry-After` header's value: whole seconds, at least one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
    }

    /// The JSON-RPC answer to request `id` of `method`: for an accepted tool call a result that a model can read
    /// (SEP-1303: tool failures are results), else an error.
    #[must_use]
    pub fn answer(&self, id: Option<&Id>, method: Option<&str>) -> Vec<u8> {
        let id = id.map_or("null", Id::as_json);
        let (member, payload) = if self.kind.is_in_protocol() && method == Some("tools/call") {
            ("result", self.as_tool_result())
        } else {
            ("error", json!({"code": self.kind.code(), "message": self.message, "data": self.details()}))
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{payload}}}"#).into_bytes()
    }

    fn as_tool_result(&self) -> serde_json::Value {
        let details = self.details();
        json!({
            "content": [{"type": "text", "text": details.to_string()}],
            "structuredContent": details,
            "isError": true,
        })
    }

    fn details(&self) -> serde_json::Value {
        let mut details = json!({
            "error": self.message,
            "error_type": self.kind.as_str(),
            "retryable": self.kind.is_retryable(),
            "retry_after_seconds": self.retry_after_seconds(),
        });
        for (member, value) in &self.details {
            details[*member] = value.clone();
        }
        details
    }
}

impl From<EnvelopeError> for Failure {
    fn from(error: EnvelopeError) -> Self {
        let kind = match error {
            EnvelopeError::NotJson(_) => Kind::Malformed,
            EnvelopeError::Batch | EnvelopeError::NotJsonRpc(_) => Kind::InvalidRequest,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_call_that_failed_after_it_was_accepted_is_a_result_that_a_model_can_read() {
        let failure = Failure::new(Kind::ServerExited, "the server ended").retry_after(Duration::from_millis(1500));
        let answer: serde_json::Value =
            serde_json::from_slice(&failure.answer(Some(&Id::string("a\"b")), Some("tools/call"))).expect("JSON");
        assert_eq!(answer["id"], "a\"b");
        assert_eq!(answer["result"]["isError"], true);
        assert_eq!(answer["result"]["structuredContent"]["error_type"], "ServerExited");
        assert_eq!(answer["result"]["structuredContent"]["retryable"], true);
        assert_eq!(answer["result"]["structuredContent"]["retry_after_seconds"], 2);
    }

    #[test]
    fn what_was_refused_is_an_error_with_a_null_id_where_none_was_read() {
        let failure = Failure::new(Kind::Malformed, "x");
        let answer: serde_json::Value = serde_json::from_slice(&failure.answer(None, None)).expect("JSON");
        assert_eq!(answer["id"], serde_json::Value::Null);
        assert_eq!(answer["error"]["code"], -32700);
    }

    #[test]
    fn a_kind_is_read_back_from_its_name() {
        for kind in [Kind::NotReady, Kind::ServerExited, Kind::Malformed] {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::parse("Nonsense"), None);
    }
}
