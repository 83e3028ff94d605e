use super::*;

const BOUNDS: Bounds = Bounds { least: 1, most: 10, delay: Duration::from_secs(120) };

/// A second after the other, with the pods that are asked for there at once.
struct World {
    load: Load,
    now: Instant,
    pods: u32,
    bounds: Bounds,
}

impl World {
    /// Ten for each pod.
    fn new(pods: u32) -> Self {
        Self { load: Load::new(10), now: Instant::now(), pods, bounds: BOUNDS }
    }

    /// Goes on for so many seconds with this load; `None` where nobody says.
    fn go(&mut self, seconds: u32, load: Option<u32>) -> u32 {
        let reading = Reading { least: load.unwrap_or_default(), is_whole: load.is_some() };
        self.read(seconds, reading)
    }

    fn read(&mut self, seconds: u32, reading: Reading) -> u32 {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.pods = self.load.take(self.now, reading, self.pods, self.bounds);
        }
        self.pods
    }
}

#[test]
fn there_are_as_many_pods_as_the_average_of_a_minute_asks_for_and_never_more_or_fewer_than_bounds_allow() {
    let mut world = World::new(1);
    assert_eq!(world.go(60, Some(10)), 1);
    assert_eq!(world.go(60, Some(11)), 2, "one over what a pod is to have");
    assert_eq!(World::new(1).go(120, Some(1000)), 10);
    assert_eq!(World { bounds: Bounds { least: 3, ..BOUNDS }, ..World::new(1) }.go(1, Some(0)), 3);
}

#[test]
fn a_rush_is_met_within_seconds_and_a_minute_long_there_are_no_fewer() {
    let mut world = World::new(1);
    world.go(300, Some(5));
    assert_eq!(world.go(6, Some(80)), 8, "the average of a minute would ask for two");
    world.bounds.delay = Duration::ZERO;
    assert_eq!(world.go(30, Some(0)), 8, "it may come back");
    assert_eq!(world.go(100, Some(0)), 1);
}

#[test]
fn a_spike_of_one_second_is_no_rush() {
    let mut world = World::new(2);
    world.go(300, Some(15));
    world.go(1, Some(100));
    assert_eq!(world.go(10, Some(15)), 2);
}

#[test]
fn there_are_fewer_only_once_fewer_were_enough_for_the_delay() {
    let mut world = World::new(5);
    assert_eq!(world.go(200, Some(45)), 5);
    // The average takes up to a minute to fall, and the delay begins when it has.
    assert_eq!(world.go(120, Some(12)), 5);
    assert_eq!(world.go(61, Some(12)), 2);
    assert_eq!(world.go(120, Some(45)), 5, "more at once");
}

#[test]
fn who_does_not_know_the_load_takes_no_pod_away_and_begins_to_wait_anew() {
    let mut world = World::new(5);
    assert_eq!(world.go(1000, None), 5);
    assert_eq!(world.go(119, Some(0)), 5, "a new leader knows nothing of before");
    assert_eq!(world.go(2, Some(0)), 1);
    let mut world = World::new(5);
    world.go(100, Some(0));
    world.go(1, None);
    assert_eq!(world.go(120, Some(0)), 5, "one second of it was missing");
    assert_eq!(world.go(2, Some(0)), 1);
}

#[test]
fn more_load_is_met_although_someone_does_not_say_how_much_it_has() {
    let mut world = World::new(1);
    world.go(10, Some(40));
    assert_eq!(world.go(1, None), 4);
}

#[test]
fn a_load_that_only_some_tell_of_is_met_and_takes_nothing_away() {
    let mut world = World::new(5);
    let some = |least| Reading { least, is_whole: false };
    assert_eq!(world.read(300, some(80)), 8);
    assert_eq!(world.read(300, some(10)), 8);
}

#[test]
fn a_burst_that_is_the_first_that_is_known_is_no_average() {
    assert_eq!(World::new(1).go(1, Some(100)), 2, "of six seconds it is a sixth");
    let mut burst = World::new(2);
    burst.go(1, Some(60));
    assert_eq!(burst.go(9, Some(0)), 2);
}

#[test]
fn what_is_remembered_does_not_grow_with_the_delay() {
    let mut world = World { bounds: Bounds { delay: Duration::from_secs(3600), ..BOUNDS }, ..World::new(1) };
    for load in 0..4000_u32 {
        world.go(1, Some(load * 7 % 100));
    }
    assert!(world.load.asked.len() <= 10 && world.load.samples.len() <= 60, "{:?}", world.load.asked);
}
