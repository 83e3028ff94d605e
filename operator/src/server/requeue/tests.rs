use portolan_crds::server::RevisionState::{Draining, Serving};

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
    let outcome = Outcome {
        server: &server,
        validated: &validated,
        observed,
        plan: &plan,
        desired: Some("new"),
        tool_changes: None,
    };
    match next(&outcome, told) {
        Next::After(after) => after,
        Next::Change => panic!("a key's Secret is not watched"),
    }
}

#[test]
fn a_server_that_runs_is_looked_at_twice_a_minute() {
    let observed = Observed { pods: vec![pod("p", "new", true)], ..fixtures::nothing() };
    assert_eq!(after(vec![planned("new", Serving, 1)], &observed), CONTENT);
}

#[test]
fn a_revision_that_drains_is_looked_at_every_two_seconds() {
    let revisions = vec![planned("new", Serving, 1), planned("old", Draining, 1)];
    assert_eq!(after(revisions, &fixtures::nothing()), DRAINING);
}

#[test]
fn a_bridge_that_was_not_reached_is_told_again_soon() {
    let running = || vec![planned("new", Serving, 1)];
    let observed = Observed { pods: vec![pod("p", "new", true)], ..fixtures::nothing() };
    assert_eq!(after_telling(Told::SomeLater, running(), &observed), farewell::AGAIN);
}
