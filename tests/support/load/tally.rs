//! What came of calls, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Failures that are remembered one by one; the rest is counted only.
const REMEMBERED: usize = 200;
/// Those of them that a report shows.
const SHOWN: usize = 12;

/// What came of one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The answer that was asked for.
    Answered,
    /// A result that says `isError`, with its `error_type`.
    ToolError(String),
    /// A JSON-RPC error under HTTP 200, with its code and what it is called.
    Error(String),
    /// Refused with this HTTP status, and what the error is called.
    Refused(String),
    /// 404: the session is over, although nobody ended it.
    SessionLost,
    /// The exchange failed below HTTP.
    BrokeOff(String),
    /// No answer in time.
    Late,
    /// Another answer than was asked for.
    Wrong(String),
    /// There was no session to call in, as all were lost and none could be opened.
    NoSession,
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => to.write_str("answered"),
            Self::ToolError(kind) => write!(to, "isError {kind}"),
            Self::Error(kind) => write!(to, "error {kind}"),
            Self::Refused(why) => write!(to, "refused {why}"),
            Self::SessionLost => to.write_str("404 session lost"),
            Self::BrokeOff(why) => write!(to, "broke off: {why}"),
            Self::Late => to.write_str("no answer in time"),
            Self::Wrong(answer) => write!(to, "wrong answer {answer}"),
            Self::NoSession => to.write_str("no session to call in"),
        }
    }
}

/// A call that was not answered as it should have been.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What was called: in a session, alone, or to begin or end a session.
    pub what: &'static str,
    /// When it was made.
    pub began: Instant,
    /// When its outcome was known.
    pub ended: Instant,
    /// What came of it.
    pub outcome: Outcome,
}

/// Standing streams, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Opened, the first time and again.
    pub opened: u64,
    /// Ended as their era ends one, and were told to come back.
    pub farewells: u64,
    /// Ended without a word.
    pub broken: u64,
    /// Stand open.
    pub open: u64,
}

/// All that was counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Calls by what came of them.
    pub calls: BTreeMap<Outcome, u64>,
    /// The first failures.
    pub failures: Vec<Failed>,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that their client ended.
    pub ended: u64,
    /// Sessions that were over although their client had not ended them.
    pub lost: u64,
    /// Sessions that are alive.
    pub alive: u64,
    /// Standing streams.
    pub streams: Streams,
    /// Connections that nobody took. As nothing was sent, the client tried again.
    pub unconnected: u64,
    /// The longest that a call took which was answered.
    pub longest: Duration,
    /// When the first call was made.
    pub began: Instant,
    /// When the last one was made; of a load that goes on, now.
    pub until: Instant,
}

impl Tally {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            calls: BTreeMap::new(),
            failures: Vec::new(),
            opened: 0,
            ended: 0,
            lost: 0,
            alive: 0,
            streams: Streams::default(),
            unconnected: 0,
            longest: Duration::ZERO,
            began: now,
            until: now,
        }
    }

    pub(super) fn count(&mut self, what: &'static str, began: Instant, outcome: Outcome) {
        let ended = Instant::now();
        if outcome == Outcome::Answered {
            self.longest = self.longest.max(ended - began);
        } else if self.failures.len() < REMEMBERED {
            self.failures.push(Failed { what, began, ended, outcome: outcome.clone() });
        }
        *self.calls.entry(outcome).or_default() += 1;
    }

    /// Calls that were made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Calls that were not answered as they should have been.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.made() - self.calls.get(&Outcome::Answered).copied().unwrap_or_default()
    }

    /// Calls a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.made() as f64 / (self.until - self.began).as_secs_f64()
    }

    /// Every call was answered as it should have been, and no session was lost.
    ///
    /// # Panics
    /// It is not so.
    pub fn assert_nothing_failed(&self) {
        assert!(self.failed() == 0 && self.lost == 0, "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.until - self.began).as_secs_f64();
        write!(
            to,
            "{} calls in {seconds:.0} s ({:.0}/s), {} failed, slowest {:.2} s; sessions: {} alive, {} opened, {} ended, {} lost",
            self.made(),
            self.rate(),
            self.failed(),
            self.longest.as_secs_f64(),
            self.alive,
            self.opened,
            self.ended,
            self.lost,
        )?;
        let Streams { opened, farewells, broken, open } = self.streams;
        if opened > 0 {
            write!(to, "; streams: {open} open, {opened} opened, {farewells} told to come back, {broken} broke off")?;
        }
        if self.unconnected > 0 {
            write!(to, "; {} connections not taken", self.unconnected)?;
        }
        for (outcome, count) in &self.calls {
            write!(to, "\n  {count:>7} {outcome}")?;
        }
        for failed in self.failures.iter().take(SHOWN) {
            let (at, took) = (failed.began - self.began, failed.ended - failed.began);
            write!(
                to,
                "\n  at {:.2} s, after {:.2} s: {}: {}",
                at.as_secs_f64(),
                took.as_secs_f64(),
                failed.what,
                failed.outcome
            )?;
        }
        Ok(())
    }
}
