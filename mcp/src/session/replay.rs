//! What a client may still ask for again after its connection broke: a bounded ring of sent events.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Event, StreamId};
use crate::{
    envelope::Id,
    failure::{Failure, Kind},
};

/// What a client is told that comes back for an answer that was not kept.
const LOST: &str = "the answer went with the connection that broke, and is too large to be kept; ask again";

/// The newest events of a session, bounded by count and bytes.
#[derive(Debug)]
pub(super) struct Replay {
    events: VecDeque<Event>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Replay {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, max_events, max_bytes }
    }

    /// Keeps `event`, forgetting the oldest for it; one larger than the whole ring is not kept.
    pub(super) fn push(&mut self, event: &Event) {
        if event.message.len() > self.max_bytes || self.max_events == 0 {
            return;
        }
        self.bytes += event.message.len();
        self.events.push_back(Event { message: Bytes::copy_from_slice(&event.message), ..event.clone() });
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.message.len();
        }
    }

    /// Keeps the answer to a call. In the place of one larger than the whole ring stays that it is lost, so that whoever
    /// comes back for it is told.
    pub(super) fn push_answer(&mut self, event: &Event, id: &Id, method: &str) {
        if event.message.len() <= self.max_bytes {
            return self.push(event);
        }
        let lost = Failure::new(Kind::ServerUnreachable, LOST);
        self.push(&Event {
            message: lost.answer(Some(id), Some(method)).into(),
            failure: Some(lost.kind),
            ..event.clone()
        });
    }

    /// The events of `stream` after `seq`, oldest first.
    pub(super) fn after(&self, stream: StreamId, seq: u64) -> Vec<Event> {
        self.events.iter().filter(|event| event.stream == stream && event.seq > seq).cloned().collect()
    }

    /// Whether anything of `stream` is still here.
    pub(super) fn knows(&self, stream: StreamId) -> bool {
        self.events.iter().any(|event| event.stream == stream)
    }
}
