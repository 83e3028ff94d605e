//! Outlier ejection: a pod that fails call after call gets no new sessions and no calls without one for a while.
//!
//! What counts is what real calls meet, which a probe may never see: a server that lists its tools and hangs in each of them.
//! What one caller alone meets is not held against the pod, as a caller chooses what its own process is made to do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_mcp::failure::Kind;
use portolan_policy::identity::{Identity, Principal};
use portolan_snapshot::report;
use tokio::time::Instant;

/// Failures in a row that make a pod an outlier, as many as Envoy waits for (`consecutive_gateway_failure`).
pub(crate) const FAILURES: u32 = 5;
/// How long it is out the first time; with each further time that much longer, until a call is answered.
const FIRST: Duration = Duration::from_secs(10);
/// How long at most; and for how long after the last failure it is said that calls fail, while none is answered.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// How one pod has answered.
#[derive(Debug, Default)]
pub(crate) struct Outlier {
    /// Failures since the last answer; read without the lock, as nearly always there are none.
    row: AtomicU32,
    failures: Mutex<Failures>,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    callers: Callers,
    /// Whether work is among what failed.
    has_work: bool,
    /// How often it was put out in this row.
    ejections: u32,
    /// Until when it is out.
    until: Option<Instant>,
    /// When the last of them was.
    last: Option<Instant>,
    /// What the first one was: what is said of the row stays the same while it lasts.
    kind: Option<Kind>,
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// What the server is there for: a tool, a resource, a prompt.
    Work,
    /// Who the server is and what it has: one that hangs in its tools answers that.
    Talk,
    /// No answer of the server's.
    Nothing,
}

/// Whose calls they were.
#[derive(Debug, Default)]
pub(crate) enum Callers {
    #[default]
    None,
    One(Principal),
    Several,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The pod was not reached, or the connection to it broke before an answer began: so it goes for whoever calls.
    NotReached,
    /// So it was answered, or so its answer ended.
    Answered(Kind),
}

impl Fault {
    fn kind(self) -> Kind {
        match self {
            Self::NotReached => Kind::ServerUnreachable,
            Self::Answered(kind) => kind,
        }
    }

    /// Whether it says something about the pod; `false` for what a caller or a bound brought about.
    pub(crate) fn is_of_the_pod(self) -> bool {
        let kind = self.kind();
        matches!(kind, Kind::ServerUnreachable | Kind::RequestTimeout | Kind::ServerExited | Kind::BadServerReply)
    }
}

/// What a failure led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The pod stays as it was.
    AsBefore,
    /// From here on it is out, for this long.
    Out(Duration),
}

/// Methods that ask for work.
const WORK: [&str; 4] = ["tools/call", "resources/read", "prompts/get", "completion/complete"];

impl Asks {
    /// What a request with this method asks for.
    pub(crate) fn of(method: &str) -> Self {
        if WORK.contains(&method) { Self::Work } else { Self::Talk }
    }
}

impl Outlier {
    /// Takes in a call of `caller` that failed.
    pub(crate) fn failed(&self, asks: Asks, fault: Fault, caller: &Identity, now: Instant) -> Verdict {
        if !fault.is_of_the_pod() {
            return Verdict::AsBefore;
        }
        let mut failures = self.lock();
        let row = self.row.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        failures.kind.get_or_insert(fault.kind());
        failures.has_work |= asks == Asks::Work;
        failures.last = Some(now);
        // Callers without a name are not one.
        let is_everyones = fault == Fault::NotReached || *caller == Identity::anonymous();
        failures.callers.add(*caller.principal(), is_everyones);
        if row < FAILURES || !failures.callers.are_several() {
            return Verdict::AsBefore;
        }
        let was_out = failures.until.is_some_and(|until| now < until);
        if !was_out {
            failures.ejections = failures.ejections.saturating_add(1);
        }
        let length = FIRST.saturating_mul(failures.ejections).min(LONGEST);
        // Calls of sessions that it holds go on: while they fail, it is not tried with others.
        failures.until = Some(now + length);
        if was_out { Verdict::AsBefore } else { Verdict::Out(length) }
    }

    /// Takes in a call that was answered. Whether that ends its being an outlier.
    pub(crate) fn answered(&self, asks: Asks) -> bool {
        if self.row.load(Ordering::Acquire) == 0 || asks == Asks::Nothing {
            return false;
        }
        let mut failures = self.lock();
        if failures.has_work && asks != Asks::Work {
            return false;
        }
        self.row.store(0, Ordering::Release);
        std::mem::take(&mut *failures).ejections > 0
    }

    /// Whether it gets nothing new now, if another does.
    pub(crate) fn is_out(&self, now: impl FnOnce() -> Instant) -> bool {
        self.is_long_enough() && self.lock().until.is_some_and(|until| now() < until)
    }

    /// What its calls end in, while they fail: until one is answered, or there was none for so long that nobody knows.
    pub(crate) fn failing(&self, now: impl FnOnce() -> Instant) -> Option<Kind> {
        if !self.is_long_enough() {
            return None;
        }
        let failures = self.lock();
        let is_recent = failures.last.is_some_and(|last| now() < last + LONGEST);
        failures.kind.filter(|_| is_recent && failures.callers.are_several())
    }

    fn is_long_enough(&self) -> bool {
        self.row.load(Ordering::Acquire) >= FAILURES
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callers {
    /// Who they are as an operator is told, who compares what replicas say: nobody, one by a name that says nothing else, or several.
    pub(crate) fn told(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one.iter().take(8).map(|byte| format!("{byte:02x}")).collect()),
            Self::Several => Some(report::SEVERAL.to_owned()),
        }
    }

    /// More than one.
    pub(crate) fn are_several(&self) -> bool {
        matches!(self, Self::Several)
    }

    /// Adds a call of `caller`, or of one whom it could have been anyone's.
    pub(crate) fn add(&mut self, caller: Principal, is_everyones: bool) {
        *self = match self {
            _ if is_everyones => Self::Several,
            Self::None => Self::One(caller),
            Self::One(one) if *one == caller => return,
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

#[cfg(test)]
mod tests;
