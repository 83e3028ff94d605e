//! What the server asked its client, and on which stream.

use std::collections::{HashMap, VecDeque};

use super::key::IdKey;
use super::vocabulary::StreamId;

/// Requests that may still be answered although the call is over on whose stream they were sent; more are forgotten, oldest
/// first.
const MAX_OVERTAKEN: usize = 64;

/// Requests of the server that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Each with the stream that it was sent on, if any was open.
    open: HashMap<IdKey, Option<StreamId>>,
    /// What was asked on the streams of calls that are over by now. It does not count any more.
    overtaken: VecDeque<IdKey>,
}

impl Asked {
    /// How many count against the bound.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn contains(&self, key: &IdKey) -> bool {
        self.open.contains_key(key)
    }

    /// Notes a request, or on which stream one was sent.
    pub(super) fn insert(&mut self, key: IdKey, stream: Option<StreamId>) {
        self.forget_overtaken(&key);
        self.open.insert(key, stream);
    }

    /// Takes one out that counts; gives the stream that it was sent on, if it was sent.
    pub(super) fn remove(&mut self, key: &IdKey) -> Option<Option<StreamId>> {
        self.open.remove(key)
    }

    /// Takes one out for which the client has an answer; says whether it was sent and is not answered yet.
    pub(super) fn answered(&mut self, key: &IdKey) -> bool {
        match self.open.get(key) {
            Some(stream) => stream.is_some() && self.open.remove(key).is_some(),
            None => self.forget_overtaken(key),
        }
    }

    /// The call on `stream` is over. A server does not say for which call it asks, so it may still wait for what it asked
    /// there; that must not count against what it asks later.
    pub(super) fn overtake(&mut self, stream: StreamId) {
        let mut overtaken: Vec<IdKey> =
            self.open.extract_if(|_, carrier| *carrier == Some(stream)).map(|(key, _)| key).collect();
        overtaken.sort_unstable();
        self.overtaken.extend(overtaken);
        self.overtaken.drain(..self.overtaken.len().saturating_sub(MAX_OVERTAKEN));
    }

    /// Says whether it was among those that do not count.
    pub(super) fn forget_overtaken(&mut self, key: &IdKey) -> bool {
        let position = self.overtaken.iter().position(|overtaken| overtaken == key);
        position.is_some_and(|position| self.overtaken.remove(position).is_some())
    }
}
