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
        scaling.take(&server(), measured, began + Duration::from_secs(second));
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
