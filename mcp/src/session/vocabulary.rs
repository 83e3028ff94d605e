//! What goes into and comes out of a session: streams, events, outputs, refusals, bounds.

use bytes::Bytes;

use crate::failure::Kind;

/// Names a stream within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(super) u64);

impl StreamId {
    /// The standing stream that GET opens.
    pub const GET: Self = Self(0);
}

/// One connection's hold on a stream. A newer one ends it, so its late goodbye does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// The stream.
    pub stream: StreamId,
    /// Number of the stream's last event before this hold.
    pub(super) after: u64,
    pub(super) turn: u64,
}

impl Attachment {
    /// The id with which a client that has seen nothing of this hold resumes.
    #[must_use]
    pub fn event_id(&self) -> String {
        event_id(self.stream, self.after)
    }
}

/// One message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its number there, from 1.
    pub seq: u64,
    /// The JSON-RPC message.
    pub message: Bytes,
    /// Set where this answer was made in the server's stead.
    pub failure: Option<Kind>,
    /// Whether the stream ends with it.
    pub last: bool,
    /// The hold that it was sent to; none when nobody held the stream.
    pub(super) turn: Option<u64>,
}

impl Event {
    /// Whether it was sent to this hold of its stream. A newer one has it by replay, and must not get it twice.
    #[must_use]
    pub fn is_for(&self, attachment: &Attachment) -> bool {
        self.stream == attachment.stream && self.turn == Some(attachment.turn)
    }

    /// The id that a client sends back as `Last-Event-ID`.
    #[must_use]
    pub fn id(&self) -> String {
        event_id(self.stream, self.seq)
    }
}

fn event_id(stream: StreamId, seq: u64) -> String {
    format!("{}-{seq}", stream.0)
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this line to the server.
    ToServer(Bytes),
    /// Send this to the hold that it [is for](Event::is_for); if that is over by now, to nobody.
    Event(Event),
    /// End the connection that holds the stream; nothing more will come on it.
    Close(StreamId),
    /// End the session: it never opened, and whoever asked for that has been told as far as anyone was there.
    NeverOpened,
}

/// How a client's message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A request: its answer comes on this stream.
    Call(Attachment),
    /// A notification or an answer: nothing more will come of it.
    Done,
}

/// Why a client's message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request with this id is still in flight.
    #[error("a request with this id is still in flight; give every request of a session an id of its own")]
    DuplicateId,
    /// Too many calls in flight.
    #[error("too many calls of this session are in flight; wait for answers before asking more")]
    TooManyCalls,
}

/// The stream that is to be resumed is over, and its events are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of this Last-Event-ID is over and its events are no longer kept; open one without it")]
pub struct UnknownStream;

/// Bounds of one session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls in flight.
    pub calls: usize,
    /// The server's requests that wait for the client's answer.
    pub server_requests: usize,
    /// Messages that wait for a stream, and their bytes.
    pub queued: usize,
    /// Bytes of messages that wait for a stream.
    pub queued_bytes: usize,
    /// Events kept for replay.
    pub replay_events: usize,
    /// Bytes kept for replay.
    pub replay_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 256,
            server_requests: 64,
            queued: 64,
            queued_bytes: 256 * 1024,
            replay_events: 128,
            replay_bytes: 256 * 1024,
        }
    }
}

/// Reads what [`event_id`] wrote.
pub(super) fn parse_event_id(text: &str) -> Option<(StreamId, u64)> {
    let (stream, seq) = text.split_once('-')?;
    Some((StreamId(stream.parse().ok()?), seq.parse().ok()?))
}
