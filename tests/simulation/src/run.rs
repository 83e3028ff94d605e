//! What every part of a run shares: its luck, what it has seen, and what may happen only once.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::tally::{Seen, Tally};

/// The shared part.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rng: Rng,
    pub(crate) tally: Tally,
    /// Whether things break: later everything has to come to its end.
    pub(crate) chaos: bool,
    /// Names that clients were given, with their owners: what others try.
    pub(crate) names: Vec<Named>,
    happened: BTreeSet<String>,
}

/// A name that opens something for its owner only.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) owner: usize,
    /// The server that it is for; all of them without one.
    pub(crate) server: Option<usize>,
    pub(crate) name: Name,
}

/// Of what it is the name.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Session(String),
    /// Of a call of `tool` that waits for its client.
    Parked {
        state: String,
        tool: String,
    },
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, tally: Tally::default(), chaos: true, names: Vec::new(), happened: BTreeSet::new() }
    }

    pub(crate) fn saw(&mut self, seen: Seen) {
        self.tally.count(seen);
    }

    /// Notes what may happen once.
    pub(crate) fn once(&mut self, what: String) {
        assert!(!self.happened.contains(&what), "this happened before: {what}");
        self.happened.insert(what);
    }

    /// Whether something that happens once in `times` happens now.
    pub(crate) fn chance(&mut self, times: u32) -> bool {
        self.rng.u32(0..times) == 0
    }

    /// Whether something goes wrong that goes wrong once in `times`, while things do.
    pub(crate) fn mishap(&mut self, times: u32) -> bool {
        self.chaos && self.chance(times)
    }
}
