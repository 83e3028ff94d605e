//! What every part of one bridge shares: configuration, counters, exits, the probe's verdict, the drain.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::revision::Era;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, MAX_EXITS, ProbeState, ProbeStatus, SessionExit};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kept::Kept;
use crate::tools::Marked;

/// Bodies of the largest size that may arrive at the same time; of smaller ones, accordingly more.
const BODIES_AT_ONCE: usize = 4;

/// What every part of one bridge shares.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) exits: Exits,
    pub(crate) probe: watch::Sender<Arc<ProbeStatus>>,
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) drained: watch::Sender<bool>,
    /// Nobody can reach the sessions any more.
    pub(crate) abandoned: watch::Sender<bool>,
    /// Which eras the server speaks, once it was asked.
    pub(crate) era: watch::Sender<Option<Era>>,
    /// Tools whose parameters have headers.
    marked: Mutex<Arc<Marked>>,
    /// The kept link, from its start: in stateless mode everyone's once it is open.
    pub(crate) kept: Mutex<Option<Arc<Kept>>>,
    /// KiB that bodies may hold while they arrive.
    pub(crate) bodies: Semaphore,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        let bodies = Semaphore::new(BODIES_AT_ONCE * (config.max_message_bytes / 1024 + 1));
        let starting = ProbeStatus {
            state: ProbeState::Starting,
            reason: None,
            message: String::new(),
            server: None,
            tools: None,
        };
        Self {
            config,
            counters: Counters::default(),
            exits: Exits::default(),
            probe: watch::Sender::new(Arc::new(starting)),
            draining: watch::Sender::new(false),
            drained: watch::Sender::new(false),
            abandoned: watch::Sender::new(false),
            era: watch::Sender::new(None),
            marked: Mutex::default(),
            kept: Mutex::default(),
            bodies,
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether one more session than those that are `held` may be opened.
    pub(crate) fn admit_session(&self, held: Held) -> Result<(), Failure> {
        if self.is_draining() {
            let failure = Failure::new(Kind::Draining, "this replica is going away; open the session on another");
            return Err(failure.retry_after(Duration::from_secs(1)));
        }
        let bounds = self.config.sessions;
        let is_at = |held: usize, bound: u32| held >= usize::try_from(bound).unwrap_or(usize::MAX);
        let message = if is_at(held.all, bounds.max) {
            "this replica holds as many sessions as spec.sessions.maxPerReplica allows; try again later"
        } else if is_at(held.own, bounds.max_per_caller) {
            "you hold as many sessions of this replica as spec.sessions.maxPerCaller allows; end one with DELETE, or try again \
             later"
        } else {
            return Ok(());
        };
        self.counters.refused_sessions.add(1);
        Err(Failure::new(Kind::Overloaded, message).retry_after(Duration::from_secs(5)))
    }

    /// Which eras the server speaks; waits for the probe to find out.
    pub(crate) async fn era(&self) -> Result<Era, Failure> {
        let mut era = self.era.subscribe();
        let found = tokio::time::timeout(self.config.probe.timeout, era.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(Result::ok).and_then(|era| *era);
        found.ok_or_else(|| {
            let message = "the server is not ready: it was not found out yet which revisions it speaks; ask again soon";
            Failure::new(Kind::NotReady, message).retry_after(Duration::from_secs(1))
        })
    }

    /// Whether the server is known to speak the era without sessions alone.
    pub(crate) fn is_sessionless(&self) -> bool {
        *self.era.borrow() == Some(Era::Modern)
    }

    pub(crate) fn marked_tools(&self) -> Arc<Marked> {
        Arc::clone(&lock(&self.marked))
    }

    pub(crate) fn mark_tools(&self, marked: Marked) {
        *lock(&self.marked) = Arc::new(marked);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.probe.borrow().state == ProbeState::Ready
    }
}

/// How many sessions are open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) all: usize,
    /// Those of the caller who wants another; none where nobody says who that is.
    pub(crate) own: usize,
}

impl Held {
    /// Counts sessions by whose they are, for `caller`.
    pub(crate) fn by<'a>(caller: Option<&SessionKey>, owners: impl Iterator<Item = Option<&'a SessionKey>>) -> Self {
        owners.fold(Self::default(), |held, owner| Self {
            all: held.all + 1,
            own: held.own + usize::from(caller.is_some() && owner == caller),
        })
    }
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { all: self.all + other.all, own: self.own + other.own }
    }
}

/// Counts of bounds that were hit; see [`wire::Counters`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refused_mac: Counter,
    pub(crate) refused_sessions: Counter,
    pub(crate) refused_calls: Counter,
    pub(crate) skipped_lines: Counter,
    pub(crate) oversized_messages: Counter,
    pub(crate) dropped_stderr_lines: Counter,
    pub(crate) dropped_messages: Counter,
    pub(crate) memory_ends: Counter,
    pub(crate) timeouts: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> wire::Counters {
        wire::Counters {
            refused_mac: self.refused_mac.get(),
            refused_sessions: self.refused_sessions.get(),
            refused_calls: self.refused_calls.get(),
            skipped_lines: self.skipped_lines.get(),
            oversized_messages: self.oversized_messages.get(),
            dropped_stderr_lines: self.dropped_stderr_lines.get(),
            dropped_messages: self.dropped_messages.get(),
            memory_ends: self.memory_ends.get(),
            timeouts: self.timeouts.get(),
        }
    }
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The latest ends of server processes.
#[derive(Debug, Default)]
pub(crate) struct Exits(Mutex<VecDeque<SessionExit>>);

impl Exits {
    pub(crate) fn push(&self, exit: SessionExit) {
        let mut exits = lock(&self.0);
        if exits.len() >= MAX_EXITS {
            exits.pop_front();
        }
        exits.push_back(exit);
    }

    pub(crate) fn read(&self) -> Vec<SessionExit> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// Unix milliseconds now.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Locks; a panic of another holder leaves data that every reader here can still use.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
