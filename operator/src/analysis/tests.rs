use portolan_crds::Duration;

use super::*;

fn rule() -> CanaryAnalysis {
    CanaryAnalysis { interval: Duration::from_secs(10), failure_threshold: 2, ..CanaryAnalysis::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn traffic(calls: u64, failed: u64, micros: u64) -> Traffic {
    Traffic { begun: calls, calls, failed, durations: BTreeMap::from([(micros, calls)]), ..Traffic::default() }
}

/// What one replica has counted at the revision that serves, `a`, and at the one that takes a share, `b`.
fn readings(a: Traffic, b: Traffic) -> Readings {
    BTreeMap::from([("replica".into(), BTreeMap::from([("a".into(), a), ("b".into(), b)]))])
}

/// Goes through readings, ten seconds apart.
fn compared(rule: &CanaryAnalysis, steps: impl IntoIterator<Item = (Traffic, Traffic)>) -> Vec<Compared> {
    let (analyses, server) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()));
    let between = Between { serving: "a", canary: "b", rule };
    analyses.of(&server, between, Readings::new(), Against::default(), at(0));
    let reading = |(step, (a, b)): (i64, _)| {
        analyses.of(&server, between, readings(a, b), Against::default(), at(10 * (step + 1))).compared
    };
    (0..).zip(steps).map(reading).collect()
}

#[test]
fn one_whose_calls_fail_is_taken_back_after_as_many_comparisons_as_are_asked_for() {
    let found = compared(
        &rule(),
        [(traffic(100, 0, 1000), traffic(20, 20, 1000)), (traffic(200, 0, 1000), traffic(40, 30, 1000))],
    );
    assert_eq!(found[0], Compared::NotYet);
    let Compared::Badly(why) = &found[1] else { panic!("{found:?}") };
    assert!(why.contains("10 of its 20 calls failed, of revision a 0 of 100"), "{why}");
    assert!(why.contains("2 comparisons in a row"), "{why}");
}

#[test]
fn one_that_fails_as_often_as_the_one_that_serves_is_not_taken_back() {
    let all_fail = [(traffic(100, 100, 1000), traffic(20, 20, 1000)), (traffic(200, 200, 1000), traffic(40, 40, 1000))];
    assert_eq!(compared(&rule(), all_fail), [Compared::Well(at(0)), Compared::Well(at(10))]);
}

#[test]
fn a_comparison_that_is_well_forgets_the_bad_ones_before() {
    let found = compared(
        &rule(),
        [
            (traffic(100, 0, 1000), traffic(20, 20, 1000)),
            (traffic(200, 0, 1000), traffic(40, 20, 1000)),
            (traffic(300, 0, 1000), traffic(60, 40, 1000)),
        ],
    );
    assert_eq!(found, [Compared::NotYet, Compared::Well(at(10)), Compared::NotYet]);
}

#[test]
fn what_may_be_chance_is_not_held_against_it() {
    let once = CanaryAnalysis { failure_threshold: 1, max_error_permille: 20, ..rule() };
    // One of twenty fails everywhere.
    for (calls, failed, is_bad) in [(10, 1, false), (10, 3, false), (10, 5, true), (100, 10, false), (100, 20, true)] {
        let found = compared(&once, [(traffic(1000, 50, 1000), traffic(calls, failed, 1000))]);
        assert_eq!(matches!(found[0], Compared::Badly(_)), is_bad, "{failed} of {calls}: {found:?}");
    }
}

#[test]
fn what_one_of_several_callers_alone_meets_is_not_held_against_it_whichever_replicas_it_was_at() {
    let once = CanaryAnalysis { failure_threshold: 1, ..rule() };
    let at_replicas = |told: [(&str, Option<&str>); 2]| {
        let (analyses, server) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()));
        let between = Between { serving: "a", canary: "b", rule: &once };
        analyses.of(&server, between, Readings::new(), Against::default(), at(0));
        let mut both = Readings::new();
        for (replica, (callers, failing)) in ["one", "other"].into_iter().zip(told) {
            let failed = if failing.is_some() { 20 } else { 0 };
            let (callers, failing) = (Some(callers.to_owned()), failing.map(str::to_owned));
            let canary = Traffic { callers, failing, ..traffic(20, failed, 1000) };
            let revisions = [("a".to_owned(), traffic(100, 0, 1000)), ("b".to_owned(), canary)];
            both.insert(replica.to_owned(), revisions.into());
        }
        analyses.of(&server, between, both, Against::default(), at(10)).compared
    };
    assert_eq!(at_replicas([("alice", Some("alice")), ("bob", None)]), Compared::Well(at(0)), "alice alone");
    assert_eq!(at_replicas([("several", Some("alice")), ("alice", Some("alice"))]), Compared::Well(at(0)), "still");
    for of_two in [[("alice", Some("alice")), ("bob", Some("bob"))], [("several", Some("several")), ("bob", None)]] {
        assert!(matches!(at_replicas(of_two), Compared::Badly(_)), "{of_two:?}");
    }
    assert!(matches!(at_replicas([("alice", Some("alice")), ("alice", None)]), Compared::Badly(_)), "the only one");
}

#[test]
fn a_wrong_answer_of_it_alone_counts_once_everyone_was_asked_again() {
    let (analyses, server, rule) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()), rule());
    let between = Between { serving: "a", canary: "b", rule: &rule };
    let wrong = || Against { wrong: Some(("wrong".into(), std::time::Duration::from_secs(60))), trouble: None };
    let look = |second, against| analyses.of(&server, between, Readings::new(), against, at(second));
    look(0, Against::default());
    let first = look(5, wrong());
    assert_eq!((first.compared, first.again), (Compared::NotYet, Some(std::time::Duration::from_secs(60))));
    assert_eq!(first.note.as_deref(), Some("wrong"), "and says so meanwhile");
    assert_eq!(look(64, wrong()).compared, Compared::NotYet);
    assert_eq!(look(65, wrong()).compared, Compared::Badly("wrong".into()));
    look(66, Against::default());
    assert_eq!(look(70, wrong()).compared, Compared::NotYet, "it was right in between");
}

#[test]
fn where_few_calls_are_left_to_the_one_that_serves_those_since_there_are_shares_count() {
    let once = CanaryAnalysis { failure_threshold: 1, ..rule() };
    // One of ten fails at either.
    let found = compared(
        &once,
        [(traffic(200, 20, 1000), traffic(20, 2, 1000)), (traffic(202, 20, 1000), traffic(120, 14, 1000))],
    );
    assert_eq!(found[1], Compared::Well(at(10)));
}

#[test]
fn calls_that_hang_are_not_taken_for_silence() {
    let hang = Traffic { begun: 30, ..Traffic::default() };
    assert_eq!(compared(&rule(), [(traffic(100, 0, 1000), hang)]), [Compared::NotYet]);
    let few = Traffic { begun: 3, ..Traffic::default() };
    assert_eq!(compared(&rule(), [(traffic(100, 0, 1000), few)]), [Compared::Well(at(0))]);
}

#[test]
fn a_replica_that_is_away_for_a_while_is_not_counted_twice() {
    let (analyses, server) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()));
    let rule = CanaryAnalysis { failure_threshold: 9, ..rule() };
    let between = Between { serving: "a", canary: "b", rule: &rule };
    let bad = || readings(traffic(100, 0, 1000), traffic(20, 20, 1000));
    let look = |second, readings| {
        analyses.of(&server, between, readings, Against::default(), at(second)).note.unwrap_or_default()
    };
    look(0, Readings::new());
    assert!(look(10, bad()).contains("1 comparison "));
    assert_eq!(look(20, Readings::new()), "");
    assert_eq!(look(30, bad()), "", "it is what it was");
}

#[test]
fn too_few_calls_say_nothing_and_count_in_the_next_comparison() {
    let found = compared(
        &CanaryAnalysis { failure_threshold: 1, ..rule() },
        [(traffic(100, 0, 1000), traffic(6, 6, 1000)), (traffic(200, 0, 1000), traffic(12, 12, 1000))],
    );
    assert_eq!(found[0], Compared::NotYet, "six that failed are no good sign");
    let Compared::Badly(why) = &found[1] else { panic!("{found:?}") };
    assert!(why.contains("12 of its 12 calls failed, of revision a 0 of 200"), "{why}");
}

#[test]
fn one_that_is_slower_is_taken_back_unless_nobody_would_notice() {
    let once = CanaryAnalysis { failure_threshold: 1, ..rule() };
    let found = compared(&once, [(traffic(100, 0, 100_000), traffic(20, 0, 300_000))]);
    let Compared::Badly(why) = &found[0] else { panic!("{found:?}") };
    assert!(why.contains("up to 300 ms, of revision a 100 ms"), "{why}");
    for (usual, slow) in [(1_000, 40_000), (100_000, 200_000)] {
        let found = compared(&once, [(traffic(100, 0, usual), traffic(20, 0, slow))]);
        assert_eq!(found, [Compared::Well(at(0))], "{usual} and {slow}");
    }
}

#[test]
fn the_slowest_twentieth_does_not_count() {
    let mut mostly_quick = traffic(95, 0, 1_000);
    assert_eq!(percentile(&mostly_quick), 1_000);
    mostly_quick.durations.insert(9_000_000, 5);
    assert_eq!(percentile(&mostly_quick), 9_000_000, "a twentieth and no less is slow");
    mostly_quick.durations.insert(9_000_000, 4);
    assert_eq!(percentile(&mostly_quick), 1_000);
    assert_eq!(percentile(&Traffic::default()), 0);
}

#[test]
fn a_replica_that_began_anew_is_counted_from_its_beginning() {
    let anew = |traffic| Traffic { since: 7, ..traffic };
    let once = CanaryAnalysis { failure_threshold: 1, ..rule() };
    let found = compared(
        &once,
        [(traffic(100, 0, 1000), traffic(5, 0, 1000)), (anew(traffic(10, 0, 1000)), anew(traffic(12, 12, 1000)))],
    );
    let Compared::Badly(why) = &found[1] else { panic!("{found:?}") };
    assert!(why.contains("12 of its 12 calls failed, of revision a 0 of 10"), "{why}");
}

#[test]
fn trouble_counts_as_a_comparison_to_its_disadvantage() {
    let (analyses, server, rule) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()), rule());
    let between = Between { serving: "a", canary: "b", rule: &rule };
    let trouble = || Against { trouble: Some("none answers".into()), wrong: None };
    let look = |second| analyses.of(&server, between, Readings::new(), trouble(), at(second)).compared;
    assert_eq!((look(0), look(10), look(15)), (Compared::NotYet, Compared::NotYet, Compared::NotYet));
    assert!(matches!(look(20), Compared::Badly(_)));
    let other = Between { canary: "c", ..between };
    let anew = analyses.of(&server, other, Readings::new(), Against::default(), at(30));
    assert_eq!(anew.compared, Compared::NotYet, "it begins anew");
}

#[test]
fn it_says_what_holds_it_up_and_when_there_may_be_more_to_know() {
    let (analyses, server, rule) = (Analyses::default(), ("tools".to_owned(), "s".to_owned()), rule());
    let between = Between { serving: "a", canary: "b", rule: &rule };
    let look = |second, b| {
        let known = analyses.of(&server, between, readings(traffic(100, 0, 1000), b), Against::default(), at(second));
        (known.compared, known.again.expect("it is compared").as_secs(), known.note.unwrap_or_default())
    };
    assert_eq!(look(0, traffic(0, 0, 1)), (Compared::NotYet, 10, String::new()));
    assert_eq!(look(4, traffic(5, 1, 1)), (Compared::NotYet, 6, String::new()));
    let few = "5 calls have ended there, 1 of them failed".to_owned();
    assert_eq!(look(10, traffic(5, 1, 1)), (Compared::NotYet, 2, few), "enough may come any moment");
    let (compared, again, note) = look(26, traffic(20, 20, 1));
    assert_eq!((compared, again), (Compared::NotYet, 10));
    assert!(
        note.contains("20 of its 20 calls failed") && note.ends_with("1 comparison was to its disadvantage"),
        "{note}"
    );
    assert_eq!(look(20, traffic(20, 20, 1)).0, Compared::Well(at(10)), "a clock that is set back is no reason to wait");
}
