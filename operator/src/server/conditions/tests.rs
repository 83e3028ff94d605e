use std::collections::BTreeMap;

use portolan_crds::{
    MCPServer,
    server::RevisionState::{self, Draining, Failed, Pending, Serving},
};

use portolan_mcp::wire::{ProbeReason, ProbeStatus};

use super::*;
use crate::{
    loaded::Complaint,
    server::{
        fixtures::{self, pod},
        observed::Observed,
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

    fn programmed(mut self, programmed: Programmed) -> Self {
        self.observed.programmed = BTreeMap::from([(self.desired.map(str::to_owned), programmed)]);
        self
    }

    fn facts(&self) -> BTreeMap<&'static str, Fact> {
        let validated = validate::validate(&self.server, "everything", &self.observed);
        let revisions =
            self.revisions.iter().map(|(name, state, replicas)| fixtures::planned(name, *state, *replicas)).collect();
        let plan = Plan { revisions, delete: Vec::new() };
        let Self { server, observed, desired, .. } = self;
        let outcome = Outcome { server, validated: &validated, observed, plan: &plan, desired: *desired };
        outcome.facts().into_iter().map(|fact| (fact.type_, fact)).collect()
    }
}

fn loaded(revision: &str) -> Observed {
    Observed {
        endpoints: vec![("platform/default".into(), "http://gateway/tools/everything/mcp".into())],
        programmed: [(Some(revision.to_owned()), Programmed::Yes)].into(),
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
    let failed = Case::new(&[("new", Failed, 1), ("old", Serving, 1)], "new").pod("p", "old", true);
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
