//! What came of one or many runs, counted.

/// Something that a run may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A session that a client asked for.
    Session,
    /// A call that was answered, by the server or in its stead.
    Answered,
    /// A call whose client knows that nobody will answer.
    Lost,
    /// A stream that was resumed.
    Resumed,
    /// A question of a server that reached its client.
    Question,
    /// A call that its client took back.
    Cancelled,
    /// A call that waited too long.
    TimedOut,
    /// A call that waits for its client to come back.
    Parked,
    /// A parked call that was found again through another replica.
    Found,
    /// A parked call whose client came back too late.
    Stale,
    /// A parked call whose client did not come back.
    Expired,
    /// A name of a session or of a parked call in the wrong hands.
    Theft,
    /// A further round of a call at a server without sessions.
    Round,
    /// A stream of notifications that was acknowledged.
    Listening,
    /// A change that a client heard of.
    Change,
    /// A request that the server's transport did not take, or lost.
    NotTaken,
    /// A request that came to a bound.
    Overloaded,
    /// A pod that ended with something under way on it.
    Killed,
    /// A server process that ended with something under way.
    Exited,
    /// A request that met another pod at the address it was sent to.
    Stranger,
    /// A part of a session with all servers that was opened.
    Opened,
    /// A parked call of one server that was brought to another.
    Elsewhere,
}

/// Every one of them.
const ALL: [Seen; 22] = [
    Seen::Session,
    Seen::Answered,
    Seen::Lost,
    Seen::Resumed,
    Seen::Question,
    Seen::Cancelled,
    Seen::TimedOut,
    Seen::Parked,
    Seen::Found,
    Seen::Stale,
    Seen::Expired,
    Seen::Theft,
    Seen::Round,
    Seen::Listening,
    Seen::Change,
    Seen::NotTaken,
    Seen::Overloaded,
    Seen::Killed,
    Seen::Exited,
    Seen::Stranger,
    Seen::Opened,
    Seen::Elsewhere,
];

/// How often each was seen.
#[derive(Clone, Copy, Default)]
pub struct Tally([u64; ALL.len()]);

impl Tally {
    pub(crate) fn count(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    /// What was not seen at all.
    #[must_use]
    pub fn missing(&self) -> Vec<Seen> {
        ALL.into_iter().filter(|seen| self.0[*seen as usize] == 0).collect()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(ALL.into_iter().map(|seen| (seen, self.0[seen as usize]))).finish()
    }
}
