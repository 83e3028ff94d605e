use super::*;

fn alice() -> Identity {
    Identity::new("keys", "alice")
}

fn bob() -> Identity {
    Identity::new("keys", "bob")
}

/// Lets calls of these callers fail one after the other; the last verdict.
fn fail(outlier: &Outlier, kind: Kind, callers: &[Identity], now: Instant) -> Verdict {
    let mut last = Verdict::AsBefore;
    for caller in callers {
        last = outlier.failed(Asks::Work, Fault::Answered(kind), caller, now);
    }
    last
}

fn five() -> [Identity; 5] {
    [alice(), bob(), alice(), bob(), alice()]
}

#[test]
fn a_pod_whose_calls_fail_five_times_in_a_row_is_out_for_ten_seconds() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    assert_eq!(fail(&outlier, Kind::RequestTimeout, &five()[..4], now), Verdict::AsBefore);
    assert!(!outlier.is_out(|| now));
    assert_eq!(outlier.failed(Asks::Work, Fault::Answered(Kind::ServerExited), &alice(), now), Verdict::Out(FIRST));
    assert!(outlier.is_out(|| now + FIRST - Duration::from_millis(1)));
    assert!(!outlier.is_out(|| now + FIRST), "then it is tried again");
}

#[test]
fn an_answer_between_them_makes_it_a_pod_like_any_other() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    fail(&outlier, Kind::RequestTimeout, &five()[..4], now);
    assert!(!outlier.answered(Asks::Work), "it was not out");
    assert_eq!(fail(&outlier, Kind::RequestTimeout, &five()[..4], now), Verdict::AsBefore);
    assert_eq!(outlier.failed(Asks::Work, Fault::Answered(Kind::RequestTimeout), &alice(), now), Verdict::Out(FIRST));
    assert!(outlier.answered(Asks::Work), "it was");
    assert!(!outlier.is_out(|| now) && outlier.failing(|| now).is_none());
}

#[test]
fn one_that_fails_again_when_it_is_tried_is_out_for_longer_each_time_and_never_for_more_than_five_minutes() {
    let (outlier, mut now) = (Outlier::default(), Instant::now());
    fail(&outlier, Kind::RequestTimeout, &five(), now);
    let mut lengths = vec![FIRST];
    for _ in 0..40 {
        now += *lengths.last().expect("one");
        match outlier.failed(Asks::Work, Fault::Answered(Kind::RequestTimeout), &alice(), now) {
            Verdict::Out(length) => lengths.push(length),
            Verdict::AsBefore => panic!("the first failure of the trial puts it out"),
        }
    }
    assert_eq!(lengths[..3], [FIRST, FIRST * 2, FIRST * 3]);
    assert_eq!((lengths.iter().max(), lengths.last()), (Some(&LONGEST), Some(&LONGEST)));
    outlier.answered(Asks::Work);
    assert_eq!(fail(&outlier, Kind::RequestTimeout, &five(), now), Verdict::Out(FIRST), "an answer begins it anew");
}

#[test]
fn calls_that_go_on_failing_meanwhile_keep_it_out_and_are_no_news() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    fail(&outlier, Kind::RequestTimeout, &five(), now);
    let later = now + FIRST / 2;
    assert_eq!(outlier.failed(Asks::Work, Fault::Answered(Kind::RequestTimeout), &bob(), later), Verdict::AsBefore);
    assert!(outlier.is_out(|| now + FIRST));
    assert!(!outlier.is_out(|| later + FIRST));
}

#[test]
fn one_caller_alone_puts_no_pod_out_by_what_it_has_its_own_process_do() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    for kind in [Kind::ServerExited, Kind::RequestTimeout, Kind::BadServerReply] {
        assert_eq!(fail(&outlier, kind, &vec![alice(); 20], now), Verdict::AsBefore);
    }
    assert_eq!(
        outlier.failed(Asks::Work, Fault::Answered(Kind::ServerExited), &bob(), now),
        Verdict::Out(FIRST),
        "it is not only Alice's"
    );
}

#[test]
fn a_pod_that_is_not_reached_is_out_whoever_called_and_callers_without_a_name_are_several() {
    let (unreached, anonymous, now) = (Outlier::default(), Outlier::default(), Instant::now());
    for _ in 1..FAILURES {
        unreached.failed(Asks::Work, Fault::NotReached, &alice(), now);
    }
    assert_eq!(unreached.failed(Asks::Work, Fault::NotReached, &alice(), now), Verdict::Out(FIRST));
    let nobody = std::array::from_fn::<_, 5, _>(|_| Identity::anonymous());
    assert_eq!(fail(&anonymous, Kind::RequestTimeout, &nobody, now), Verdict::Out(FIRST));
}

#[test]
fn that_calls_fail_is_said_as_it_began_until_one_is_answered_or_nobody_has_called_for_five_minutes() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    fail(&outlier, Kind::RequestTimeout, &five()[..4], now);
    assert_eq!(outlier.failing(|| now), None);
    fail(&outlier, Kind::ServerExited, &[alice()], now);
    for later in [Duration::ZERO, FIRST, LONGEST - Duration::from_millis(1)] {
        assert_eq!(outlier.failing(|| now + later), Some(Kind::RequestTimeout), "{later:?}");
    }
    assert_eq!(outlier.failing(|| now + LONGEST), None);
    fail(&outlier, Kind::ServerExited, &[bob()], now + LONGEST);
    assert!(outlier.failing(|| now + LONGEST).is_some());
    outlier.answered(Asks::Work);
    assert_eq!(outlier.failing(|| now + LONGEST), None);
}

#[test]
fn what_a_caller_or_a_bound_brought_about_counts_neither_for_nor_against_a_pod() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    let kinds = [Kind::Overloaded, Kind::Draining, Kind::NotReady, Kind::Cancelled, Kind::MemoryPressure];
    for kind in kinds {
        assert_eq!(fail(&outlier, kind, &five(), now), Verdict::AsBefore);
    }
    fail(&outlier, Kind::RequestTimeout, &five()[..4], now);
    fail(&outlier, Kind::Overloaded, &five(), now);
    assert_eq!(outlier.failed(Asks::Work, Fault::Answered(Kind::RequestTimeout), &bob(), now), Verdict::Out(FIRST));
}

#[test]
fn a_server_that_hangs_in_its_tools_is_not_excused_by_what_it_says_of_itself() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    fail(&outlier, Kind::RequestTimeout, &five()[..4], now);
    assert!(!outlier.answered(Asks::of("initialize")) && !outlier.answered(Asks::of("tools/list")));
    assert!(!outlier.answered(Asks::Nothing), "that a notification was taken says nothing");
    assert_eq!(outlier.failed(Asks::Work, Fault::Answered(Kind::RequestTimeout), &bob(), now), Verdict::Out(FIRST));
    assert!(outlier.answered(Asks::of("tools/call")));
}

#[test]
fn what_failed_only_in_talk_is_ended_by_talk() {
    let (outlier, now) = (Outlier::default(), Instant::now());
    let verdicts = five().map(|caller| outlier.failed(Asks::Talk, Fault::Answered(Kind::RequestTimeout), &caller, now));
    assert_eq!(verdicts.last(), Some(&Verdict::Out(FIRST)));
    assert!(!outlier.answered(Asks::Nothing) && outlier.answered(Asks::Talk));
}
