//! Who finishes what opens a session, and what waits for that.

use bytes::Bytes;

use super::key::IdKey;
use super::vocabulary::{Limits, Output};

/// What a client says when a session is open.
pub const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The state of what opens a session.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// What came before the session was open, which is opened in its client's stead; nothing waits in any other.
    early: Option<Vec<Early>>,
}

/// A message that waits.
#[derive(Debug)]
struct Early {
    /// Of a request, what names it.
    key: Option<IdKey>,
    line: Bytes,
}

/// What becomes of a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It waits until the session is open.
    Waits,
    /// It may go to the server.
    Passes(Bytes),
    /// Too much waits.
    Dropped,
}

impl Handshake {
    /// One that is finished here.
    pub(super) fn in_stead() -> Self {
        Self { early: Some(Vec::new()) }
    }

    /// Whether no more may wait.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let bytes = |early: &Vec<Early>| early.iter().map(|early| early.line.len()).sum::<usize>();
        self.early.as_ref().is_some_and(|early| early.len() >= limits.queued || bytes(early) >= limits.queued_bytes)
    }

    /// Lets `line` wait, if anything has to; of a request it is known as `key`.
    pub(super) fn hold(&mut self, line: Bytes, key: Option<&IdKey>, limits: &Limits) -> Held {
        let is_full = self.is_full(limits);
        match &mut self.early {
            None => Held::Passes(line),
            Some(_) if is_full => Held::Dropped,
            Some(early) => {
                early.push(Early { key: key.cloned(), line });
                Held::Waits
            }
        }
    }

    /// Drops the request `key`, if it waits: nobody wants its answer any more, and the server has not heard of it.
    pub(super) fn forget(&mut self, key: &IdKey) -> bool {
        let Some(early) = &mut self.early else { return false };
        let before = early.len();
        early.retain(|early| early.key.as_ref() != Some(key));
        early.len() < before
    }

    /// The server has answered `initialize`: the session is open.
    pub(super) fn answered(&mut self, out: &mut Vec<Output>) {
        let Some(early) = self.early.take() else { return };
        out.push(Output::ToServer(Bytes::from_static(INITIALIZED)));
        out.extend(early.into_iter().map(|early| Output::ToServer(early.line)));
    }
}
