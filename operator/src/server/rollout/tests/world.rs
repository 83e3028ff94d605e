//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

/// What happens to a cluster between two reconciles.
#[derive(Clone, Debug)]
enum Happening {
    Edit(u8),
    ReferencesGo,
    Scale(i32),
    PodsAnswer(u8, bool),
    ToolsDiffer(bool),
    Pause(bool),
    Check(bool),
    Steps(usize),
    Compare(Found),
    Promote(u8),
    Abort(u8),
    GatewaysHear,
    Time(u16),
}

#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    Well,
    Badly,
}

fn happening() -> impl Strategy<Value = Happening> {
    let found = prop_oneof![Just(Found::Nothing), Just(Found::Well), Just(Found::Well), Just(Found::Badly)];
    prop_oneof![
        3 => (0..4_u8).prop_map(Happening::Edit),
        1 => Just(Happening::ReferencesGo),
        1 => (0..4_i32).prop_map(Happening::Scale),
        2 => (0..4_u8, any::<bool>()).prop_map(|(revision, answers)| Happening::PodsAnswer(revision, answers)),
        1 => any::<bool>().prop_map(Happening::ToolsDiffer),
        1 => any::<bool>().prop_map(Happening::Pause),
        1 => any::<bool>().prop_map(Happening::Check),
        1 => (0..3_usize).prop_map(Happening::Steps),
        2 => found.prop_map(Happening::Compare),
        1 => (0..8_u8).prop_map(Happening::Promote),
        1 => (0..8_u8).prop_map(Happening::Abort),
        3 => Just(Happening::GatewaysHear),
        3 => (1..90_u16).prop_map(Happening::Time),
    ]
}

/// A cluster as the operator leaves it.
struct World {
    revisions: Vec<Existing>,
    answers: [bool; 4],
    desired: Option<String>,
    replicas: i32,
    has_other_tools: bool,
    paused: bool,
    is_checked: bool,
    steps: usize,
    found: Found,
    promote: String,
    abort: String,
    written: Sending,
    programmed: Vec<Sending>,
    now: i64,
}

impl World {
    fn new() -> Self {
        Self {
            revisions: Vec::new(),
            answers: [true; 4],
            desired: None,
            replicas: 1,
            has_other_tools: false,
            paused: false,
            is_checked: false,
            steps: 0,
            found: Found::Nothing,
            promote: String::new(),
            abort: String::new(),
            written: Sending::default(),
            programmed: Vec::new(),
            now: 0,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Edit(revision) => self.desired = Some(revision.to_string()),
            Happening::ReferencesGo => self.desired = None,
            Happening::Scale(replicas) => self.replicas = replicas,
            Happening::PodsAnswer(revision, answers) => self.answers[usize::from(revision)] = answers,
            Happening::ToolsDiffer(differ) => self.has_other_tools = differ,
            Happening::Pause(paused) => self.paused = paused,
            Happening::Check(is_checked) => self.is_checked = is_checked,
            Happening::Steps(steps) => self.steps = steps,
            Happening::Compare(found) => self.found = found,
            // Names that no revision has are as good as none.
            Happening::Promote(revision) => self.promote = revision.to_string(),
            Happening::Abort(revision) => self.abort = revision.to_string(),
            Happening::GatewaysHear => self.programmed = vec![self.written.clone()],
            Happening::Time(seconds) => self.now += i64::from(seconds),
        }
    }

    /// Whatever was written before, nothing keeps the desired revision from serving.
    fn settle(&mut self, desired: &str) {
        self.desired = Some(desired.to_owned());
        self.replicas = self.replicas.max(1);
        self.answers = [true; 4];
        self.found = Found::Well;
        (self.has_other_tools, self.paused) = (false, false);
        (self.promote, self.abort) = (String::new(), String::new());
        for _ in 0..8 {
            self.now += 100;
            self.happen(&Happening::GatewaysHear);
            self.reconcile();
        }
    }

    fn reconcile(&mut self) -> Plan {
        let steps = [step(10), step(50)];
        let compared = match self.found {
            Found::Nothing => Compared::NotYet,
            Found::Well => Compared::Well(at(self.now)),
            Found::Badly => Compared::Badly("its calls fail".into()),
        };
        let wish = Wish {
            desired: self.desired.as_deref(),
            has_other_tools: self.has_other_tools,
            is_checked: self.is_checked,
            replicas: self.replicas,
            steps: &steps[..self.steps],
            compared: &compared,
            paused: self.paused,
            promote: Some(&self.promote),
            abort: Some(&self.abort),
            programmed: &self.programmed,
            now: at(self.now),
            ..wish("", 1)
        };
        let plan = plan(&wish, &self.revisions);
        self.written = plan.sending();
        self.revisions = plan.revisions.iter().map(|planned| self.made(planned)).collect();
        plan
    }

    fn made(&self, planned: &Planned) -> Existing {
        let revision: usize = planned.name.parse().unwrap();
        kept(planned, if self.answers[revision] { planned.replicas } else { 0 })
    }
}

proptest! {
    #[test]
    fn once_a_revision_served_one_always_does_and_never_two(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        let mut served = false;
        for happening in &happenings {
            world.happen(happening);
            let plan = world.reconcile();
            let serving = plan.revisions.iter().filter(|revision| revision.state == Serving).count();
            served |= serving == 1;
            prop_assert_eq!(serving, usize::from(served), "{:?}", plan);
        }
    }

    #[test]
    fn shares_of_new_sessions_are_all_of_them_and_of_two_revisions_at_most(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            let plan = world.reconcile();
            let shares = plan.revisions.iter().map(|revision| plan.weight(revision)).filter(|share| *share > 0);
            let shares: Vec<u8> = shares.collect();
            prop_assert!(shares.len() <= 2, "{:?}", plan);
            prop_assert_eq!(shares.iter().sum::<u8>(), if plan.serving().is_some() { 100 } else { 0 }, "{:?}", plan);
        }
    }

    #[test]
    fn a_revision_that_was_rolled_back_takes_nothing_unless_it_is_promoted(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            let before = world.revisions.clone();
            let plan = world.reconcile();
            for revision in before.iter().filter(|revision| revision.rolled_back.is_some()) {
                let Some(planned) = plan.revision(&revision.name) else { continue };
                let is_promoted = world.promote == revision.name;
                prop_assert!(is_promoted || plan.weight(planned) == 0, "{:?}", plan);
            }
        }
    }

    #[test]
    fn no_revision_that_served_goes_away_before_its_last_pod(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            let before = world.revisions.clone();
            let plan = world.reconcile();
            for name in &plan.delete {
                let revision = before.iter().find(|revision| revision.name == *name).unwrap();
                let is_empty = revision.replicas == 0 && revision.pods == 0;
                prop_assert!(!revision.has_served() || is_empty, "{:?}", revision);
            }
        }
    }

    #[test]
    fn a_second_look_at_the_same_changes_nothing(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            world.reconcile();
        }
        // Pods that answer by now may change a plan once, and a revision that is emptied goes away after that.
        (0..4).for_each(|_| drop(world.reconcile()));
        prop_assert_eq!(world.reconcile(), world.reconcile());
    }

    #[test]
    fn whatever_happened_another_revision_serves_in_the_end(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            world.reconcile();
        }
        let other = if world.desired.as_deref() == Some("0") { "1" } else { "0" };
        // One that was rolled back is tried again once another one was asked for.
        world.settle("3");
        world.settle(other);
        let plan = world.reconcile();
        prop_assert_eq!(states(&plan), [(other, Serving, world.replicas)]);
    }
}
