//! Whether real calls go worse at a revision that takes a share of them than at the one that has the rest.
//!
//! Gateways count from when sharing began; what an interval brought is the difference between two readings. Nothing is written down: a new
//! leader begins to compare anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use portolan_crds::server::CanaryAnalysis;
use portolan_snapshot::report::Traffic;

use crate::requeue::Key;

/// Calls that take less longer than this are not slow, whatever that is in percent.
const NOISE_MICROS: u64 = 50_000;

/// What was found of a revision that takes a share of new sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compared {
    /// Nothing yet, or something that is not enough.
    #[default]
    NotYet,
    /// Nothing speaks against it; the comparison that says so began then.
    Well(Timestamp),
    /// It has to be taken back; says why.
    Badly(String),
}

/// How soon to look again where an interval is over and there were too few calls.
const MORE_CALLS: Duration = Duration::from_secs(1);

/// What is known, and when there may be more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What was found.
    pub compared: Compared,
    /// When to look again; `None` while nothing is compared.
    pub again: Option<Duration>,
}

/// What gateway replicas have counted of a server, by uid of the replica's pod and by revision.
pub type Readings = BTreeMap<String, BTreeMap<String, Traffic>>;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Between<'a> {
    /// The revision that has the rest.
    pub serving: &'a str,
    /// The revision that takes a share.
    pub canary: &'a str,
    /// By what.
    pub rule: &'a CanaryAnalysis,
}

/// The comparisons of every server that is between two revisions.
#[derive(Debug, Default)]
pub struct Analyses(Mutex<HashMap<Key, Analysis>>);

impl Analyses {
    /// What is known at `now`. `trouble` is what is wrong with the canary besides what its calls tell.
    pub fn of(
        &self,
        server: &Key,
        between: Between<'_>,
        readings: Readings,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Known {
        let mut analyses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = analyses.get_mut(server).filter(|analysis| analysis.is_of(between));
        match known {
            Some(analysis) => analysis.take(between, readings, trouble, now),
            None => {
                analyses.insert(server.clone(), Analysis::begin(between, readings, now));
                Known { compared: Compared::NotYet, again: Some(between.rule.interval.as_std()) }
            }
        }
    }

    /// Nothing is compared any more.
    pub fn forget(&self, server: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}

/// One server between two revisions.
#[derive(Debug)]
struct Analysis {
    serving: String,
    canary: String,
    /// When the comparison that is under way began.
    began: Timestamp,
    /// What had been counted up to the last one that said something.
    base: Readings,
    /// Comparisons in a row that were to the disadvantage of the canary.
    bad: u32,
    compared: Compared,
}

/// What one comparison says.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Well,
    TooFew,
    Badly(String),
}

impl Analysis {
    fn begin(between: Between<'_>, base: Readings, now: Timestamp) -> Self {
        let (serving, canary) = (between.serving.to_owned(), between.canary.to_owned());
        Self { serving, canary, began: now, base, bad: 0, compared: Compared::NotYet }
    }

    fn is_of(&self, between: Between<'_>) -> bool {
        (&*self.serving, &*self.canary) == (between.serving, between.canary)
    }

    fn take(&mut self, between: Between<'_>, readings: Readings, trouble: Option<String>, now: Timestamp) -> Known {
        let interval = between.rule.interval.as_std();
        // With a clock that was set back it is over, too.
        let passed = Duration::try_from(now.duration_since(self.began)).unwrap_or(interval);
        if passed < interval {
            return Known { compared: self.compared.clone(), again: Some(interval - passed) };
        }
        let finding = trouble.map_or_else(|| self.judge(between, &readings), Finding::Badly);
        let says_nothing = finding == Finding::TooFew;
        self.compared = match finding {
            Finding::Well => {
                self.bad = 0;
                Compared::Well(self.began)
            }
            // What was bad before stays so until something is found.
            Finding::TooFew if self.bad > 0 => Compared::NotYet,
            Finding::TooFew => Compared::Well(now - interval),
            Finding::Badly(why) => {
                self.bad = self.bad.saturating_add(1);
                let is_enough = self.bad >= between.rule.failure_threshold;
                if is_enough { Compared::Badly(self.in_a_row(&why)) } else { Compared::NotYet }
            }
        };
        let mut again = MORE_CALLS.min(interval);
        if !says_nothing {
            (self.began, self.base, again) = (now, readings, interval);
        }
        Known { compared: self.compared.clone(), again: Some(again) }
    }

    fn in_a_row(&self, why: &str) -> String {
        match self.bad {
            1 => why.to_owned(),
            bad => format!("{why}; {bad} comparisons in a row were to its disadvantage"),
        }
    }

    fn judge(&self, between: Between<'_>, readings: &Readings) -> Finding {
        let (canary, serving) = (self.since(readings, between.canary), self.since(readings, between.serving));
        let rule = between.rule;
        if canary.calls < u64::from(rule.min_calls) {
            return Finding::TooFew;
        }
        if permille(&canary) > permille(&serving).saturating_add(rule.max_error_permille.into()) {
            return Finding::Badly(format!(
                "{} of its {} calls failed, of revision {} {} of {}, which is over maxErrorPermille, {}",
                canary.failed, canary.calls, between.serving, serving.failed, serving.calls, rule.max_error_permille
            ));
        }
        // Of a few calls there is no percentile.
        if serving.calls < u64::from(rule.min_calls) {
            return Finding::Well;
        }
        let (slow, usual) = (percentile(&canary), percentile(&serving));
        let limit = usual.saturating_mul(rule.max_latency_percent.into()) / 100;
        if slow > limit && slow > usual.saturating_add(NOISE_MICROS) {
            return Finding::Badly(format!(
                "19 of 20 of its calls took up to {} ms, of revision {} {} ms, which is over maxLatencyPercent, {}",
                slow / 1000,
                between.serving,
                usual / 1000,
                rule.max_latency_percent
            ));
        }
        Finding::Well
    }

    /// What was counted at a revision since the last comparison that said something.
    fn since(&self, readings: &Readings, revision: &str) -> Traffic {
        let mut sum = Traffic::default();
        for (replica, traffic) in readings {
            let Some(now) = traffic.get(revision) else { continue };
            let before = self.base.get(replica).and_then(|traffic| traffic.get(revision));
            add(&mut sum, now, before.filter(|before| before.calls <= now.calls));
        }
        sum
    }
}

/// Adds what `now` has beyond `before`; all of it where the replica began anew.
fn add(sum: &mut Traffic, now: &Traffic, before: Option<&Traffic>) {
    let nothing = Traffic::default();
    let before = before.unwrap_or(&nothing);
    sum.calls += now.calls - before.calls;
    sum.failed += now.failed.saturating_sub(before.failed);
    for (bound, count) in &now.durations {
        let more = count.saturating_sub(before.durations.get(bound).copied().unwrap_or_default());
        *sum.durations.entry(*bound).or_default() += more;
    }
}

/// Of a thousand calls, how many failed.
fn permille(traffic: &Traffic) -> u64 {
    (traffic.failed * 1000).checked_div(traffic.calls).unwrap_or_default()
}

/// What 95 of 100 calls do not take longer than, in microseconds.
fn percentile(traffic: &Traffic) -> u64 {
    let mut left = traffic.durations.values().sum::<u64>() * 95 / 100;
    for (bound, count) in &traffic.durations {
        if *count > left {
            return *bound;
        }
        left -= count;
    }
    traffic.durations.keys().next_back().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
