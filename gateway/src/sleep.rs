//! Who calls a server that has no pods while nobody does: the operator starts one when somebody waits, and ends the last when
//! nobody has called for long enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use portolan_snapshot::report::Callers;

/// The callers of one server at this replica.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    begun: AtomicU64,
    /// One more for each call until it has ended.
    under_way: Arc<()>,
    held: AtomicUsize,
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(#[expect(dead_code, reason = "held for its count")] Arc<()>);

/// A request that waits for a pod until this is dropped.
pub(crate) struct Held<'a> {
    sleeper: &'a Sleeper,
    /// Whether no other did when it came.
    pub(crate) is_first: bool,
}

impl Sleeper {
    /// A call begins.
    pub(crate) fn begin(&self) -> UnderWay {
        self.begun.fetch_add(1, Relaxed);
        UnderWay(self.under_way.clone())
    }

    /// A request waits for a pod; `None` where `most` do already.
    pub(crate) fn hold(&self, most: usize) -> Option<Held<'_>> {
        let room = |held: usize| (held < most).then_some(held + 1);
        let before = self.held.fetch_update(Relaxed, Relaxed, room).ok()?;
        self.begun.fetch_add(1, Relaxed);
        Some(Held { sleeper: self, is_first: before == 0 })
    }

    /// What the operator is told.
    pub(crate) fn report(&self) -> Callers {
        let under_way = Arc::strong_count(&self.under_way) - 1 + self.held.load(Relaxed);
        Callers { begun: self.begun.load(Relaxed), under_way: u32::try_from(under_way).unwrap_or(u32::MAX) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.sleeper.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_until_they_end_and_no_more_wait_than_may() {
        let sleeper = Sleeper::default();
        let call = sleeper.begin();
        let held = sleeper.hold(1);
        assert!(held.is_some() && sleeper.hold(1).is_none());
        assert_eq!(sleeper.report(), Callers { begun: 2, under_way: 2 });
        drop((call, held));
        assert_eq!(sleeper.report(), Callers { begun: 2, under_way: 0 });
        assert!(sleeper.hold(1).is_some(), "there is room again");
    }
}
