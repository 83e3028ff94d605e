//! Whether what a server sends answers the request that was asked.

use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::session::IdKey;
use portolan_mcp::sse::Decoder;

/// What is looked at of one message. A longer one is a result: an error that explains itself takes less.
pub(crate) const MAX_LOOKED_AT: usize = 64 * 1024;

/// What an answer was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// None so far.
    Nothing,
    /// An error.
    Error,
    /// A result.
    Result,
}

impl Seen {
    /// What `message` is to request `id`. An error without an id is about the one request that was posted.
    pub(crate) fn of(id: &Id, message: &[u8]) -> Self {
        match Message::parse(message) {
            Ok(Message::Response { id: Some(found), is_error, .. }) if is_same(&found, id) => {
                if is_error {
                    Self::Error
                } else {
                    Self::Result
                }
            }
            Ok(Message::Response { id: None, is_error: true, .. }) => Self::Error,
            _ => Self::Nothing,
        }
    }
}

/// Most servers answer with an id as it was written: what it means is looked at only where it was not.
fn is_same(one: &Id, other: &Id) -> bool {
    one == other || IdKey::from(one) == IdKey::from(other)
}

/// Looks at the events that pass by until one of them answers request `id`.
#[derive(Debug)]
pub(crate) struct Watch {
    id: Id,
    events: Decoder,
    seen: Seen,
}

impl Watch {
    pub(crate) fn new(id: Id) -> Self {
        Self { id, events: Decoder::new(MAX_LOOKED_AT), seen: Seen::Nothing }
    }

    /// These bytes passed.
    pub(crate) fn pass(&mut self, data: &[u8]) {
        if self.seen != Seen::Nothing {
            return;
        }
        self.seen = match self.events.push(data) {
            Ok(messages) => {
                let mut seen = messages.iter().map(|message| Seen::of(&self.id, message));
                seen.find(|seen| *seen != Seen::Nothing).unwrap_or(Seen::Nothing)
            }
            Err(_too_long) => Seen::Result,
        };
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether the client can ask for the rest, should the stream end now.
    pub(crate) fn is_resumable(&self) -> bool {
        self.events.last_id().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_a_request_names_it_or_is_an_error_about_whatever_was_posted() {
        let of = |message: &str| Seen::of(&Id::number(7), message.as_bytes());
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), Seen::Result);
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#), Seen::Error);
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#), Seen::Error);
        for other in [
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#,
            "[]",
            "this is no JSON",
            "",
        ] {
            assert_eq!(of(other), Seen::Nothing, "{other}");
        }
    }

    #[test]
    fn events_are_looked_at_until_the_answer_however_they_are_cut() {
        let stream = b"id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
        let mut watch = Watch::new(Id::number(7));
        for (at, byte) in stream.iter().enumerate() {
            assert_eq!(watch.seen(), Seen::Nothing, "at {at}");
            watch.pass(&[*byte]);
        }
        assert_eq!((watch.seen(), watch.is_resumable()), (Seen::Result, true));
    }
}
