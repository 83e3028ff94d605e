//! Messages of the server that wait until a client opens a stream, no more of them than the limits let in.

use std::collections::VecDeque;

use bytes::Bytes;

use super::key::IdKey;
use super::vocabulary::Limits;

/// A message for whoever opens a stream next.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Bytes,
    /// Of a request, what names it.
    pub(super) request: Option<IdKey>,
}

/// Those that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    /// Lets a message wait; gives it back when there is no room for it.
    pub(super) fn push(&mut self, waiting: Waiting, limits: &Limits) -> Result<(), Waiting> {
        let bytes = self.bytes + waiting.message.len();
        if self.messages.len() >= limits.queued || bytes > limits.queued_bytes {
            return Err(waiting);
        }
        self.bytes = bytes;
        // A copy, because the line may be a slice of a much larger buffer, and this may wait for long.
        let message = Bytes::copy_from_slice(&waiting.message);
        self.messages.push_back(Waiting { message, ..waiting });
        Ok(())
    }

    /// Drops the request `key`.
    pub(super) fn forget(&mut self, key: &IdKey) {
        self.messages.retain(|waiting| waiting.request.as_ref() != Some(key));
        self.count();
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> VecDeque<Waiting> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// Takes the requests and leaves the notifications.
    pub(super) fn take_requests(&mut self) -> VecDeque<Waiting> {
        let (requests, rest) = self.take().into_iter().partition(|waiting| waiting.request.is_some());
        self.messages = rest;
        self.count();
        requests
    }

    fn count(&mut self) {
        self.bytes = self.messages.iter().map(|waiting| waiting.message.len()).sum();
    }
}
