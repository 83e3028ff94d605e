use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use portolan_crds::server::RevisionState::{Draining, Failed, Pending, Serving};

use super::*;
use crate::server::{
    fixtures::{self, planned, pod},
    observed::Observed,
    rollout::{Plan, Planned},
    validate,
};

fn after(revisions: Vec<Planned>, observed: &Observed) -> Duration {
    after_telling(Told::Everyone, revisions, observed)
}

fn after_telling(told: Told, revisions: Vec<Planned>, observed: &Observed) -> Duration {
    let server = fixtures::stdio();
    let validated = validate::validate(&server, "everything", observed);
    let plan = Plan { revisions, delete: Vec::new() };
    let outcome = Outcome { server: &server, validated: &validated, observed, plan: &plan, desired: Some("new") };
    match next(&outcome, told) {
        Next::After(after) => after,
        Next::Change => panic!("a key's Secret is not watched"),
    }
}

fn starting(second: i64) -> Observed {
    let mut pod = pod("p", "new", false);
    pod.status.as_mut().unwrap().start_time = Some(Time(Timestamp::from_second(second).unwrap()));
    Observed { pods: vec![pod], ..fixtures::nothing() }
}

#[test]
fn a_server_that_runs_is_looked_at_twice_a_minute() {
    let reports = [("p".to_owned(), Ok(fixtures::report()))].into();
    let observed = Observed { pods: vec![pod("p", "new", true)], reports, ..fixtures::nothing() };
    assert_eq!(after(vec![planned("new", Serving, 1)], &observed), CONTENT);
}

#[test]
fn a_pod_that_starts_is_asked_often_and_one_that_keeps_failing_less_so() {
    assert_eq!(after(vec![planned("new", Pending, 1)], &starting(990)), STARTING);
    assert_eq!(after(vec![planned("new", Pending, 1)], &starting(100)), FAILING);
}

#[test]
fn a_revision_that_drains_is_looked_at_every_two_seconds() {
    let revisions = vec![planned("new", Serving, 1), planned("old", Draining, 1)];
    assert_eq!(after(revisions, &fixtures::nothing()), DRAINING);
}

#[test]
fn a_revision_that_gave_up_is_not_asked_on_a_short_clock() {
    assert_eq!(after(vec![planned("new", Failed, 1)], &starting(100)), CONTENT);
}

#[test]
fn a_bridge_that_was_not_reached_is_told_again_soon() {
    let running = || vec![planned("new", Serving, 1)];
    let reports = [("p".to_owned(), Ok(fixtures::report()))].into();
    let observed = Observed { pods: vec![pod("p", "new", true)], reports, ..fixtures::nothing() };
    assert_eq!(after_telling(Told::SomeLater, running(), &observed), farewell::AGAIN);
}
