use proptest::prelude::*;

use super::super::tests::{at, draining, kept, pending, serving, states, wish};
use super::*;
use portolan_crds::server::RolloutType;

use RevisionState::{Draining, Pending, Serving};

fn recreate(desired: &str, replicas: i32) -> Wish<'_> {
    Wish { type_: RolloutType::Recreate, ..wish(desired, replicas) }
}

fn plan(wish: &Wish<'_>, existing: &[Existing]) -> Plan {
    super::super::plan(wish, existing)
}

/// What `a` is on its way out.
fn leaving(replicas: i32, pods: i32) -> Existing {
    Existing { replicas, pods, verified: 0, idle: replicas + pods == 0, ..draining("a", 1, 1000) }
}

#[test]
fn the_old_revision_ends_before_the_new_one_starts() {
    let edited = plan(&recreate("b", 1), &[serving("a", 1, 5)]);
    assert_eq!(states(&edited), [("a", Draining, 1), ("b", Pending, 0)], "no new sessions from here on");
    assert_eq!(states(&plan(&recreate("b", 1), &[leaving(1, 1)]))[0], ("a", Draining, 1), "gateways may not know yet");
    let heard = Wish { programmed: &[Sending::to(None)], ..recreate("b", 1) };
    for (replicas, pods, why) in [(1, 1, "it is told to end"), (0, 1, "its pod still ends")] {
        assert_eq!(states(&plan(&heard, &[leaving(replicas, pods)])), [("a", Draining, 0), ("b", Pending, 0)], "{why}");
    }
    let unseen = Existing { idle: false, ..leaving(0, 0) };
    assert_eq!(states(&plan(&heard, &[unseen])), [("a", Draining, 0), ("b", Pending, 0)], "a pod may be being made");
    let ended = plan(&heard, &[leaving(0, 0)]);
    assert_eq!((states(&ended), ended.delete.clone()), (vec![("b", Pending, 1)], vec!["a".to_owned()]));
    assert_eq!(states(&plan(&recreate("b", 1), &[pending("b", 1, 1)])), [("b", Serving, 1)]);
}

#[test]
fn an_edit_that_is_taken_back_in_time_goes_on_with_what_runs() {
    let plan = plan(&recreate("a", 1), &[draining("a", 1, 999)]);
    assert_eq!((states(&plan), plan.delete.len()), (vec![("a", Serving, 1)], 0));
    assert_eq!(plan.revisions[0].draining_since, None);
}

#[test]
fn one_that_is_wanted_again_while_its_pod_ends_waits_for_that_pod_too() {
    assert_eq!(states(&plan(&recreate("a", 1), &[leaving(0, 1)])), [("a", Pending, 0)]);
    assert_eq!(states(&plan(&recreate("a", 1), &[leaving(0, 0)])), [("a", Pending, 1)]);
}

#[test]
fn what_is_missing_does_not_end_what_serves() {
    let wish = Wish { desired: None, ..recreate("", 1) };
    assert_eq!(states(&plan(&wish, &[serving("a", 1, 5)])), [("a", Serving, 1)]);
}

#[test]
fn a_stopped_server_that_is_edited_starts_when_the_pods_of_before_have_ended() {
    let stopped = plan(&recreate("b", 0), &[serving("a", 1, 5)]);
    assert_eq!(states(&stopped), [("a", Draining, 0), ("b", Serving, 0)]);
    let new = serving("b", 0, 1000);
    assert_eq!(states(&plan(&recreate("b", 1), &[leaving(0, 1), new.clone()]))[1], ("b", Serving, 0));
    assert_eq!(states(&plan(&recreate("b", 1), &[leaving(0, 0), new])), [("b", Serving, 1)]);
    let own = Existing { pods: 1, idle: false, ..serving("a", 0, 5) };
    assert_eq!(states(&plan(&recreate("a", 1), &[own])), [("a", Serving, 0)], "its own pod ends, too");
}

#[test]
fn pods_of_no_revision_there_is_are_waited_for() {
    let wish = Wish { strays: true, ..recreate("a", 1) };
    assert_eq!(states(&plan(&wish, &[])), [("a", Pending, 0)]);
    let remembered = Wish { remembered: Some("a"), ..wish };
    assert_eq!(states(&plan(&remembered, &[])), [("a", Serving, 0)]);
    assert_eq!(states(&plan(&recreate("a", 1), &[])), [("a", Pending, 1)]);
}

/// What happens to a cluster between two reconciles.
#[derive(Clone, Debug)]
enum Happening {
    Edit(u8),
    ReferencesGo,
    Scale(i32),
    Answer(bool),
    Delete(u8),
    PodsEnd,
    Seen,
    GatewaysHear,
    Time(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3_u8).prop_map(Happening::Edit),
        Just(Happening::ReferencesGo),
        (0..3_i32).prop_map(Happening::Scale),
        any::<bool>().prop_map(Happening::Answer),
        (0..3_u8).prop_map(Happening::Delete),
        Just(Happening::PodsEnd),
        Just(Happening::Seen),
        Just(Happening::GatewaysHear),
        (1..90_u16).prop_map(Happening::Time),
    ]
}

/// A cluster as the operator leaves it: pods that are told to end take their time, and a Deployment sees late what is asked.
struct World {
    revisions: Vec<Existing>,
    /// Pods of Deployments that were deleted.
    strays: i32,
    answers: bool,
    desired: Option<String>,
    remembered: Option<String>,
    replicas: i32,
    programmed: Option<String>,
    now: i64,
}

impl World {
    fn new() -> Self {
        let (desired, remembered, programmed) = (None, None, None);
        Self { revisions: Vec::new(), strays: 0, answers: true, desired, remembered, replicas: 1, programmed, now: 0 }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Edit(revision) => self.desired = Some(revision.to_string()),
            Happening::ReferencesGo => self.desired = None,
            Happening::Scale(replicas) => self.replicas = replicas,
            Happening::Answer(answers) => self.answers = answers,
            Happening::Delete(revision) => {
                let is_other = |other: &Existing| other.name != revision.to_string();
                let (kept, deleted) = std::mem::take(&mut self.revisions).into_iter().partition(is_other);
                self.revisions = kept;
                self.strays += deleted.iter().map(|deleted: &Existing| deleted.pods).sum::<i32>();
            }
            Happening::PodsEnd => {
                self.strays = 0;
                self.revisions.iter_mut().for_each(|revision| revision.pods = revision.replicas);
            }
            Happening::Seen => self.revisions.iter_mut().for_each(|revision| revision.idle = revision.pods == 0),
            Happening::GatewaysHear => self.programmed = self.remembered.clone(),
            Happening::Time(seconds) => self.now += i64::from(seconds),
        }
    }

    fn reconcile(&mut self) -> Plan {
        let programmed = [Sending::to(self.programmed.as_deref())];
        let wish = Wish {
            desired: self.desired.as_deref(),
            remembered: self.remembered.as_deref(),
            programmed: &programmed,
            strays: self.strays > 0,
            now: at(self.now),
            ..recreate("", self.replicas)
        };
        let plan = plan(&wish, &self.revisions);
        self.remembered = plan.serving().map(|serving| serving.name.clone());
        // One that waits has no objects yet.
        let made =
            |planned: &&Planned| planned.replicas > 0 || self.replicas == 0 || self.find(&planned.name).is_some();
        self.revisions = plan.revisions.iter().filter(made).map(|planned| self.made(planned)).collect();
        plan
    }

    fn find(&self, name: &str) -> Option<&Existing> {
        self.revisions.iter().find(|revision| revision.name == name)
    }

    fn made(&self, planned: &Planned) -> Existing {
        let before = self.find(&planned.name);
        let pods = before.map_or(0, |before| before.pods);
        Existing {
            pods: pods.max(planned.replicas),
            idle: before.is_some_and(|before| before.idle && planned.replicas == 0),
            ..kept(planned, if self.answers { planned.replicas } else { 0 })
        }
    }
}

proptest! {
    #[test]
    fn pods_of_two_revisions_never_run_at_once(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            let before: Vec<_> = world.revisions.iter().filter(|one| one.pods > 0).map(|one| one.name.clone()).collect();
            let running = |plan: &Plan| plan.revisions.iter().filter(|one| one.replicas > 0).count();
            let strays = world.strays > 0;
            let starts: Vec<_> = world.revisions.iter().filter(|one| one.replicas == 0).map(|one| one.name.clone()).collect();
            let plan = world.reconcile();
            prop_assert!(running(&plan) <= 1, "{plan:?}");
            for started in plan.revisions.iter().filter(|one| one.replicas > 0) {
                let is_new = !before.contains(&started.name) || starts.contains(&started.name);
                prop_assert!(!is_new || (before.is_empty() && !strays), "{started:?} beside pods of {before:?}, strays: {strays}");
                prop_assert!(before.iter().all(|name| *name == started.name), "{started:?} beside pods of {before:?}");
            }
            for name in &plan.delete {
                prop_assert!(!before.contains(name), "{name} goes away and its pods are still there");
            }
        }
    }

    #[test]
    fn whatever_happened_the_wanted_revision_serves_in_the_end(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            world.reconcile();
        }
        for settled in [Happening::Edit(1), Happening::Scale(1), Happening::Answer(true)] {
            world.happen(&settled);
        }
        for _ in 0..8 {
            for settled in [Happening::PodsEnd, Happening::Seen, Happening::GatewaysHear, Happening::Time(61)] {
                world.happen(&settled);
            }
            world.reconcile();
        }
        let plan = world.reconcile();
        prop_assert_eq!(states(&plan), [("1", Serving, 1)]);
        prop_assert!(world.revisions.iter().all(|revision| revision.pods == 1));
    }
}
