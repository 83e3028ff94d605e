//! Whether nobody has called a server for so long that it needs no pod. Pure: whoever asks says what time it is.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Who calls a server, as far as gateways say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calling {
    /// How many calls began at each replica since that began, by uid of its pod.
    pub begun: BTreeMap<String, u64>,
    /// Calls that have not ended, and those that wait for a pod.
    pub under_way: u32,
    /// Whether all of them said.
    pub is_whole: bool,
}

/// Since when nobody has called.
#[derive(Debug)]
pub(super) struct Idle {
    /// For how long nobody must have called.
    pub(super) after: Duration,
    begun: BTreeMap<String, u64>,
    since: Option<Instant>,
}

impl Idle {
    /// Nothing is known yet.
    pub(super) fn new(after: Duration) -> Self {
        Self { after, begun: BTreeMap::new(), since: None }
    }

    /// Takes in who calls at `now`; whether nobody has for long enough.
    pub(super) fn take(&mut self, now: Instant, calling: &Calling) -> bool {
        let nobody_calls = calling.is_whole && calling.under_way == 0 && calling.begun == self.begun;
        self.begun.clone_from(&calling.begun);
        if !nobody_calls {
            self.since = None;
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= self.after
    }

    /// It is needed now, whoever calls.
    pub(super) fn begin_anew(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calling(begun: u64, under_way: u32) -> Calling {
        Calling { begun: [("a".to_owned(), begun)].into(), under_way, is_whole: true }
    }

    #[test]
    fn a_server_is_idle_when_no_call_began_and_none_was_under_way_for_long_enough_as_everyone_says() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut idle = Idle::new(Duration::from_secs(10));
        assert!(!idle.take(at(0), &calling(5, 0)), "what was before is not known");
        assert!(!idle.take(at(1), &calling(5, 0)));
        assert!(!idle.take(at(10), &calling(5, 0)));
        assert!(idle.take(at(11), &calling(5, 0)));
        assert!(!idle.take(at(12), &calling(6, 0)), "a call that was over before anyone looked");
        assert!(!idle.take(at(13), &calling(6, 0)));
        assert!(!idle.take(at(24), &calling(6, 1)), "one that lasts");
        assert!(!idle.take(at(25), &calling(6, 0)));
        assert!(!idle.take(at(36), &Calling { is_whole: false, ..calling(6, 0) }), "someone does not say");
        assert!(!idle.take(at(37), &calling(6, 0)));
        assert!(idle.take(at(47), &calling(6, 0)));
        idle.begin_anew();
        assert!(!idle.take(at(48), &calling(6, 0)));
        assert!(!idle.take(at(49), &Calling { begun: BTreeMap::new(), ..calling(0, 0) }), "another replica");
    }
}
