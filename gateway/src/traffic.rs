//! How calls go at the two revisions between which new sessions are shared out, so that the operator can compare them.
//!
//! Nothing is counted, and no answer looked at, while one revision has all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_mcp::{envelope::Message, sse};
use portolan_policy::identity::Identity;
use portolan_snapshot::{Route, report};
use tokio::time::Instant;

use crate::outlier::Callers;
use crate::state::unix_time;

/// An answer is looked at up to here: what says that a call failed is short, and as many calls hold as much as there are at once.
const MAX_LOOKED_AT: usize = 16 * 1024;

/// So many to an octave, each as wide as the next: a bound is at most a sixteenth more than what it bounds.
const STEPS: u64 = 16;
/// What is shorter than this, in microseconds, counts as this: nobody waits for it.
const FIRST: u64 = 256;
/// Up to more than a day.
const BUCKETS: usize = 29 * STEPS as usize;

/// Calls at one revision that have ended.
#[derive(Debug)]
pub(crate) struct Tally {
    /// When it was made, in milliseconds of Unix time: one that is made anew begins at nothing.
    since: u64,
    begun: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
    failing: Mutex<Callers>,
    callers: Mutex<Callers>,
    durations: [AtomicU64; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            since: unix_time().as_millis().try_into().unwrap_or(u64::MAX),
            begun: AtomicU64::default(),
            calls: AtomicU64::default(),
            failed: AtomicU64::default(),
            failing: Mutex::default(),
            callers: Mutex::default(),
            durations: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

/// The tallies of a route, by revision; none while one revision takes all new sessions.
pub(crate) type Tallies = BTreeMap<Box<str>, Arc<Tally>>;

/// The tallies of `route`: as they were while it is the same two revisions.
pub(crate) fn tallies(route: &Route, last: Option<&Tallies>) -> Tallies {
    let Some(canary) = &route.canary else { return Tallies::new() };
    let revisions = [Some(&canary.revision), route.serving.as_ref()];
    let last = last.filter(|last| last.contains_key(&canary.revision));
    let kept = |revision: &str| last.and_then(|last| last.get(revision)).cloned().unwrap_or_default();
    revisions.into_iter().flatten().map(|revision| (revision.clone(), kept(revision))).collect()
}

impl Tally {
    fn count(&self, took: Duration, failed: bool, caller: &Identity) {
        self.calls.fetch_add(1, Relaxed);
        // Callers without a name are not one.
        let is_several = *caller == Identity::anonymous();
        lock(&self.callers).add(*caller.principal(), is_several);
        if failed {
            self.failed.fetch_add(1, Relaxed);
            lock(&self.failing).add(*caller.principal(), is_several);
        }
        self.durations[bucket(took)].fetch_add(1, Relaxed);
    }

    /// What the operator is told of them.
    pub(crate) fn report(&self) -> report::Traffic {
        let counts = self.durations.iter().enumerate().map(|(bucket, count)| (bound(bucket), count.load(Relaxed)));
        report::Traffic {
            since: self.since,
            begun: self.begun.load(Relaxed),
            calls: self.calls.load(Relaxed),
            failed: self.failed.load(Relaxed),
            callers: lock(&self.callers).told(),
            failing: lock(&self.failing).told(),
            durations: counts.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

fn lock(callers: &Mutex<Callers>) -> MutexGuard<'_, Callers> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(FIRST);
    let octave = u64::from(micros.ilog2() - FIRST.ilog2());
    // A bound belongs to the bucket below it.
    let step = (micros - (FIRST << octave)).div_ceil((FIRST << octave) / STEPS);
    usize::try_from(octave * STEPS + step).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Upper bound of a bucket in microseconds.
fn bound(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    (FIRST << octave) + (FIRST << octave) / STEPS * step
}

/// A call that is compared, until it is counted. One that is dropped before was given up by its client, who may have waited in vain.
#[derive(Debug)]
pub(crate) struct Watched {
    tally: Arc<Tally>,
    caller: Identity,
    began: Instant,
    is_stream: bool,
    seen: Vec<u8>,
    is_counted: bool,
}

impl Watched {
    /// A call begins at a revision that is compared.
    pub(crate) fn begin(tally: Arc<Tally>, caller: Identity) -> Self {
        tally.begun.fetch_add(1, Relaxed);
        Self { tally, caller, began: Instant::now(), is_stream: false, seen: Vec::new(), is_counted: false }
    }

    /// Its answer has begun.
    pub(crate) fn answers(&mut self, is_stream: bool) {
        self.is_stream = is_stream;
    }

    /// Looks at the next bytes of its answer.
    pub(crate) fn look_at(&mut self, bytes: &[u8]) {
        let room = MAX_LOOKED_AT - self.seen.len();
        self.seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// It got no answer, or one in the server's stead.
    pub(crate) fn failed(&mut self) {
        self.count(true);
    }

    /// What became of it neither revision could help.
    pub(crate) fn is_nobodys_fault(&mut self) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.tally.begun.fetch_sub(1, Relaxed);
        }
    }

    /// It was answered to the end: whether well, the answer says.
    pub(crate) fn answered(&mut self) {
        let failed = self.failure_that_was_told().unwrap_or(false);
        self.count(failed);
    }

    /// Whether what it was told so far is a failure; `None` before there was an answer.
    fn failure_that_was_told(&self) -> Option<bool> {
        if !self.is_stream {
            return failure_in(&self.seen);
        }
        let events = sse::Decoder::new(MAX_LOOKED_AT).push(&self.seen).unwrap_or_default();
        events.iter().filter_map(|event| failure_in(event)).next_back()
    }

    fn count(&mut self, failed: bool) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.tally.count(self.began.elapsed(), failed, &self.caller);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.is_counted {
            return;
        }
        // A client that has its answer may close before the stream ends.
        let failed = self.failure_that_was_told().unwrap_or(true);
        self.count(failed);
    }
}

/// Whether a message says that the call failed, and not for what was asked; `None` where it is no answer.
fn failure_in(message: &[u8]) -> Option<bool> {
    match Message::parse(message) {
        Ok(answer @ Message::Response { .. }) => Some(answer.is_failure() && !answer.is_refusal()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(tally: &Arc<Tally>, is_stream: bool, answer: &str) {
        let mut call = Watched::begin(tally.clone(), Identity::anonymous());
        call.answers(is_stream);
        for byte in answer.as_bytes().chunks(7) {
            call.look_at(byte);
        }
        call.answered();
        call.failed();
    }

    #[test]
    fn an_error_and_a_tools_result_that_is_one_are_failures_however_they_come() {
        let bad = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}"#;
        let good = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\"isError\":true"}]}}"#;
        let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;
        for (answer, failed) in [(bad, 1), (error, 1), (good, 0), (refusal, 0)] {
            let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"isError":true}}"#;
            let events = format!("data: {note}\n\ndata: {answer}\n\n");
            for (is_stream, text) in [(false, answer), (true, &*events)] {
                let tally = Arc::new(Tally::default());
                watched(&tally, is_stream, text);
                let told = tally.report();
                assert_eq!((told.calls, told.failed), (1, failed), "{text}");
                assert_eq!(told.durations.values().sum::<u64>(), 1);
            }
        }
    }

    #[test]
    fn a_client_that_closes_when_it_has_its_answer_has_not_given_up() {
        let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
        for (seen, failed) in
            [(answer, 0), ("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n", 1)]
        {
            let tally = Arc::new(Tally::default());
            let mut call = Watched::begin(tally.clone(), Identity::anonymous());
            call.answers(true);
            call.look_at(seen.as_bytes());
            drop(call);
            assert_eq!(tally.report().failed, failed, "{seen}");
        }
    }

    #[test]
    fn a_call_that_its_client_gave_up_failed_and_one_that_neither_revision_could_help_was_none() {
        let tally = Arc::new(Tally::default());
        let begin = || Watched::begin(tally.clone(), Identity::anonymous());
        let (waits, mut refused) = (begin(), begin());
        refused.is_nobodys_fault();
        drop(refused);
        let told = tally.report();
        assert_eq!((told.begun, told.calls, told.failed), (1, 0, 0));
        drop(waits);
        let told = tally.report();
        assert_eq!((told.begun, told.calls, told.failed), (1, 1, 1));
    }

    #[test]
    fn who_called_and_who_met_failures_is_told_as_far_as_it_is_one() {
        let tally = Arc::new(Tally::default());
        let call = |name: &str, fails: bool| {
            let mut call = Watched::begin(tally.clone(), Identity::new("keys", name));
            if fails { call.failed() } else { call.answered() }
        };
        call("alice", true);
        let told = tally.report();
        assert_eq!((&told.callers, told.callers.is_some()), (&told.failing, true));
        call("bob", false);
        let told = tally.report();
        assert_eq!((told.callers.as_deref(), told.failing.is_some()), (Some(report::SEVERAL), true));
        assert_ne!(told.failing.as_deref(), Some(report::SEVERAL));
        call("bob", true);
        assert_eq!(tally.report().failing.as_deref(), Some(report::SEVERAL));
    }

    #[test]
    fn a_duration_counts_under_a_bound_that_is_at_most_a_sixteenth_more() {
        for micros in [257, 999, 1_000, 33_333, 1_000_000, 29_999_999, 3_600_000_000, 86_400_000_000] {
            let bound = bound(bucket(Duration::from_micros(micros)));
            assert!(bound >= micros && bound <= micros + micros / 16 + 1, "{micros} is under {bound}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
