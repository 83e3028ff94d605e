//! Every seed is a schedule: no promise is broken in any.
//!
//! `SEEDS=100000 cargo test --release -p portolan-simulation` runs more; `SEED=7 cargo test -p portolan-simulation` runs
//! one again.

use std::num::NonZero;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use portolan_simulation::{Tally, run};

/// A schedule is thousands of small allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    let next = AtomicU64::new(seeds.start);
    let take = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return tally;
            }
            match catch_unwind(|| run(seed)) {
                Ok(seen) => tally += seen,
                Err(_) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    panic!("seed {seed} breaks a promise; SEED={seed} runs it again");
                }
            }
        }
    };
    let mut all = Tally::default();
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let takers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        for taker in takers {
            all += taker.join().expect("the failing seed is named above");
        }
    });
    println!("{all:?}");
    let missing = all.missing();
    assert!(!many || missing.is_empty(), "schedules in which nothing happens show nothing; none has {missing:?}");
}
