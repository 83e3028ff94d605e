//! Whose turn it is to roll when another release of this program would have every server roll at once: a few at a time, so that one that
//! does not work does so at those.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    metrics::Metrics,
    requeue::{Key, Requeue},
};

/// The turns there are.
#[derive(Debug)]
pub struct Turns {
    most: usize,
    state: Mutex<State>,
    servers: Requeue,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    taken: BTreeSet<Key>,
    waiting: BTreeSet<Key>,
}

impl Turns {
    /// Nobody has one of `most` yet. `servers` wakes those who wait.
    #[must_use]
    pub fn new(most: usize, servers: Requeue, metrics: Metrics) -> Self {
        Self { most, state: Mutex::default(), servers, metrics }
    }

    /// Whether it is the server's turn, which it has until it [leaves](Self::leave). One that `has_begun` has it whoever else does: an
    /// operator that began anew goes on with what the one before it had begun.
    pub fn take(&self, server: &Key, has_begun: bool) -> bool {
        let mut state = self.lock();
        let has_it = state.taken.contains(server) || has_begun || state.taken.len() < self.most;
        if has_it {
            state.waiting.remove(server);
            state.taken.insert(server.clone());
        } else {
            state.waiting.insert(server.clone());
        }
        self.tell(&state);
        has_it
    }

    /// The server needs no turn, or none any more. Those who wait are woken as far as there is room.
    pub fn leave(&self, server: &Key) {
        let mut state = self.lock();
        if !state.taken.remove(server) & !state.waiting.remove(server) {
            return;
        }
        for (namespace, name) in state.waiting.iter().take(self.most.saturating_sub(state.taken.len())) {
            self.servers.wake(namespace, name);
        }
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        self.metrics.turns(state.taken.len(), state.waiting.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn server(name: &str) -> Key {
        ("tools".into(), name.into())
    }

    #[test]
    fn so_many_have_a_turn_and_those_who_wait_are_woken_one_by_one() {
        let (wakes, metrics) = (Requeue::default(), Metrics::new().unwrap());
        let turns = Turns::new(2, wakes.clone(), metrics.clone());
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(server);
        assert!(turns.take(&a, false) && turns.take(&b, false) && turns.take(&a, false));
        assert!(!turns.take(&c, false) && !turns.take(&d, false));
        assert!(turns.take(&e, true), "what has begun goes on");
        let counted = metrics.text().unwrap();
        for (state, count) in [("under_way", 3), ("waiting", 2)] {
            let line = format!(r#"portolan_operator_release_rollouts{{state="{state}"}} {count}"#);
            assert!(counted.contains(&line), "{counted}");
        }
        let woken = || Box::pin(wakes.stream("tools")).next().now_or_never().flatten();
        turns.leave(&e);
        assert_eq!(woken(), None, "there are two yet");
        turns.leave(&a);
        assert_eq!((woken(), woken()), (Some(c.clone()), None));
        assert!(turns.take(&c, false) && !turns.take(&a, false));
        turns.leave(&server("unknown"));
        assert_eq!(woken(), None);
    }
}
