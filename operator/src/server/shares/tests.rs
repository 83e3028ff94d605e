use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_crds::{
    MCPServer,
    server::RevisionState::{Canary, Failed, Serving},
};
use serde_json::json;

use super::*;
use crate::{
    server::{
        fixtures::{self, planned, pod},
        observed::Observed,
        rollout::{Plan, Planned, Step},
        validate,
    },
    status::{Fact, State},
};

fn server(rollout: serde_json::Value) -> MCPServer {
    let mut server = fixtures::stdio();
    server.spec.rollout = serde_json::from_value(rollout).unwrap();
    server
}

fn by_steps() -> serde_json::Value {
    json!({"type": "Canary", "canary": {"steps": [{"setWeight": 10, "pause": "1m"}, {"setWeight": 50, "pause": "1m"}]}})
}

/// The conditions while `old` serves, and `new`, which the spec asks for, is as `new` says.
fn facts(server: &MCPServer, new: Option<Planned>) -> BTreeMap<&'static str, Fact> {
    let mut observed = fixtures::nothing();
    observed.pods = vec![pod("p", "old", true), pod("q", "new", true)];
    facts_of(server, new, &observed)
}

fn facts_of(server: &MCPServer, new: Option<Planned>, observed: &Observed) -> BTreeMap<&'static str, Fact> {
    let validated = validate::validate(server, "everything", observed);
    let old = Planned { weight: 100, ..planned("old", Serving, 1) };
    let plan = Plan { revisions: new.into_iter().chain([old]).collect(), delete: Vec::new() };
    let outcome = Outcome {
        server,
        validated: &validated,
        observed,
        plan: &plan,
        desired: Some("new"),
        tool_changes: None,
        is_put_off: false,
    };
    outcome.facts().into_iter().map(|fact| (fact.type_, fact)).collect()
}

fn sharing() -> Planned {
    let step = Step { index: 1, since: Timestamp::UNIX_EPOCH };
    Planned { weight: 50, step: Some(step), ..planned("new", Canary, 1) }
}

#[track_caller]
fn assert_is(facts: &BTreeMap<&'static str, Fact>, type_: &str, state: State, reason: &str) {
    let fact = &facts[type_];
    assert_eq!((fact.state, fact.reason), (state, reason), "{fact:?}");
}

#[test]
fn a_revision_that_takes_a_share_is_progress_and_says_which_step_it_is() {
    let facts = facts(&server(by_steps()), Some(sharing()));
    assert_is(&facts, "Progressing", State::True, "CanaryStep");
    assert_is(&facts, "Ready", State::False, "CanaryStep");
    assert_is(&facts, "Reconciling", State::True, "CanaryStep");
    assert_is(&facts, "Stalled", State::False, "Reconciling");
    assert_is(&facts, "Available", State::True, "Available");
    let said = "step 2 of 2: revision new takes 50 % of new sessions, revision old the rest";
    assert_eq!(facts["Ready"].message, said);
}

#[test]
fn a_share_that_goes_no_further_says_what_holds_it_up() {
    let server = server(by_steps());
    let noted = |pod_is_ready, note: Option<&str>, gave_up| {
        let mut observed = fixtures::nothing();
        observed.pods = vec![pod("p", "old", true), pod("q", "new", pod_is_ready)];
        observed.compared.note = note.map(str::to_owned);
        if gave_up {
            observed.deployments = vec![serde_json::from_value(json!({
                "metadata": {"name": "new"},
                "status": {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]},
            }))
            .unwrap()];
        }
        facts_of(&server, Some(sharing()), &observed)
    };
    let said = |facts: &BTreeMap<&'static str, Fact>| facts["Ready"].message.clone();
    let few = noted(true, Some("3 calls have ended there"), false);
    assert!(said(&few).ends_with("it does not go on meanwhile: 3 calls have ended there"), "{}", said(&few));
    let waits = noted(false, None, false);
    assert!(said(&waits).contains("pod q") || said(&waits).contains("0 of 1 replicas"), "{}", said(&waits));
    assert_is(&waits, "Stalled", State::False, "Reconciling");
    let stranded = noted(false, None, true);
    assert_eq!(stranded["Stalled"].state, State::True, "{stranded:?}");
    assert_eq!(stranded["Ready"].reason, stranded["Stalled"].reason);
}

#[test]
fn one_that_is_paused_at_a_share_says_how_to_go_on() {
    let mut server = server(by_steps());
    server.spec.rollout.paused = true;
    let facts = facts(&server, Some(sharing()));
    assert_is(&facts, "Ready", State::False, "RolloutPaused");
    assert_is(&facts, "Progressing", State::False, "RolloutPaused");
    for part in ["stays at 50 %", "portolan rollout resume everything"] {
        assert!(facts["Ready"].message.contains(part), "{}", facts["Ready"].message);
    }
}

#[test]
fn a_revision_that_was_rolled_back_says_why_and_waits_for_a_person() {
    let back = Planned { rolled_back: Some("its calls fail".into()), ..planned("new", Failed, 0) };
    let facts = facts(&server(by_steps()), Some(back));
    for (type_, state) in [("Ready", State::False), ("Progressing", State::False), ("Stalled", State::True)] {
        assert_is(&facts, type_, state, "RolledBack");
    }
    assert_is(&facts, "Available", State::True, "Available");
    for part in ["its calls fail", "revision old serves", "portolan rollout promote everything"] {
        assert!(facts["Ready"].message.contains(part), "{}", facts["Ready"].message);
    }
}

#[test]
fn a_revision_that_was_aborted_says_so_whether_it_was_made_or_not() {
    let aborted = server(json!({"abort": "new"}));
    for new in [None, Some(planned("new", Failed, 0))] {
        let facts = facts(&aborted, new);
        assert_is(&facts, "Ready", State::False, "RolloutAborted");
        assert_is(&facts, "Stalled", State::True, "RolloutAborted");
        assert!(facts["Ready"].message.contains("revision old does"), "{}", facts["Ready"].message);
    }
    let facts = facts(&server(json!({"abort": "other"})), Some(planned("new", Failed, 1)));
    assert_is(&facts, "Ready", State::False, "Pending");
}
