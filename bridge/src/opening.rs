//! Whether the answer to `initialize` opened the session that was made for it.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use portolan_mcp::envelope::Message;
use portolan_mcp::sse::Decoder;
use portolan_mcp::token::SessionKey;

use crate::awaited::{EVENTS, is};
use crate::relay::{Relay, Session};

/// An answer that is longer is a result: an error that explains itself takes less.
const MAX_ERROR: usize = 64 * 1024;

/// A session whose `initialize` is under way. Unless that was answered with a result, the session goes with it: when the
/// client hangs up, the server says no, or nothing comes.
#[derive(Debug)]
pub(crate) struct Opening {
    relay: Arc<Relay>,
    key: SessionKey,
    session: Arc<Session>,
    answer: Answer,
}

/// What is known of the answer.
#[derive(Debug)]
enum Answer {
    /// Nothing yet.
    Awaited,
    /// The beginning of one message.
    Message(Vec<u8>),
    /// Events without an answer among them.
    Events(Decoder),
    /// An error.
    No,
    /// A result.
    Yes,
}

impl Opening {
    pub(crate) fn new(relay: &Arc<Relay>, key: &SessionKey, session: &Arc<Session>) -> Self {
        Self { relay: Arc::clone(relay), key: key.clone(), session: Arc::clone(session), answer: Answer::Awaited }
    }

    /// Its answer comes as the body of `response`.
    pub(crate) fn answered_by<B>(mut self, response: &Response<B>) -> Self {
        self.answer = if !response.status().is_success() {
            Answer::No
        } else if is(response, EVENTS) {
            Answer::Events(Decoder::new(MAX_ERROR))
        } else {
            Answer::Message(Vec::new())
        };
        self
    }

    /// `data` of the answer is on its way to the client.
    pub(crate) fn pass(&mut self, data: &Bytes) {
        let answer = match &mut self.answer {
            Answer::Message(begun) if begun.len() + data.len() > MAX_ERROR => Some(Answer::Yes),
            Answer::Message(begun) => {
                begun.extend_from_slice(data);
                None
            }
            Answer::Events(events) => match events.push(data) {
                Ok(messages) => messages.iter().find_map(|message| judge(message)),
                Err(_too_long) => Some(Answer::Yes),
            },
            Answer::Awaited | Answer::No | Answer::Yes => None,
        };
        if let Some(answer) = answer {
            self.answer = answer;
        }
    }

    /// The answer is complete.
    pub(crate) fn end(&mut self) {
        if let Answer::Message(message) = &self.answer {
            self.answer = judge(message).unwrap_or(Answer::No);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !matches!(self.answer, Answer::Yes) {
            self.relay.never_opened(&self.key, &self.session);
        }
    }
}

/// What `message` decides; nothing where it is no answer.
fn judge(message: &[u8]) -> Option<Answer> {
    match Message::parse(message) {
        Ok(Message::Response { is_error: true, .. }) => Some(Answer::No),
        Ok(Message::Response { .. }) => Some(Answer::Yes),
        _ => None,
    }
}
