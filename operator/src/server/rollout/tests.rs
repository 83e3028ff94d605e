mod world;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn wish<'a>(desired: &'a str, replicas: i32) -> Wish<'a> {
    Wish {
        desired: Some(desired),
        has_other_tools: false,
        is_checked: false,
        generation: 7,
        replicas,
        type_: RolloutType::BlueGreen,
        steps: &[],
        compared: &Compared::NotYet,
        paused: false,
        promote: None,
        abort: None,
        drain_timeout: MINUTE,
        remembered: None,
        programmed: &[],
        strays: false,
        now: at(1000),
    }
}

pub(super) fn pending(name: &str, replicas: i32, verified: i32) -> Existing {
    Existing {
        name: name.into(),
        generation: 1,
        made_by: MadeBy::default(),
        serving_since: None,
        draining_since: None,
        step: None,
        rolled_back: None,
        replicas,
        verified,
        pods: replicas,
        idle: replicas == 0,
        gave_up: false,
        refuted: false,
    }
}

pub(super) fn serving(name: &str, replicas: i32, since: i64) -> Existing {
    Existing { serving_since: Some(at(since)), verified: replicas, ..pending(name, replicas, replicas) }
}

pub(super) fn draining(name: &str, replicas: i32, since: i64) -> Existing {
    Existing { draining_since: Some(at(since)), ..serving(name, replicas, 1) }
}

/// A revision as it is when what was planned has come about, with so many verified pods.
pub(super) fn kept(planned: &Planned, verified: i32) -> Existing {
    Existing {
        generation: planned.generation,
        made_by: planned.made_by.clone(),
        serving_since: planned.serving_since,
        draining_since: planned.draining_since,
        step: planned.step,
        rolled_back: planned.rolled_back.clone(),
        ..pending(&planned.name, planned.replicas, verified)
    }
}

pub(super) fn states(plan: &Plan) -> Vec<(&str, RevisionState, i32)> {
    plan.revisions.iter().map(|revision| (revision.name.as_str(), revision.state, revision.replicas)).collect()
}

use RevisionState::{Draining, Failed, Pending, Serving};

#[test]
fn a_first_revision_is_pending_until_its_replicas_answer() {
    assert_eq!(states(&plan(&wish("a", 2), &[])), [("a", Pending, 2)]);
    assert_eq!(states(&plan(&wish("a", 2), &[pending("a", 2, 1)])), [("a", Pending, 2)]);
    let plan = plan(&wish("a", 2), &[pending("a", 2, 2)]);
    assert_eq!(states(&plan), [("a", Serving, 2)]);
    assert_eq!((plan.revisions[0].serving_since, plan.revisions[0].weight), (Some(at(1000)), 100));
}

#[test]
fn a_new_template_comes_up_beside_the_one_that_serves() {
    let plan = plan(&wish("b", 2), &[serving("a", 2, 5)]);
    assert_eq!(states(&plan), [("a", Serving, 2), ("b", Pending, 2)]);
    assert_eq!((plan.revisions[1].generation, plan.revisions[1].weight), (7, 0));
}

#[test]
fn when_every_wanted_replica_answers_the_new_revision_serves_and_the_old_one_drains() {
    let plan = plan(&wish("b", 2), &[serving("a", 2, 5), pending("b", 2, 2)]);
    assert_eq!(states(&plan), [("a", Draining, 2), ("b", Serving, 2)]);
    assert_eq!(plan.revisions[0].draining_since, Some(at(1000)));
    assert_eq!(plan.revisions[1].serving_since, Some(at(1000)));
}

#[test]
fn a_revision_that_does_not_get_ready_never_takes_the_place_of_one_that_does() {
    let broken = Existing { gave_up: true, ..pending("b", 2, 1) };
    assert_eq!(states(&plan(&wish("b", 2), &[serving("a", 2, 5), broken])), [("a", Serving, 2), ("b", Failed, 2)]);
}

#[test]
fn a_revision_that_answers_and_fails_a_known_answer_check_does_not_serve_until_it_passes() {
    let wrong = Existing { refuted: true, verified: 0, ..pending("b", 2, 2) };
    let decided = plan(&wish("b", 2), &[serving("a", 2, 5), wrong.clone()]);
    assert_eq!(states(&decided), [("a", Serving, 2), ("b", Failed, 2)]);
    let right = Existing { refuted: false, verified: 2, ..wrong };
    let decided = plan(&wish("b", 2), &[serving("a", 2, 5), right]);
    assert_eq!(decided.serving().map(|serving| serving.name.as_str()), Some("b"));
}

#[test]
fn a_revision_with_other_tools_does_not_take_the_place_of_the_one_that_serves() {
    let both = [serving("a", 2, 5), pending("b", 2, 2)];
    let barred = Wish { has_other_tools: true, ..wish("b", 2) };
    assert_eq!(states(&plan(&barred, &both)), [("a", Serving, 2), ("b", Pending, 2)]);
    let nothing_serves = Wish { has_other_tools: true, ..wish("b", 2) };
    assert_eq!(states(&plan(&nothing_serves, &both[1..])), [("b", Serving, 2)], "nobody relies on anything");
}

#[test]
fn a_stopped_server_changes_over_at_once_but_not_past_what_keeps_a_running_one() {
    let both = [serving("a", 0, 5), pending("b", 0, 0)];
    assert_eq!(states(&plan(&wish("b", 0), &both)), [("b", Serving, 0)]);
    for kept in [
        Wish { paused: true, ..wish("b", 0) },
        Wish { has_other_tools: true, ..wish("b", 0) },
        Wish { is_checked: true, ..wish("b", 0) },
    ] {
        assert_eq!(states(&plan(&kept, &both)), [("a", Serving, 0), ("b", Pending, 0)], "{kept:?}");
    }
    let checked = Wish { is_checked: true, ..wish("b", 2) };
    let started = [serving("a", 0, 5), pending("b", 0, 0)];
    assert_eq!(states(&plan(&checked, &started)), [("a", Serving, 2), ("b", Pending, 2)]);
}

#[test]
fn a_draining_revision_that_is_wanted_again_serves_once_it_is_verified() {
    let back = |verified| {
        [draining("a", 2, 900), serving("b", 2, 900)].map(|revision| match &*revision.name {
            "a" => Existing { verified, ..revision },
            _ => revision,
        })
    };
    let checked = Wish { is_checked: true, ..wish("a", 2) };
    assert_eq!(states(&plan(&checked, &back(0))), [("a", Pending, 2), ("b", Serving, 2)]);
    assert_eq!(states(&plan(&checked, &back(2)))[0], ("a", Serving, 2));
}

#[test]
fn while_the_rollout_is_paused_a_new_revision_comes_up_and_the_old_one_serves() {
    let both = [serving("a", 2, 5), pending("b", 2, 2)];
    let paused = Wish { paused: true, ..wish("b", 2) };
    assert_eq!(states(&plan(&paused, &both)), [("a", Serving, 2), ("b", Pending, 2)]);
    assert_eq!(states(&plan(&paused, &both[1..])), [("b", Serving, 2)], "nothing serves that could go on");
    let recreate = Wish { type_: RolloutType::Recreate, ..paused };
    assert_eq!(states(&plan(&recreate, &both[..1])), [("a", Serving, 2)]);
}

#[test]
fn a_revision_that_gave_up_serves_once_it_answers() {
    let late = Existing { gave_up: true, ..pending("b", 2, 2) };
    assert_eq!(states(&plan(&wish("b", 2), &[late])), [("b", Serving, 2)]);
}

#[test]
fn a_serving_revision_whose_pods_fail_keeps_serving() {
    let sick = Existing { verified: 0, ..serving("a", 2, 5) };
    let plan = plan(&wish("a", 2), &[sick]);
    assert_eq!(states(&plan), [("a", Serving, 2)]);
    assert_eq!(plan.revisions[0].serving_since, Some(at(5)));
}

#[test]
fn scaling_changes_replicas_and_makes_no_revision() {
    assert_eq!(states(&plan(&wish("a", 5), &[serving("a", 2, 5)])), [("a", Serving, 5)]);
    assert_eq!(states(&plan(&wish("a", 0), &[serving("a", 2, 5)])), [("a", Serving, 0)]);
}

#[test]
fn a_stopped_server_changes_over_at_once_and_stops_what_drains() {
    let existing = [serving("a", 2, 5), draining("z", 2, 990)];
    assert_eq!(states(&plan(&wish("b", 0), &existing)), [("a", Draining, 0), ("b", Serving, 0), ("z", Draining, 0)]);
}

#[test]
fn the_pods_of_a_draining_revision_are_told_to_end_once_gateways_send_new_sessions_elsewhere() {
    let existing = [draining("a", 2, 990), serving("b", 2, 990)];
    assert_eq!(states(&plan(&wish("b", 2), &existing))[0], ("a", Draining, 2), "a gateway may still send new ones");
    let heard = Wish { programmed: &[Sending::to(Some("b"))], ..wish("b", 2) };
    assert_eq!(states(&plan(&heard, &existing))[0], ("a", Draining, 0));
}

#[test]
fn an_emptied_revision_goes_away_with_its_last_pod() {
    let leaving = Existing { replicas: 0, pods: 1, ..draining("a", 0, 990) };
    let gone = Existing { pods: 0, ..leaving.clone() };
    let wish = Wish { programmed: &[Sending::to(Some("b"))], ..wish("b", 2) };
    assert_eq!(plan(&wish, &[leaving, serving("b", 2, 990)]).delete, Vec::<String>::new());
    assert_eq!(plan(&wish, &[gone, serving("b", 2, 990)]).delete, ["a"]);
}

#[test]
fn gateways_that_never_hear_of_it_hold_up_a_draining_revision_for_the_drain_timeout_at_most() {
    let existing = |since| [draining("a", 2, since), serving("b", 2, 5)];
    assert_eq!(states(&plan(&wish("b", 2), &existing(941)))[0], ("a", Draining, 2));
    let late = plan(&wish("b", 2), &existing(940));
    assert_eq!((states(&late)[0], late.delete.len()), (("a", Draining, 0), 0));
}

#[test]
fn with_a_drain_timeout_of_zero_gateways_still_hear_of_the_cut_over_before_the_old_pods_end() {
    let wish = Wish { drain_timeout: Duration::ZERO, ..wish("b", 1) };
    let cut_over = plan(&wish, &[serving("a", 1, 5), pending("b", 1, 1)]);
    assert_eq!(states(&cut_over), [("a", Draining, 1), ("b", Serving, 1)]);
    assert_eq!(states(&plan(&wish, &[draining("a", 1, 996), serving("b", 1, 996)]))[0], ("a", Draining, 1));
    assert_eq!(states(&plan(&wish, &[draining("a", 1, 995), serving("b", 1, 995)]))[0], ("a", Draining, 0));
}

#[test]
fn an_earlier_template_finds_its_revision_while_that_drains() {
    let existing = [draining("a", 2, 990), serving("b", 2, 990)];
    let plan = plan(&wish("a", 2), &existing);
    assert_eq!(states(&plan), [("a", Serving, 2), ("b", Draining, 2)]);
    assert_eq!((plan.revisions[0].serving_since, plan.revisions[0].draining_since), (Some(at(1000)), None));
    assert_eq!(plan.revisions[0].generation, 1, "it is the revision that an earlier generation made");
}

#[test]
fn a_revision_that_is_wanted_again_keeps_its_sessions_while_its_pods_come_back() {
    let existing = [Existing { verified: 0, ..draining("a", 0, 100) }, serving("b", 2, 990)];
    let plan = plan(&wish("a", 2), &existing);
    assert_eq!(states(&plan), [("a", Pending, 2), ("b", Serving, 2)]);
}

#[test]
fn a_revision_that_never_served_goes_away_when_another_is_wanted() {
    let plan = plan(&wish("c", 1), &[serving("a", 1, 5), pending("b", 1, 0)]);
    assert_eq!(
        (states(&plan), plan.delete.clone()),
        (vec![("a", Serving, 1), ("c", Pending, 1)], vec!["b".to_owned()])
    );
}

#[test]
fn while_references_are_missing_everything_stays_and_scaling_and_draining_go_on() {
    let wish = Wish { desired: None, ..wish("", 3) };
    let existing = [serving("a", 2, 5), pending("b", 2, 2), draining("c", 2, 1)];
    let plan = plan(&wish, &existing);
    assert_eq!(
        (states(&plan), plan.delete.clone()),
        (vec![("a", Serving, 3), ("b", Pending, 3), ("c", Draining, 0)], Vec::<String>::new())
    );
}

#[test]
fn of_two_that_are_marked_as_serving_the_younger_serves() {
    let plan = plan(&wish("c", 1), &[serving("a", 1, 5), serving("b", 1, 6)]);
    assert_eq!(states(&plan), [("a", Draining, 1), ("b", Serving, 1), ("c", Pending, 1)]);
}

#[test]
fn a_serving_revision_whose_annotations_were_taken_away_serves() {
    let wish = Wish { remembered: Some("a"), ..wish("b", 2) };
    let existing = [Existing { verified: 2, ..pending("a", 2, 2) }];
    assert_eq!(states(&plan(&wish, &existing)), [("a", Serving, 2), ("b", Pending, 2)]);
}

#[test]
fn a_serving_revision_whose_deployment_was_deleted_is_made_anew_and_serves() {
    let wish = Wish { remembered: Some("a"), ..wish("a", 2) };
    assert_eq!(states(&plan(&wish, &[])), [("a", Serving, 2)]);
}

/// A minute with this share.
pub(super) fn step(weight: u8) -> CanaryStep {
    CanaryStep { set_weight: weight, pause: portolan_crds::Duration::from_secs(60) }
}
