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
    scaling.of(&server(), autoscaling, current, Bridges::default())
}

fn load(scaling: &Scaling, seconds: std::ops::Range<i64>, measured: Measured) {
    for second in seconds {
        scaling.take(&server(), measured, Timestamp::from_second(second).unwrap());
    }
}

#[test]
fn the_measure_that_asks_for_most_decides_and_the_server_is_woken_when_that_changes() {
    let wakes = Requeue::default();
    let metrics = Metrics::new().unwrap();
    let scaling = Scaling::new(wakes.clone(), metrics.clone());
    let both = by(&[(ScalingMetricType::InFlight, 10), (ScalingMetricType::Sessions, 2)]);
    assert_eq!(wanted(&scaling, &both, 3), 3, "it is left as it is while nothing is known");
    assert!(scaling.servers()[0].1.is_some(), "bridges are asked");
    load(&scaling, 0..70, Measured { in_flight: Some(15), sessions: Some(12) });
    assert_eq!(wanted(&scaling, &both, 3), 6);
    let calls = by(&[(ScalingMetricType::InFlight, 10)]);
    load(&scaling, 70..200, Measured { in_flight: Some(15), sessions: Some(12) });
    assert_eq!((wanted(&scaling, &calls, 6), scaling.servers()[0].1.is_some()), (6, false));
    load(&scaling, 200..201, Measured { in_flight: Some(15), sessions: None });
    assert_eq!(wanted(&scaling, &calls, 6), 2, "what sessions would ask for does not count any more");
    let woken = Box::pin(wakes.stream("tools")).next().now_or_never().flatten();
    assert_eq!(woken, Some(server()));
    let counted = metrics.text().unwrap();
    for series in [
        r#"portolan_operator_scalings_total{direction="up"} 1"#,
        r#"portolan_operator_scalings_total{direction="down"} 1"#,
    ] {
        assert!(counted.contains(series), "{counted}");
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
