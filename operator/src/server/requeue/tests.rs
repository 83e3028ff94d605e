use jiff::Timestamp;
use portolan_crds::server::RevisionState::{Canary, Draining, Failed, Serving};
use serde_json::json;

use super::*;
use crate::server::{
    fixtures::{self, planned, pod},
    observed::Observed,
    rollout::{Plan, Planned, Step},
    validate,
};

fn after(revisions: Vec<Planned>, observed: &Observed) -> Duration {
    after_telling(Told::Everyone, revisions, observed)
}

fn after_telling(told: Told, revisions: Vec<Planned>, observed: &Observed) -> Duration {
    let mut server = fixtures::stdio();
    let rollout = json!({"type": "Canary", "canary": {"steps": [{"setWeight": 10, "pause": "1m"}], "analysis": {"interval": "15s"}}});
    server.spec.rollout = serde_json::from_value(rollout).unwrap();
    let validated = validate::validate(&server, "everything", observed);
    let plan = Plan { revisions, delete: Vec::new() };
    let outcome = Outcome {
        server: &server,
        validated: &validated,
        observed,
        plan: &plan,
        desired: Some("new"),
        tool_changes: None,
        is_put_off: false,
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
    let leaving = |state| Planned { draining_since: Some(Timestamp::UNIX_EPOCH), ..planned("old", state, 1) };
    assert_eq!(after(vec![planned("new", Serving, 1), leaving(Failed)], &fixtures::nothing()), DRAINING);
    let revisions = vec![planned("new", Serving, 1), leaving(Draining)];
    assert_eq!(after(revisions, &fixtures::nothing()), DRAINING);
}

#[test]
fn a_bridge_that_was_not_reached_is_told_again_soon() {
    let running = || vec![planned("new", Serving, 1)];
    let observed = Observed { pods: vec![pod("p", "new", true)], ..fixtures::nothing() };
    assert_eq!(after_telling(Told::SomeLater, running(), &observed), farewell::AGAIN);
}

#[test]
fn a_revision_that_takes_a_share_is_looked_at_when_its_pause_is_over_and_when_it_can_be_compared() {
    let sharing = |since| {
        let step = Some(Step { index: 0, since: Timestamp::from_second(since).unwrap() });
        vec![planned("old", Serving, 1), Planned { step, ..planned("new", Canary, 1) }]
    };
    let again = |seconds| {
        let mut observed = fixtures::nothing();
        observed.compared.again = Some(Duration::from_secs(seconds));
        observed
    };
    // It is the second 1000.
    assert_eq!(after(sharing(950), &again(4)), Duration::from_secs(4) + LATER);
    assert_eq!(after(sharing(950), &again(20)), Duration::from_secs(10) + LATER, "the minute is over then");
    assert_eq!(
        after(sharing(900), &again(4)),
        Duration::from_secs(4) + LATER,
        "it is over, and something else holds it up"
    );
    assert_eq!(after(sharing(990), &fixtures::nothing()), Duration::from_secs(15) + LATER);
}
