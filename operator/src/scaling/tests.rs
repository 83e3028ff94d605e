use portolan_crds::Duration as Text;
use portolan_crds::server::ScalingMetric;

use futures::FutureExt;

use super::*;

fn by(metrics: &[(ScalingMetricType, u32)]) -> Autoscaling {
    Autoscaling {
        min_replicas: 1,
        max_replicas: 9,
        metrics: metrics.iter().map(|(type_, target)| ScalingMetric { type_: *type_, target: *target }).collect(),
        scale_down_delay: Text::from_secs(0),
        scale_to_zero_after: None,
        activation_timeout: None,
    }
}

fn server() -> Key {
    ("tools".into(), "s".into())
}

fn wanted(scaling: &Scaling, autoscaling: &Autoscaling, current: i32) -> i32 {
    scaling.of(&server(), autoscaling, Some(current), Asked::default())
}

fn load(scaling: &Scaling, began: Instant, seconds: std::ops::Range<u64>, measured: Measured) {
    for second in seconds {
        scaling.take(&server(), measured, &Calling::default(), began + Duration::from_secs(second));
    }
}

fn all(least: u32) -> Reading {
    Reading { least, is_whole: true }
}

#[test]
fn the_measure_that_asks_for_most_decides_and_the_server_is_woken_when_that_changes() {
    let wakes = Requeue::default();
    let (metrics, began) = (Metrics::new().unwrap(), Instant::now());
    let scaling = Scaling::new(wakes.clone(), metrics.clone());
    let both = by(&[(ScalingMetricType::InFlight, 10), (ScalingMetricType::Sessions, 2)]);
    assert_eq!(wanted(&scaling, &both, 3), 3, "it is left as it is while nothing is known");
    assert!(scaling.servers()[0].2, "bridges are asked");
    load(&scaling, began, 0..70, Measured { in_flight: all(15), sessions: all(12) });
    assert_eq!(wanted(&scaling, &both, 3), 6);
    let calls = by(&[(ScalingMetricType::InFlight, 10)]);
    load(&scaling, began, 70..200, Measured { in_flight: all(15), sessions: all(12) });
    assert_eq!((wanted(&scaling, &calls, 6), scaling.servers()[0].2), (6, false));
    load(&scaling, began, 200..201, Measured { in_flight: all(15), sessions: Reading::default() });
    assert_eq!(wanted(&scaling, &calls, 6), 2, "what sessions would ask for does not count any more");
    let woken = Box::pin(wakes.stream("tools")).next().now_or_never().flatten();
    assert_eq!(woken, Some(server()));
    let counted = metrics.text().unwrap();
    for direction in ["up", "down"] {
        let never = format!(r#"portolan_operator_scalings_total{{direction="{direction}"}} 0"#);
        assert!(counted.contains(never.trim_end_matches('0')) && !counted.contains(&never), "{counted}");
    }
}

#[test]
fn bounds_that_are_written_anew_hold_at_once_and_what_is_forgotten_begins_anew() {
    let scaling = Scaling::new(Requeue::default(), Metrics::new().unwrap());
    let calls = by(&[(ScalingMetricType::InFlight, 10)]);
    assert_eq!(wanted(&scaling, &calls, 5), 5);
    assert_eq!(wanted(&scaling, &Autoscaling { max_replicas: 2, ..calls.clone() }, 5), 2);
    scaling.forget(&server());
    assert_eq!(wanted(&scaling, &calls, 4), 4);
}

fn to_zero() -> Autoscaling {
    let after = Some(Text::from_secs(30));
    Autoscaling { min_replicas: 0, scale_to_zero_after: after, ..by(&[(ScalingMetricType::InFlight, 10)]) }
}

/// Who calls, second by second, while all say.
fn calls(scaling: &Scaling, began: Instant, seconds: std::ops::Range<u64>, begun: u64, under_way: u32) {
    let calling = Calling { begun: [("a".to_owned(), begun)].into(), under_way, is_whole: true };
    for second in seconds {
        scaling.take(&server(), Measured::default(), &calling, began + Duration::from_secs(second));
    }
}

#[test]
fn a_server_that_nobody_calls_has_no_pod_and_as_many_as_are_needed_as_soon_as_someone_waits() {
    let (scaling, began) = (Scaling::new(Requeue::default(), Metrics::new().unwrap()), Instant::now());
    assert_eq!(wanted(&scaling, &to_zero(), 1), 1);
    calls(&scaling, began, 0..31, 7, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 1), 1, "not yet for half a minute");
    calls(&scaling, began, 31..33, 7, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 1), 0);
    calls(&scaling, began, 33..90, 7, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 0), 0, "it sleeps on");
    calls(&scaling, began, 90..91, 32, 25);
    assert_eq!(wanted(&scaling, &to_zero(), 0), 3, "25 wait, and a pod is to have 10");
    calls(&scaling, began, 91..92, 32, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 3), 3, "the time without calls begins anew");
    let never = Autoscaling { min_replicas: 1, scale_to_zero_after: None, ..to_zero() };
    assert_eq!(wanted(&scaling, &never, 0), 3);
}

#[test]
fn a_server_stays_awake_while_a_revision_comes_up_and_is_woken_for_one() {
    let (scaling, began) = (Scaling::new(Requeue::default(), Metrics::new().unwrap()), Instant::now());
    let changing = || scaling.of(&server(), &to_zero(), Some(0), Asked { is_changing: true, ..Asked::default() });
    assert_eq!(wanted(&scaling, &to_zero(), 0), 0, "as it was when the operator began");
    assert_eq!(changing(), 1);
    calls(&scaling, began, 0..40, 7, 0);
    assert_eq!(changing(), 1, "whoever calls");
    calls(&scaling, began, 40..70, 7, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 1), 1, "and half a minute longer");
    calls(&scaling, began, 70..72, 7, 0);
    assert_eq!(wanted(&scaling, &to_zero(), 1), 0);
}

#[test]
fn what_an_autoscaler_decided_is_remembered_while_there_are_no_pods_and_taken_over_from() {
    let scaling = Scaling::new(Requeue::default(), Metrics::new().unwrap());
    let (usage, calls) = (by(&[(ScalingMetricType::Cpu, 80)]), by(&[(ScalingMetricType::InFlight, 10)]));
    assert_eq!(scaling.of(&server(), &usage, None, Asked::default()), 1, "there is nothing yet");
    assert_eq!((wanted(&scaling, &usage, 4), wanted(&scaling, &usage, 6)), (4, 6), "it is decided elsewhere");
    assert_eq!(wanted(&scaling, &usage, 0), 6, "the one before has ended, the next begins with as many");
    assert_eq!(wanted(&scaling, &Autoscaling { max_replicas: 5, ..usage.clone() }, 6), 5, "bounds hold");
    assert!(scaling.servers().is_empty(), "nobody is asked");
    assert_eq!((wanted(&scaling, &usage, 3), wanted(&scaling, &calls, 3)), (3, 3), "what there is stays");
    assert_eq!(scaling.servers().len(), 1);
}
