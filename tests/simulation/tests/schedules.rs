//! Every seed is a schedule: no promise is broken in any.
//!
//! `SEEDS=100000 cargo test --release -p portolan-simulation` runs more; `SEED=7 cargo test -p portolan-simulation` runs
//! one again.

use std::panic::catch_unwind;

use portolan_simulation::{Tally, run};

/// How many seeds a test run takes.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn clients_of_both_eras_are_kept_their_promises_whatever_dies_drains_or_inherits_an_address() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start > 1;
    let mut all = Tally::default();
    for seed in seeds {
        match catch_unwind(|| run(seed)) {
            Ok(tally) => all += tally,
            Err(_) => panic!("seed {seed} breaks a promise; SEED={seed} runs it again"),
        }
    }
    println!("{all:?}");
    let missing = all.missing();
    assert!(!many || missing.is_empty(), "schedules in which nothing happens show nothing; none has {missing:?}");
}
