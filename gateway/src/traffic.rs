//! How calls go at the two revisions between which new sessions are shared out, so that the operator can compare them.
//!
//! Nothing is counted, and no answer looked at, while one revision has all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use portolan_mcp::{envelope::Message, sse};
use portolan_snapshot::{Route, report};
use tokio::time::Instant;

/// An answer is looked at up to here. What says that a tool failed is short.
const MAX_LOOKED_AT: usize = 64 * 1024;

/// Four to an octave: a bound is at most a fifth more than what it bounds.
const STEPS: u64 = 4;
/// The first bucket ends here, in microseconds; nobody waits for what is shorter.
const FIRST: u64 = 256;
/// Up to more than a day.
const BUCKETS: usize = 120;

/// Calls at one revision that have ended.
#[derive(Debug)]
pub(crate) struct Tally {
    calls: AtomicU64,
    failed: AtomicU64,
    durations: [AtomicU64; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        let (calls, failed) = (AtomicU64::default(), AtomicU64::default());
        Self { calls, failed, durations: std::array::from_fn(|_| AtomicU64::default()) }
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
    fn count(&self, took: Duration, failed: bool) {
        self.calls.fetch_add(1, Relaxed);
        if failed {
            self.failed.fetch_add(1, Relaxed);
        }
        self.durations[bucket(took)].fetch_add(1, Relaxed);
    }

    /// What the operator is told of them.
    pub(crate) fn report(&self) -> report::Traffic {
        let counts = self.durations.iter().enumerate().map(|(bucket, count)| (bound(bucket), count.load(Relaxed)));
        report::Traffic {
            calls: self.calls.load(Relaxed),
            failed: self.failed.load(Relaxed),
            durations: counts.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    (0..BUCKETS - 1).find(|bucket| micros <= bound(*bucket)).unwrap_or(BUCKETS - 1)
}

/// Upper bound of a bucket in microseconds.
fn bound(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    (FIRST << octave) + (FIRST << octave) / STEPS * step
}

/// A call that is compared, until it is counted.
#[derive(Debug)]
pub(crate) struct Watched {
    tally: Arc<Tally>,
    began: Instant,
    is_stream: bool,
    seen: Vec<u8>,
    is_counted: bool,
}

impl Watched {
    /// A call begins at a revision that is compared.
    pub(crate) fn begin(tally: Arc<Tally>) -> Self {
        Self { tally, began: Instant::now(), is_stream: false, seen: Vec::new(), is_counted: false }
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

    /// It was answered to the end: whether well, the answer says.
    pub(crate) fn answered(&mut self) {
        let failed = if self.is_stream { self.stream_ends_in_failure() } else { is_failure(&self.seen) };
        self.count(failed);
    }

    fn stream_ends_in_failure(&self) -> bool {
        let events = sse::Decoder::new(MAX_LOOKED_AT).push(&self.seen).unwrap_or_default();
        events.iter().any(|event| is_failure(event))
    }

    fn count(&mut self, failed: bool) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.tally.count(self.began.elapsed(), failed);
        }
    }
}

/// Whether a message is an answer that says that the call failed.
fn is_failure(message: &[u8]) -> bool {
    Message::parse(message).is_ok_and(|message| message.is_failure())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(tally: &Arc<Tally>, is_stream: bool, answer: &str) {
        let mut call = Watched::begin(tally.clone());
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
        for (answer, failed) in [(bad, 1), (error, 1), (good, 0)] {
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
    fn a_call_whose_client_went_away_says_nothing() {
        let tally = Arc::new(Tally::default());
        drop(Watched::begin(tally.clone()));
        assert_eq!(tally.report(), report::Traffic::default());
    }

    #[test]
    fn a_duration_counts_under_a_bound_that_is_at_most_a_quarter_more() {
        for micros in [257, 999, 1_000, 33_333, 1_000_000, 29_999_999, 3_600_000_000, 86_400_000_000] {
            let bound = bound(bucket(Duration::from_micros(micros)));
            assert!(bound >= micros && bound <= micros + micros / 4 + 1, "{micros} is under {bound}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
