use std::collections::BTreeMap;

use portolan_canary::{BadCheck, Cause, Failed};
use portolan_crds::{
    MCPServer, MCPServerStatus,
    server::RevisionState::{self, Draining, Pending, Serving},
};

use portolan_mcp::wire::{ProbeReason, ProbeStatus};
use serde_json::json;

use super::*;
use crate::{
    canaries::{Fault, Standing},
    loaded::{Complaint, Sending},
    server::{
        fixtures::{self, pod},
        observed::{Definitions, Observed},
        rollout::Plan,
        validate,
    },
    status::State,
};

/// A plan, what is observed, and the revision that the spec asks for.
struct Case {
    server: MCPServer,
    revisions: Vec<(&'static str, RevisionState, i32)>,
    observed: Observed,
    desired: Option<&'static str>,
}

impl Case {
    fn new(revisions: &[(&'static str, RevisionState, i32)], desired: &'static str) -> Self {
        let revisions = revisions.to_vec();
        Self { server: fixtures::stdio(), revisions, observed: loaded("new"), desired: Some(desired) }
    }

    fn pod(mut self, name: &str, revision: &str, ready: bool) -> Self {
        self.observed.pods.push(pod(name, revision, ready));
        self
    }

    fn probe(mut self, pod: &str, found: ProbeStatus) -> Self {
        self.observed.probes.insert(pod.to_owned(), found);
        self
    }

    fn complaint(mut self, pod: &str) -> Self {
        let (replica, gateway) = ("portolan-gateway-default-x".into(), "platform/default".into());
        let complaint = Complaint { replica, gateway, kind: "RequestTimeout".into() };
        self.observed.failing.insert(pod.to_owned(), complaint);
        self
    }

    /// Where a pod stands with the known-answer checks.
    fn standing(mut self, pod: &str, standing: Standing) -> Self {
        let canaries = self.observed.canaries.get_or_insert_with(|| Ok(BTreeMap::new()));
        canaries.as_mut().unwrap().insert(pod.to_owned(), standing);
        self
    }

    fn may_sleep(mut self) -> Self {
        self.server.spec.autoscaling = Some(
            serde_json::from_value(json!({
                "minReplicas": 0, "maxReplicas": 2, "metrics": [{"type": "InFlight", "target": 1}],
            }))
            .unwrap(),
        );
        self
    }

    fn programmed(mut self, programmed: Programmed) -> Self {
        self.observed.programmed = BTreeMap::from([(Sending::to(self.desired), programmed)]);
        self
    }

    fn facts(&self) -> BTreeMap<&'static str, Fact> {
        let validated = validate::validate(&self.server, "everything", &self.observed);
        let revisions =
            self.revisions.iter().map(|(name, state, replicas)| fixtures::planned(name, *state, *replicas)).collect();
        let plan = Plan { revisions, delete: Vec::new() };
        let Self { server, observed, desired, .. } = self;
        let changes = match (plan.serving(), desired) {
            (Some(serving), Some(desired)) if !server.spec.rollout.allow_tool_changes => {
                observed.tool_changes(&serving.name, desired)
            }
            _ => None,
        };
        let tool_changes = changes.as_ref();
        let outcome = Outcome {
            server,
            validated: &validated,
            observed,
            plan: &plan,
            desired: *desired,
            tool_changes,
            is_put_off: false,
        };
        outcome.facts().into_iter().map(|fact| (fact.type_, fact)).collect()
    }
}

fn loaded(revision: &str) -> Observed {
    Observed {
        endpoints: vec![("platform/default".into(), "http://gateway/tools/everything/mcp".into())],
        programmed: [(Sending::to(Some(revision)), Programmed::Yes)].into(),
        ..fixtures::nothing()
    }
}

#[track_caller]
fn assert_is(facts: &BTreeMap<&'static str, Fact>, type_: &str, state: State, reason: &str) {
    let fact = &facts[type_];
    assert_eq!((fact.state, fact.reason), (state, reason), "{fact:?}");
}

#[test]
fn every_condition_is_written_on_first_touch() {
    let types: Vec<_> = Case::new(&[("new", Pending, 1)], "new").facts().into_keys().collect();
    let all = ["Accepted", "Available", "Programmed", "Progressing", "Ready", "Reconciling", "ResolvedRefs", "Stalled"];
    assert_eq!(types, all);
}

#[test]
fn a_server_is_ready_when_its_latest_revision_answers_and_every_gateway_has_loaded_it() {
    let facts = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).facts();
    assert_is(&facts, "Ready", State::True, "Ready");
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Reconciling", State::False, "Ready");
    assert_is(&facts, "Progressing", State::False, "RolloutComplete");
}

#[test]
fn a_bad_edit_leaves_available_true_and_says_at_ready_what_is_wrong() {
    let facts = Case::new(&[("new", Pending, 1), ("old", Serving, 1)], "new")
        .pod("p", "old", true)
        .pod("q", "new", false)
        .facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Ready", State::False, "Pending");
    assert!(facts["Ready"].message.contains("pod q") && facts["Ready"].message.contains("revision old serves"));
    assert_is(&facts, "Progressing", State::True, "RolloutInProgress");
    assert_is(&facts, "Reconciling", State::True, "RolloutInProgress");
}

#[test]
fn a_revision_that_gave_up_needs_a_person_until_it_answers() {
    let failed = Case::new(&[("new", RevisionState::Failed, 1), ("old", Serving, 1)], "new").pod("p", "old", true);
    let facts = failed.pod("q", "new", false).facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Progressing", State::False, "ProgressDeadlineExceeded");
    assert_is(&facts, "Reconciling", State::False, "ProgressDeadlineExceeded");
    assert_is(&facts, "Stalled", State::True, "ProgressDeadlineExceeded");
    let message = &facts["Stalled"].message;
    assert!(message.contains("pod q") && message.contains("revision old serves"), "{message}");
    let facts = Case::new(&[("new", Serving, 1)], "new").pod("q", "new", true).facts();
    assert_is(&facts, "Stalled", State::False, "Reconciling");
}

#[test]
fn a_server_whose_autoscaler_cannot_decide_is_available_and_ready_and_says_so() {
    let mut case = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true);
    let active = json!({
        "type": "ScalingActive", "status": "False", "message": "(get pods.metrics.k8s.io)",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    });
    let autoscaler = json!({"metadata": {"name": "new"}, "status": {"conditions": [active]}});
    case.observed.autoscalers = vec![serde_json::from_value(autoscaler).unwrap()];
    let facts = case.facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Ready", State::True, "Ready");
    for type_ in ["Available", "Ready"] {
        let message = &facts[type_].message;
        assert!(message.contains("1 of 1 replicas answer; the number") && message.contains("install metrics-server"));
    }
}

#[test]
fn a_server_without_a_gateway_is_available_and_not_ready() {
    let facts =
        Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).programmed(Programmed::NoGateway).facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Programmed", State::False, "NoGateway");
    assert_is(&facts, "Ready", State::False, "NoGateway");
}

#[test]
fn the_gateway_replica_that_lags_is_named() {
    let lack = Programmed::Waiting("replica g-1 of gateway platform/default has not reported yet".into());
    let facts = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).programmed(lack).facts();
    assert_is(&facts, "Ready", State::False, "NotLoaded");
    assert!(facts["Ready"].message.contains("replica g-1"));
    assert_is(&facts, "Reconciling", State::True, "NotLoaded");
}

#[test]
fn a_server_that_is_scaled_to_zero_says_how_to_start_it() {
    let mut case = Case::new(&[("new", Serving, 0)], "new");
    case.server.spec.replicas = 0;
    case.observed.replicas = 0;
    let facts = case.facts();
    assert_is(&facts, "Available", State::False, "ScaledToZero");
    assert_is(&facts, "Ready", State::False, "ScaledToZero");
    assert!(facts["Ready"].message.contains("kubectl scale mcpserver/everything"));
    assert_is(&facts, "Reconciling", State::False, "Ready");
}

#[test]
fn a_serving_revision_is_available_while_one_replica_answers_and_names_the_one_that_does_not() {
    let facts = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", true).pod("q", "new", false).facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert!(facts["Available"].message.contains("1 of 2") && facts["Available"].message.contains("pod q"));
    assert_is(&facts, "Reconciling", State::True, "Reconciling");
    let facts = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", false).facts();
    assert_is(&facts, "Available", State::False, "Pending");
    assert_is(&facts, "Ready", State::False, "Pending");
}

#[test]
fn a_replica_whose_probe_fails_does_not_answer_though_the_kubelet_has_not_noticed_yet() {
    let silence = "the server did not answer tools/list within 3000 ms";
    let hangs = || fixtures::ill(ProbeReason::ProbeTimeout, silence);
    let facts = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).probe("p", hangs()).facts();
    assert_is(&facts, "Available", State::False, "ProbeTimeout");
    assert_is(&facts, "Ready", State::False, "ProbeTimeout");
    let message = &facts["Available"].message;
    assert!(message.contains("pod p") && message.contains(silence), "{message}");

    let pair = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", true).pod("q", "new", true);
    let facts = pair.probe("p", fixtures::well()).probe("q", hangs()).facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert!(facts["Available"].message.contains("1 of 2") && facts["Available"].message.contains("pod q"));
}

#[test]
fn a_pod_whose_calls_fail_is_named_while_another_answers_and_without_another_nothing_is_available() {
    let one = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", true).pod("q", "new", true).complaint("p");
    let facts = one.facts();
    assert_is(&facts, "Available", State::True, "Available");
    let message = &facts["Available"].message;
    assert!(message.contains("at pod p calls fail") && message.contains("RequestTimeout"), "{message}");
    let facts = one.complaint("q").facts();
    assert_is(&facts, "Available", State::False, "CallsFail");
    assert_is(&facts, "Ready", State::False, "CallsFail");
    let message = &facts["Ready"].message;
    let parts =
        ["pod p and 1 more: checks are answered", "replica portolan-gateway-default-x", "kubectl logs -n tools p -c"];
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
    assert_is(&facts, "Stalled", State::False, "Reconciling");
}

#[test]
fn what_gateways_say_of_a_pod_that_does_not_answer_checks_is_not_the_news() {
    let case = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).complaint("p");
    let facts = case.probe("p", fixtures::ill(ProbeReason::ProbeTimeout, "it hangs")).facts();
    assert_is(&facts, "Available", State::False, "ProbeTimeout");
}

fn fault(check: &str, cause: Cause, expected: &str, got: &str) -> Fault {
    let failed = Failed { cause, expected: expected.into(), got: got.into() };
    Fault { check: check.into(), field: "spec.canaryChecks.checks[1]".into(), failed }
}

fn wrong() -> Standing {
    Standing::Failed(vec![fault("sum", Cause::Wrong, "the text \"42\"", "\"43\"")])
}

#[test]
fn a_wrong_answer_of_one_pod_is_told_with_check_pod_expected_and_got_and_traffic_goes_on() {
    let pair = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", true).pod("q", "new", true);
    let facts = pair.standing("p", Standing::Passed).standing("q", wrong()).facts();
    assert_is(&facts, "Available", State::False, "CanaryFailed");
    assert_is(&facts, "Ready", State::False, "CanaryFailed");
    let message = "canary check sum at pod q: expected the text \"42\", got \"43\"; calls still go there";
    assert_eq!(facts["Ready"].message, message);
    assert_is(&facts, "Stalled", State::False, "Reconciling");
}

#[test]
fn every_further_pod_and_check_that_fails_is_counted() {
    let more = Standing::Failed(vec![
        fault("a", Cause::Late, "an answer within 1s", "none"),
        fault("b", Cause::Error, "x", "y"),
    ]);
    let pair = Case::new(&[("new", Serving, 2)], "new").pod("p", "new", true).pod("q", "new", true);
    let facts = pair.standing("p", more).standing("q", wrong()).facts();
    let message = "canary check a at pod p: expected an answer within 1s, got none; 1 more check there fails too; 1 more pod \
                   fails too; calls still go there";
    assert_eq!(facts["Available"].message, message);
}

#[test]
fn a_revision_that_answers_wrongly_needs_a_person_and_the_one_before_it_serves() {
    let case = Case::new(&[("new", RevisionState::Failed, 1), ("old", Serving, 1)], "new")
        .pod("p", "old", true)
        .pod("q", "new", true);
    let facts = case.standing("p", Standing::Passed).standing("q", wrong()).facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Ready", State::False, "CanaryFailed");
    assert_is(&facts, "Stalled", State::True, "CanaryFailed");
    let message = &facts["Ready"].message;
    assert!(message.contains("check sum at pod q") && message.contains("revision old serves meanwhile"), "{message}");
}

#[test]
fn a_revision_that_was_not_checked_yet_says_so_and_why() {
    let case = Case::new(&[("new", Pending, 1)], "new").pod("q", "new", true);
    let facts = case.standing("q", Standing::Unknown(Some("no gateway".into()))).facts();
    assert_is(&facts, "Available", State::False, "Pending");
    let message = &facts["Available"].message;
    assert!(
        message.contains("1 of 1 replicas") && message.contains("cannot be made at pod q: no gateway"),
        "{message}"
    );
}

#[test]
fn a_check_of_a_tool_that_does_not_exist_stalls_and_names_its_field() {
    let standing = Standing::Failed(vec![fault("sum", Cause::UnknownTool, "a tool sum", "only echo")]);
    let facts = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true).standing("p", standing).facts();
    assert_is(&facts, "Stalled", State::True, "UnknownTool");
    assert_is(&facts, "Ready", State::False, "UnknownTool");
    let field = "spec.canaryChecks.checks[1].tool.name: expected a tool sum, got only echo";
    assert!(facts["Stalled"].message.starts_with(field), "{}", facts["Stalled"].message);
}

#[test]
fn a_check_that_cannot_be_made_stalls_and_names_its_field() {
    let mut case = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true);
    let bad = BadCheck { field: "spec.canaryChecks.checks[0].expect.regex".into(), message: "no regex".into() };
    case.observed.canaries = Some(Err(bad));
    let facts = case.facts();
    assert_is(&facts, "Accepted", State::False, "Invalid");
    assert_is(&facts, "Stalled", State::True, "Invalid");
    assert_is(&facts, "Ready", State::False, "Invalid");
    assert_is(&facts, "Available", State::True, "Available");
    assert!(facts["Stalled"].message.starts_with("spec.canaryChecks.checks[0].expect.regex: no regex"));
}

#[test]
fn a_new_operator_holds_to_what_the_one_before_it_found_until_it_knows_better() {
    let before = || {
        let case = Case::new(&[("new", Serving, 1)], "new").pod("p", "new", true);
        let mut before = case.standing("p", wrong());
        let (conditions, _) =
            crate::status::merge(&[], &before.facts().into_values().collect::<Vec<_>>(), Some(3), before.observed.now);
        before.server.status = Some(MCPServerStatus { conditions, ..MCPServerStatus::default() });
        before
    };
    let of = |standing: Standing| before().standing("p", standing).facts();
    let facts = of(Standing::Unknown(None));
    assert_is(&facts, "Available", State::False, "CanaryFailed");
    assert!(facts["Available"].message.contains("expected the text"), "{}", facts["Available"].message);
    assert_is(&of(Standing::Passed), "Available", State::True, "Available");
    let mut silent = before();
    silent.observed.canaries = Some(Ok(BTreeMap::new()));
    assert_is(&silent.facts(), "Available", State::False, "CanaryFailed");
    // Another pod, of which nothing is known yet, keeps nothing alive.
    let more = before().standing("p", Standing::Passed).pod("q", "new", true).standing("q", Standing::Unknown(None));
    assert_is(&more.facts(), "Available", State::True, "Available");
}

#[test]
fn a_revision_with_other_tools_stalls_and_says_which_until_that_is_allowed() {
    let of = |revision: &str, tools: serde_json::Value| {
        (revision.to_owned(), Definitions { hash: revision.into(), json: tools.to_string() })
    };
    let pods =
        || Case::new(&[("new", Pending, 1), ("old", Serving, 1)], "new").pod("p", "old", true).pod("q", "new", true);
    let mut case = pods();
    case.observed.definitions =
        [of("old", json!([{"name": "a"}, {"name": "b"}])), of("new", json!([{"name": "b", "title": "B"}]))].into();
    let facts = case.facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Ready", State::False, "ToolsChanged");
    assert_is(&facts, "Stalled", State::True, "ToolsChanged");
    let message = &facts["Ready"].message;
    for part in ["tool a is gone; tool b has another title", "revision old, which serves on", "allowToolChanges: true"]
    {
        assert!(message.contains(part), "{message}");
    }
    case.server.spec.rollout.allow_tool_changes = true;
    assert_is(&case.facts(), "Ready", State::False, "Pending");
    let mut unknown = pods();
    unknown.observed.definitions = [of("old", json!([{"name": "a"}]))].into();
    let facts = unknown.facts();
    assert_is(&facts, "Stalled", State::False, "Reconciling");
    assert!(facts["Ready"].message.contains("its tools are not known yet"), "{}", facts["Ready"].message);
}

#[test]
fn a_revision_that_is_kept_waiting_says_how_to_go_on_and_is_no_trouble() {
    let mut case =
        Case::new(&[("new", Pending, 1), ("old", Serving, 1)], "new").pod("p", "old", true).pod("q", "new", true);
    case.server.spec.rollout.paused = true;
    let facts = case.facts();
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Ready", State::False, "RolloutPaused");
    assert_is(&facts, "Progressing", State::False, "RolloutPaused");
    assert_is(&facts, "Reconciling", State::False, "RolloutPaused");
    assert_is(&facts, "Stalled", State::False, "Reconciling");
    assert!(facts["Ready"].message.contains("portolan rollout resume everything"), "{}", facts["Ready"].message);
    let facts =
        Case { server: case.server.clone(), ..Case::new(&[("new", Pending, 1)], "new") }.pod("q", "new", true).facts();
    assert_is(&facts, "Progressing", State::True, "RolloutInProgress");
}

#[test]
fn sessions_that_drain_do_not_keep_a_server_from_being_ready() {
    let facts = Case::new(&[("new", Serving, 1), ("old", Draining, 1)], "new").pod("p", "new", true).facts();
    assert_is(&facts, "Ready", State::True, "Ready");
    assert_is(&facts, "Progressing", State::False, "Draining");
}

#[test]
fn a_revision_that_starts_after_another_says_what_it_waits_for() {
    let facts = Case::new(&[("new", Pending, 0), ("old", Draining, 1)], "new").pod("p", "old", true).facts();
    assert_is(&facts, "Available", State::False, "Draining");
    assert_is(&facts, "Ready", State::False, "Draining");
    assert_is(&facts, "Progressing", State::True, "RolloutInProgress");
    for part in ["revision new starts when pod p has ended", "Recreate", "no revision serves meanwhile"] {
        assert!(facts["Ready"].message.contains(part), "{}", facts["Ready"].message);
    }
}

#[test]
fn a_missing_secret_is_the_reason_and_what_serves_is_available() {
    let spec = "container: {image: i, transport: Stdio, command: [x], envFrom: [{secretRef: {name: api}}]}";
    let case = Case { server: fixtures::server(spec), desired: None, ..Case::new(&[("new", Serving, 1)], "new") };
    let facts = case.pod("p", "new", true).facts();
    assert_is(&facts, "ResolvedRefs", State::False, "SecretNotFound");
    assert_is(&facts, "Ready", State::False, "SecretNotFound");
    assert_is(&facts, "Available", State::True, "Available");
    assert_is(&facts, "Stalled", State::False, "Reconciling");
}

#[test]
fn a_claim_that_two_revisions_cannot_share_stalls() {
    let volume = "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]";
    let spec = format!("container: {{image: i, transport: Stdio, command: [x], {volume}}}");
    let mut case = Case { server: fixtures::server(&spec), desired: None, ..Case::new(&[], "new") };
    case.observed.claims = [("data".to_owned(), Some(vec!["ReadWriteOnce".to_owned()]))].into();
    let facts = case.facts();
    assert_is(&facts, "Stalled", State::True, "ClaimNotShareable");
    assert_is(&facts, "Ready", State::False, "ClaimNotShareable");
    assert_is(&facts, "Available", State::False, "ClaimNotShareable");
}

#[test]
fn a_server_that_sleeps_is_available_and_while_it_wakes_too_unless_its_pod_fails() {
    let mut asleep = Case::new(&[("new", Serving, 0)], "new");
    asleep.observed.replicas = 0;
    assert_eq!(asleep.facts()[types::AVAILABLE].reason, reasons::SCALED_TO_ZERO);
    let facts = asleep.may_sleep().programmed(Programmed::Yes).facts();
    let available = &facts[types::AVAILABLE];
    assert_eq!((available.state, available.reason), (State::True, reasons::ASLEEP), "{}", available.message);
    assert!(available.message.contains("for 600 s"), "{}", available.message);
    assert_eq!((facts[types::READY].state, facts[types::RECONCILING].state), (State::True, State::False));
    let waking = || Case::new(&[("new", Serving, 1)], "new").may_sleep();
    for case in [waking(), waking().pod("new-1", "new", false)] {
        let available = &case.facts()[types::AVAILABLE];
        assert_eq!((available.state, available.reason), (State::True, reasons::WAKING), "{}", available.message);
    }
    let exited = fixtures::ill(ProbeReason::ServerExited, "it ended");
    let fails = waking().pod("new-1", "new", false).probe("new-1", exited);
    assert_eq!(fails.facts()[types::AVAILABLE].state, State::False);
}
