use std::{slice, sync::LazyLock};

use portolan_crds::server::{
    CanaryStep,
    RevisionState::{Canary, Draining, Failed, Pending, Serving},
    RolloutType,
};

use super::super::{
    Plan, plan,
    tests::{at, draining, pending, serving, states, step, wish},
};
use super::*;
use crate::loaded::Sending;

/// By steps; the clock says 1000, and gateways know of every share that `b` may have.
fn by_steps<'a>(steps: &'a [CanaryStep], compared: &'a Compared) -> Wish<'a> {
    static KNOWN: LazyLock<Vec<Sending>> = LazyLock::new(|| {
        let share = |weight| Sending { canary: Some(Sending::share("b", weight)), ..Sending::to(Some("a")) };
        vec![share(10), share(50)]
    });
    Wish { type_: RolloutType::Canary, steps, compared, programmed: &KNOWN, ..wish("b", 2) }
}

fn sharing(name: &str, index: usize, since: i64) -> Existing {
    Existing { step: Some(Step { index, since: at(since) }), ..pending(name, 2, 2) }
}

fn shares(plan: &Plan) -> Vec<(&str, u8)> {
    plan.revisions.iter().map(|revision| (revision.name.as_str(), plan.weight(revision))).collect()
}

#[test]
fn a_verified_revision_takes_one_share_after_the_other_and_then_everything() {
    let steps = [step(10), step(50)];
    let (unknown, well) = (Compared::NotYet, Compared::Well(at(990)));
    let a = serving("a", 2, 5);
    let unverified = plan(&by_steps(&steps, &unknown), &[a.clone(), pending("b", 2, 1)]);
    assert_eq!(states(&unverified), [("a", Serving, 2), ("b", Pending, 2)]);
    let first = plan(&by_steps(&steps, &unknown), &[a.clone(), pending("b", 2, 2)]);
    assert_eq!(states(&first), [("a", Serving, 2), ("b", Canary, 2)]);
    assert_eq!(shares(&first), [("a", 90), ("b", 10)]);
    assert_eq!(first.revisions[1].step, Some(Step { index: 0, since: at(1000) }));
    for (since, compared, share, why) in [
        (941, &well, 10, "the pause is not over"),
        (940, &unknown, 10, "nothing was compared yet"),
        (940, &well, 50, "it is over, and all is well"),
    ] {
        let next = plan(&by_steps(&steps, compared), &[a.clone(), sharing("b", 0, since)]);
        assert_eq!(shares(&next), [("a", 100 - share), ("b", share)], "{why}");
    }
    let last = plan(&by_steps(&steps, &well), &[a, sharing("b", 1, 940)]);
    assert_eq!(states(&last), [("a", Draining, 2), ("b", Serving, 2)]);
    assert_eq!((shares(&last), last.revisions[1].step), (vec![("a", 0), ("b", 100)], None));
}

#[test]
fn a_comparison_that_began_before_gateways_could_have_heard_of_the_step_does_not_end_it() {
    let (steps, early) = ([step(10), step(50)], Compared::Well(at(941)));
    let decided = plan(&by_steps(&steps, &early), &[serving("a", 2, 5), sharing("b", 0, 940)]);
    assert_eq!(shares(&decided), [("a", 90), ("b", 10)]);
}

#[test]
fn a_share_that_gateways_do_not_know_of_is_not_gone_past() {
    let (steps, well) = ([step(10), step(50)], Compared::Well(at(990)));
    let unheard = Wish { programmed: &[Sending::to(Some("a"))], ..by_steps(&steps, &well) };
    assert_eq!(shares(&plan(&unheard, &[serving("a", 2, 5), sharing("b", 0, 1)])), [("a", 90), ("b", 10)]);
}

#[test]
fn it_keeps_its_share_while_the_rollout_is_paused_or_a_replica_does_not_answer() {
    let (steps, well) = ([step(10), step(50)], Compared::Well(at(990)));
    let waits = Existing { verified: 1, ..sharing("b", 0, 1) };
    let decided = plan(&by_steps(&steps, &well), &[serving("a", 2, 5), waits]);
    assert_eq!(shares(&decided), [("a", 90), ("b", 10)]);
    let paused = Wish { paused: true, ..by_steps(&steps, &well) };
    assert_eq!(shares(&plan(&paused, &[serving("a", 2, 5), sharing("b", 1, 1)])), [("a", 50), ("b", 50)]);
    assert_eq!(shares(&plan(&paused, &[serving("a", 2, 5), pending("b", 2, 2)])), [("a", 100), ("b", 0)]);
}

#[test]
fn one_that_does_badly_is_rolled_back_keeps_its_sessions_and_is_not_tried_again() {
    let (steps, badly, well) = ([step(10)], Compared::Badly("its calls fail".into()), Compared::Well(at(990)));
    let back = plan(&by_steps(&steps, &badly), &[serving("a", 2, 5), sharing("b", 0, 990)]);
    assert_eq!(states(&back), [("a", Serving, 2), ("b", Failed, 2)]);
    assert_eq!(shares(&back), [("a", 100), ("b", 0)]);
    let b = &back.revisions[1];
    assert_eq!((b.rolled_back.as_deref(), b.draining_since, b.step), (Some("its calls fail"), Some(at(1000)), None));

    let remembered = Existing { rolled_back: b.rolled_back.clone(), ..draining("b", 2, 990) };
    let later = plan(&by_steps(&steps, &well), &[serving("a", 2, 5), remembered.clone()]);
    assert_eq!(states(&later), [("a", Serving, 2), ("b", Failed, 2)], "gateways may still send new sessions there");
    let heard = [Sending::to(Some("a"))];
    let heard = Wish { programmed: &heard, ..by_steps(&steps, &well) };
    let ended = plan(&heard, &[serving("a", 2, 5), remembered.clone()]);
    assert_eq!(states(&ended), [("a", Serving, 2), ("b", Failed, 0)]);
    let empty = Existing { replicas: 0, pods: 0, verified: 0, idle: true, ..remembered };
    let kept = plan(&heard, &[serving("a", 2, 5), empty.clone()]);
    assert_eq!(states(&kept), [("a", Serving, 2), ("b", Failed, 0)], "or nobody would know that it was");
    assert_eq!(kept.delete.len(), 0);
    let other = Wish { desired: Some("a"), ..heard };
    assert_eq!(plan(&other, &[serving("a", 2, 5), empty]).delete, ["b"]);
}

#[test]
fn promote_takes_one_past_its_steps_and_past_a_rollback_but_not_past_what_verifies_it() {
    let (steps, unknown) = ([step(10), step(50)], Compared::NotYet);
    let promoted = || Wish { promote: Some("b"), ..by_steps(&steps, &unknown) };
    let a = serving("a", 2, 5);
    for (b, serves, why) in [
        (sharing("b", 0, 999), true, "it has its share"),
        (pending("b", 2, 2), true, "it is verified"),
        (pending("b", 2, 1), false, "a replica does not answer"),
    ] {
        let decided = plan(&promoted(), &[a.clone(), b]);
        assert_eq!(decided.serving().is_some_and(|serving| serving.name == "b"), serves, "{why}");
    }
    let badly = Compared::Badly("its calls fail".into());
    let wanted = plan(&Wish { compared: &badly, ..promoted() }, &[a.clone(), sharing("b", 0, 999)]);
    assert_eq!(wanted.serving().map(|serving| serving.name.as_str()), Some("b"), "a person says so");
    for kept in [Wish { promote: Some("c"), ..promoted() }, Wish { paused: true, ..promoted() }] {
        assert_eq!(shares(&plan(&kept, &[a.clone(), sharing("b", 0, 999)])), [("a", 90), ("b", 10)], "{kept:?}");
    }
    let back = Existing { rolled_back: Some("why".into()), replicas: 0, verified: 0, ..draining("b", 2, 900) };
    let again = plan(&promoted(), &[a.clone(), back]);
    assert_eq!(states(&again), [("a", Serving, 2), ("b", Pending, 2)], "its pods come back first");
    assert_eq!(again.revisions[1].rolled_back, None);
    assert_eq!(states(&plan(&promoted(), &[a, draining("b", 2, 900)])), [("a", Draining, 2), ("b", Serving, 2)]);
}

#[test]
fn abort_keeps_one_from_serving_whatever_it_has_and_taking_it_out_tries_again() {
    let (two, unknown) = ([step(10)], Compared::NotYet);
    let a = serving("a", 2, 5);
    for steps in [&two[..], &[]] {
        let aborted = Wish { abort: Some("b"), ..by_steps(steps, &unknown) };
        assert_eq!(states(&plan(&aborted, slice::from_ref(&a))), [("a", Serving, 2)], "it is not even made");
        assert_eq!(states(&plan(&aborted, &[a.clone(), pending("b", 2, 2)])), [("a", Serving, 2), ("b", Failed, 0)]);
        let keeps = plan(&aborted, &[a.clone(), sharing("b", 0, 999)]);
        assert_eq!(states(&keeps), [("a", Serving, 2), ("b", Failed, 2)], "its sessions go on");
        assert_eq!(keeps.revisions[1].rolled_back, None);
        assert_eq!(states(&plan(&aborted, &[serving("b", 2, 5)])), [("b", Serving, 2)], "it has taken over");
    }
    let bad = Existing { rolled_back: Some("why".into()), ..draining("b", 0, 900) };
    let aborted = Wish { abort: Some("b"), ..by_steps(&two, &unknown) };
    let remembered = plan(&aborted, &[a.clone(), bad]);
    assert_eq!(remembered.revisions[1].rolled_back.as_deref(), Some("why"), "that it was rolled back is not forgotten");
    let ended = Existing { replicas: 0, verified: 0, ..draining("b", 2, 900) };
    assert_eq!(states(&plan(&by_steps(&two, &unknown), &[a, ended])), [("a", Serving, 2), ("b", Pending, 2)]);
}

#[test]
fn an_edit_during_the_rollout_drops_the_one_that_had_a_share_and_keeps_its_sessions() {
    let (steps, unknown) = ([step(10)], Compared::NotYet);
    let edited = Wish { desired: Some("c"), ..by_steps(&steps, &unknown) };
    let decided = plan(&edited, &[serving("a", 2, 5), sharing("b", 0, 990)]);
    assert_eq!(states(&decided), [("a", Serving, 2), ("b", Draining, 2), ("c", Pending, 2)]);
    let undone = Wish { desired: Some("a"), ..edited };
    let decided = plan(&undone, &[serving("a", 2, 5), sharing("b", 0, 990)]);
    assert_eq!(states(&decided), [("a", Serving, 2), ("b", Draining, 2)]);
}

#[test]
fn while_references_are_missing_a_share_stays_and_a_rollback_is_not_forgotten() {
    let (steps, unknown) = ([step(10)], Compared::NotYet);
    let missing = Wish { desired: None, ..by_steps(&steps, &unknown) };
    assert_eq!(shares(&plan(&missing, &[serving("a", 2, 5), sharing("b", 0, 990)])), [("a", 90), ("b", 10)]);
    let badly = Compared::Badly("its calls fail".into());
    let failing = plan(&Wish { compared: &badly, ..missing }, &[serving("a", 2, 5), sharing("b", 0, 990)]);
    assert_eq!(shares(&failing), [("a", 100), ("b", 0)], "nor does that go on");
    let missing = Wish { desired: None, ..by_steps(&steps, &unknown) };
    let back = Existing { rolled_back: Some("why".into()), replicas: 0, pods: 0, ..draining("b", 2, 900) };
    assert_eq!(states(&plan(&missing, &[serving("a", 2, 5), back])), [("a", Serving, 2), ("b", Failed, 0)]);
}

#[test]
fn steps_that_are_taken_out_meanwhile_do_not_strand_it() {
    let (one, well) = ([step(10)], Compared::Well(at(990)));
    let beyond = plan(&by_steps(&one, &well), &[serving("a", 2, 5), sharing("b", 3, 980)]);
    assert_eq!(states(&beyond), [("a", Draining, 2), ("b", Serving, 2)]);
    let none = Wish { type_: RolloutType::BlueGreen, ..by_steps(&[], &well) };
    let at_once = plan(&none, &[serving("a", 2, 5), sharing("b", 0, 999)]);
    assert_eq!(states(&at_once), [("a", Draining, 2), ("b", Serving, 2)]);
}

#[test]
fn the_first_revision_and_one_that_nothing_serves_beside_take_everything_at_once() {
    let (steps, unknown) = ([step(10)], Compared::NotYet);
    assert_eq!(states(&plan(&by_steps(&steps, &unknown), &[pending("b", 2, 2)])), [("b", Serving, 2)]);
}

#[test]
fn a_stopped_server_keeps_what_serves_until_the_other_one_can_show_itself() {
    let (steps, unknown) = ([step(10)], Compared::NotYet);
    let stopped = Wish { replicas: 0, ..by_steps(&steps, &unknown) };
    let decided = plan(&stopped, &[serving("a", 0, 5), pending("b", 0, 0)]);
    assert_eq!(states(&decided), [("a", Serving, 0), ("b", Pending, 0)]);
}
