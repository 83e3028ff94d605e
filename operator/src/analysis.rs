//! Whether real calls go worse at a revision that takes a share of them than at the one that has the rest.
//!
//! Gateways count from when sharing began; what an interval brought is the difference between two readings. Nothing is written down: a new
//! leader begins to compare anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use portolan_crds::server::CanaryAnalysis;
use portolan_snapshot::report::{self, Traffic};

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

/// What is known, and when there may be more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What was found.
    pub compared: Compared,
    /// What keeps it from going on, where something does.
    pub note: Option<String>,
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

/// What speaks against a revision that takes a share, besides what its calls tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Against {
    /// What counts as a comparison to its disadvantage.
    pub trouble: Option<String>,
    /// A wrong answer of it alone to what is known, and how long until everyone was asked again: then it really is of it alone.
    pub wrong: Option<(String, Duration)>,
}

/// The comparisons of every server that is between two revisions.
#[derive(Debug, Default)]
pub struct Analyses(Mutex<HashMap<Key, Analysis>>);

impl Analyses {
    /// What is known at `now`. `against` is what speaks against the canary besides what its calls tell.
    pub fn of(
        &self,
        server: &Key,
        between: Between<'_>,
        readings: Readings,
        against: Against,
        now: Timestamp,
    ) -> Known {
        let mut analyses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = analyses.get_mut(server).filter(|analysis| analysis.is_of(between));
        match known {
            Some(analysis) => analysis.take(between, readings, against, now),
            None => {
                analyses.insert(server.clone(), Analysis::begin(between, readings, now));
                Known { again: Some(between.rule.interval.as_std()), ..Known::default() }
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
    /// What had been counted when comparing began.
    first: Readings,
    /// What had been counted up to the last one that said something.
    base: Readings,
    /// Comparisons in a row that were to the disadvantage of the canary.
    bad: u32,
    /// Since when it answers wrongly what is known.
    wrong_since: Option<Timestamp>,
    compared: Compared,
    note: Option<String>,
}

/// What one comparison says.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Well,
    /// Nobody called, or few did and nothing is wrong with it.
    Quiet,
    /// Too few calls have ended to know; says how many.
    TooFew(String),
    Badly(String),
}

impl Analysis {
    fn begin(between: Between<'_>, base: Readings, now: Timestamp) -> Self {
        let (serving, canary) = (between.serving.to_owned(), between.canary.to_owned());
        Self {
            serving,
            canary,
            began: now,
            first: base.clone(),
            base,
            bad: 0,
            wrong_since: None,
            compared: Compared::NotYet,
            note: None,
        }
    }

    fn is_of(&self, between: Between<'_>) -> bool {
        (&*self.serving, &*self.canary) == (between.serving, between.canary)
    }

    fn take(&mut self, between: Between<'_>, readings: Readings, against: Against, now: Timestamp) -> Known {
        if let Some((why, until_asked)) = against.wrong {
            return self.wrong(why, until_asked, now);
        }
        self.wrong_since = None;
        let trouble = against.trouble;
        let interval = between.rule.interval.as_std();
        // With a clock that was set back it is over, too.
        let passed = Duration::try_from(now.duration_since(self.began)).unwrap_or(interval);
        if passed < interval {
            return self.known(interval - passed);
        }
        let finding = trouble.map_or_else(|| self.judge(between, &readings), Finding::Badly);
        let mut again = interval;
        let is_over = !matches!(finding, Finding::TooFew(_));
        self.note = None;
        self.compared = match finding {
            Finding::Well => {
                self.bad = 0;
                Compared::Well(self.began)
            }
            Finding::Quiet => Compared::Well(now - interval),
            Finding::TooFew(why) => {
                // Enough may come any moment.
                again = (interval / 5).max(Duration::from_secs(1)).min(interval);
                self.note = Some(why);
                Compared::NotYet
            }
            Finding::Badly(why) => {
                self.bad = self.bad.saturating_add(1);
                let why = self.in_a_row(&why);
                self.note = Some(why.clone());
                if self.bad >= between.rule.failure_threshold { Compared::Badly(why) } else { Compared::NotYet }
            }
        };
        if is_over {
            self.began = now;
            // A replica that is not heard of now goes on where it was when it is again.
            self.base.extend(readings);
        }
        self.known(again)
    }

    fn wrong(&mut self, why: String, until_asked: Duration, now: Timestamp) -> Known {
        let since = *self.wrong_since.get_or_insert(now);
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or(until_asked);
        let note = Some(why.clone());
        match until_asked.checked_sub(passed).filter(|rest| !rest.is_zero()) {
            Some(rest) => Known { compared: Compared::NotYet, note, again: Some(rest) },
            None => Known { compared: Compared::Badly(why), note, again: None },
        }
    }

    fn known(&self, again: Duration) -> Known {
        Known { compared: self.compared.clone(), note: self.note.clone(), again: Some(again) }
    }

    fn in_a_row(&self, why: &str) -> String {
        match self.bad {
            1 => format!("{why}; 1 comparison was to its disadvantage"),
            bad => format!("{why}; {bad} comparisons in a row were to its disadvantage"),
        }
    }

    fn judge(&self, between: Between<'_>, readings: &Readings) -> Finding {
        let (canary, serving) = (self.since(readings, between.canary), self.since(readings, between.serving));
        let rule = between.rule;
        if canary.begun == 0 && canary.calls == 0 {
            return Finding::Quiet;
        }
        if canary.calls < u64::from(rule.min_calls) {
            // Calls that hang and calls that fail are few at first.
            let is_open = canary.begun >= u64::from(rule.min_calls);
            let why = format!("{} calls have ended there, {} of them failed", canary.calls, canary.failed);
            return if is_open || canary.failed > 0 { Finding::TooFew(why) } else { Finding::Quiet };
        }
        let is_one_callers = are_several(readings, between.canary, |traffic| traffic.callers.as_deref())
            && !are_several(readings, between.canary, |traffic| traffic.failing.as_deref());
        if fails_more(&canary, &self.usual(&serving, readings, between), rule) && !is_one_callers {
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

    /// What calls of the revision that serves come to: since the last comparison, or, where those are too few, since there are shares.
    fn usual(&self, serving: &Traffic, readings: &Readings, between: Between<'_>) -> Traffic {
        if serving.calls >= u64::from(between.rule.min_calls) {
            return serving.clone();
        }
        since(&self.first, readings, between.serving)
    }

    /// What was counted at a revision since the last comparison that said something.
    fn since(&self, readings: &Readings, revision: &str) -> Traffic {
        since(&self.base, readings, revision)
    }
}

/// What was counted at a revision beyond `base`.
fn since(base: &Readings, readings: &Readings, revision: &str) -> Traffic {
    let mut sum = Traffic::default();
    for (replica, traffic) in readings {
        let Some(now) = traffic.get(revision) else { continue };
        let before = base.get(replica).and_then(|traffic| traffic.get(revision));
        add(&mut sum, now, before.filter(|before| before.since == now.since));
    }
    sum
}

/// Adds what `now` has beyond `before`; all of it where the replica began anew.
fn add(sum: &mut Traffic, now: &Traffic, before: Option<&Traffic>) {
    let nothing = Traffic::default();
    let before = before.unwrap_or(&nothing);
    sum.begun += now.begun.saturating_sub(before.begun);
    sum.calls += now.calls.saturating_sub(before.calls);
    sum.failed += now.failed.saturating_sub(before.failed);
    for (bound, count) in &now.durations {
        let more = count.saturating_sub(before.durations.get(bound).copied().unwrap_or_default());
        *sum.durations.entry(*bound).or_default() += more;
    }
}

/// Whether more than one caller is told of.
fn are_several(readings: &Readings, revision: &str, who: impl Fn(&Traffic) -> Option<&str>) -> bool {
    let told: BTreeSet<_> = readings.values().filter_map(|traffic| who(traffic.get(revision)?)).collect();
    told.len() > 1 || told.contains(report::SEVERAL)
}

/// Whether more calls fail than may, and not by chance: by more than two standard deviations and one of what is expected where just as many fail
/// as may.
fn fails_more(canary: &Traffic, serving: &Traffic, rule: &CanaryAnalysis) -> bool {
    // Of a few calls nobody knows how many fail.
    let is_known = serving.calls >= u64::from(rule.min_calls);
    let usual = if is_known { serving.failed as f64 / serving.calls as f64 } else { 0.0 };
    let may = (usual + f64::from(rule.max_error_permille) / 1000.0).min(1.0);
    let expected = may * canary.calls as f64;
    let by_chance = 2.0 * (expected * (1.0 - may)).sqrt() + 1.0;
    canary.failed as f64 > expected + by_chance
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
