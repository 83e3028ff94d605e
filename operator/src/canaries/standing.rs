//! Where a pod stands with its checks: what its rounds so far amount to. Pure.

use portolan_canary::{Checks, Failed, Outcome};

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not every check has passed once, and none has failed; why the last round said nothing, where it did not.
    Unknown(Option<String>),
    /// Each passed when it was made last.
    Passed,
    /// These did not, the first of the spec first.
    Failed(Vec<Fault>),
}

/// A check that failed as often in a row as it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the check.
    pub check: String,
    /// Where it stands in the spec.
    pub field: String,
    /// How it failed first: what came may be another thing each time, and is no news.
    pub failed: Failed,
}

impl Default for Standing {
    fn default() -> Self {
        Self::Unknown(None)
    }
}

impl Standing {
    /// The checks that failed.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Failed(faults) => faults,
            Self::Unknown(_) | Self::Passed => &[],
        }
    }
}

/// What is known of each check at one pod.
#[derive(Debug)]
pub(super) struct Tally {
    threshold: u32,
    checks: Vec<Known>,
    /// Why the last round left something open.
    why: Option<String>,
}

#[derive(Debug)]
struct Known {
    name: String,
    field: String,
    in_a_row: u32,
    verdict: Option<Result<(), Failed>>,
}

impl Tally {
    pub(super) fn new(checks: &Checks, threshold: u32) -> Self {
        let known = |check: &portolan_canary::Check| Known {
            name: check.name.clone(),
            field: check.field.clone(),
            in_a_row: 0,
            verdict: None,
        };
        Self { threshold, checks: checks.checks.iter().map(known).collect(), why: None }
    }

    /// Takes in the outcomes of a round, in the order of the checks.
    pub(super) fn take(&mut self, outcomes: Vec<Outcome>) {
        self.why = None;
        for (known, outcome) in self.checks.iter_mut().zip(outcomes) {
            match outcome {
                Outcome::Passed(_) => {
                    known.in_a_row = 0;
                    known.verdict = Some(Ok(()));
                }
                Outcome::Failed(failed) => {
                    known.in_a_row = known.in_a_row.saturating_add(1);
                    if known.in_a_row >= self.threshold && !known.is_the_same(&failed) {
                        known.verdict = Some(Err(failed));
                    }
                }
                Outcome::NotRun(why) => {
                    self.why.get_or_insert(why);
                }
            }
        }
    }

    /// What that amounts to.
    pub(super) fn standing(&self) -> Standing {
        let fault = |known: &Known| {
            let failed = known.verdict.as_ref()?.as_ref().err()?.clone();
            Some(Fault { check: known.name.clone(), field: known.field.clone(), failed })
        };
        let faults: Vec<_> = self.checks.iter().filter_map(fault).collect();
        if !faults.is_empty() {
            return Standing::Failed(faults);
        }
        if self.checks.iter().all(|known| known.verdict.is_some()) {
            return Standing::Passed;
        }
        Standing::Unknown(self.why.clone())
    }

    /// Whether the last round left something open that another may tell.
    pub(super) fn is_open(&self) -> bool {
        self.why.is_some()
    }
}

impl Known {
    fn is_the_same(&self, failed: &Failed) -> bool {
        let before = self.verdict.as_ref().and_then(|verdict| verdict.as_ref().err());
        before.is_some_and(|before| before.cause == failed.cause && before.expected == failed.expected)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_canary::Cause;
    use serde_json::json;

    use super::*;

    fn tally(threshold: u32) -> Tally {
        let check = |name: &str| json!({"name": name, "tool": {"name": "t"}, "expect": {"contains": ["x"]}});
        let spec = serde_json::from_value(json!({"checks": [check("one"), check("two")]})).unwrap();
        Tally::new(&Checks::read(&spec).unwrap(), threshold)
    }

    fn failed(got: &str) -> Outcome {
        Outcome::Failed(Failed { cause: Cause::Wrong, expected: "x".into(), got: got.into() })
    }

    fn passed() -> Outcome {
        Outcome::Passed(Duration::ZERO)
    }

    fn not_run() -> Outcome {
        Outcome::NotRun("the server is full".into())
    }

    #[test]
    fn a_pod_has_passed_when_each_check_has() {
        let mut tally = tally(1);
        assert_eq!(tally.standing(), Standing::Unknown(None));
        tally.take(vec![passed(), not_run()]);
        assert_eq!(tally.standing(), Standing::Unknown(Some("the server is full".into())));
        assert!(tally.is_open());
        tally.take(vec![not_run(), passed()]);
        assert_eq!(tally.standing(), Standing::Passed);
    }

    #[test]
    fn a_check_has_failed_when_it_did_so_often_in_a_row_and_passes_again_at_once() {
        let mut tally = tally(2);
        tally.take(vec![passed(), failed("a")]);
        assert_eq!(tally.standing(), Standing::Unknown(None));
        tally.take(vec![passed(), passed()]);
        tally.take(vec![passed(), failed("b")]);
        assert_eq!(tally.standing(), Standing::Passed, "not in a row");
        tally.take(vec![passed(), not_run()]);
        tally.take(vec![passed(), failed("c")]);
        let [fault] = tally.standing().faults().to_vec().try_into().expect("one has failed");
        assert_eq!((fault.check.as_str(), fault.field.as_str()), ("two", "spec.canaryChecks.checks[1]"));
        tally.take(vec![passed(), passed()]);
        assert_eq!(tally.standing(), Standing::Passed);
    }

    #[test]
    fn another_wrong_answer_to_the_same_check_is_no_news_and_neither_is_a_round_that_was_not_made() {
        let mut tally = tally(1);
        tally.take(vec![failed("the time is 10:00"), passed()]);
        let before = tally.standing();
        tally.take(vec![failed("the time is 10:01"), passed()]);
        tally.take(vec![not_run(), not_run()]);
        assert_eq!(tally.standing(), before);
    }
}
