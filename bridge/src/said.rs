//! What a message that is posted says, and which answer belongs to it.

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message, scalar_param};
use portolan_mcp::modern::LISTEN;
use portolan_mcp::session::IdKey;

/// What the sender of a message waits for.
pub(crate) enum Said {
    Initialize(Id),
    Call(Id),
    Listen(Id),
    Cancelled(Option<IdKey>),
    Initialized,
    Other,
}

impl Said {
    /// What `message` says.
    pub(crate) fn of(message: &Bytes) -> Self {
        match Message::parse(message) {
            Ok(Message::Request(request)) if request.method == "initialize" => Self::Initialize(request.id),
            Ok(Message::Request(request)) if request.method == LISTEN => Self::Listen(request.id),
            Ok(Message::Request(request)) => Self::Call(request.id),
            Ok(Message::Notification { method, params }) => match &*method {
                "notifications/cancelled" => {
                    let id = params.and_then(|params| scalar_param(params, "requestId"));
                    Self::Cancelled(id.as_ref().map(IdKey::from))
                }
                "notifications/initialized" => Self::Initialized,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The request that waits for an answer.
    pub(crate) fn call(&self) -> Option<&Id> {
        match self {
            Self::Initialize(id) | Self::Call(id) | Self::Listen(id) => Some(id),
            Self::Cancelled(_) | Self::Initialized | Self::Other => None,
        }
    }
}

/// `body` where it answers request `call`; an error without an id is about the one request that was posted.
pub(crate) fn answer_to(call: Option<&Id>, body: &Bytes) -> Option<Bytes> {
    let call = call?;
    match Message::parse(body) {
        Ok(Message::Response { id: Some(id), .. }) if IdKey::from(&id) == IdKey::from(call) => Some(body.clone()),
        Ok(Message::Response { id: None, is_error: true, payload }) => {
            Some(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{}}}"#, call.as_json(), payload.get()).into())
        }
        _ => None,
    }
}
