//! Clients of both eras that call at a constant rate, whatever becomes of their calls, and count every answer.
//!
//! Half of the calls are made in sessions, the other half alone. A call that is not answered does not hold up the next one:
//! what a change does to a server is seen by as many calls as there would have been without it.

mod call;
mod sessions;
mod streams;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use reqwest::Client;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

pub use tally::{Failed, Outcome, Streams, Tally};

use crate::mcp::{self, Session};
use crate::wait::{PATIENCE, until};
use sessions::Sessions;

/// Sessions that are opened at once at the start.
const OPENED_AT_ONCE: usize = 8;

/// Whom is called, and how much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server: one that has a tool `echo`, as `portolan demo-server` has.
    pub url: String,
    /// What each caller presents. Calls and sessions go round.
    pub credentials: Vec<Option<String>>,
    /// Sessions that are alive at every moment.
    pub sessions: usize,
    /// Calls a second.
    pub rate: u32,
    /// How often a client ends its session and begins another.
    pub renewal: Duration,
    /// Standing streams of each era.
    pub streams: usize,
}

/// A load that goes on until [`Self::stop`].
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    pace: JoinHandle<()>,
    streams: JoinSet<()>,
    listeners: Vec<Session>,
}

/// One caller, with connections of its own.
#[derive(Clone)]
struct Who {
    http: Client,
    credential: Option<String>,
}

struct Shared {
    plan: Plan,
    callers: Vec<Who>,
    sessions: Sessions,
    tally: Mutex<Tally>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: &'static str, began: Instant, outcome: Outcome, unconnected: u64) {
        let mut tally = self.tally();
        tally.unconnected += unconnected;
        tally.count(what, began, outcome);
    }

    fn stream(&self, change: impl FnOnce(&mut Streams)) {
        change(&mut self.tally().streams);
    }

    async fn call_alone(&self, number: u64) {
        let caller = &self.callers[number as usize / 2 % self.callers.len()];
        let began = Instant::now();
        let send = || mcp::post_alone(&caller.http, &self.plan.url, caller.credential.as_deref(), call::echo(number));
        let (outcome, unconnected) = call::made(number, send).await;
        self.count("alone", began, outcome, unconnected);
    }
}

impl Load {
    /// Opens the sessions and the streams, and begins to call.
    ///
    /// # Panics
    /// A session or a stream does not open.
    pub async fn start(plan: Plan) -> Self {
        let callers: Vec<_> = plan
            .credentials
            .iter()
            .map(|credential| Who { http: mcp::http(), credential: credential.clone() })
            .collect();
        assert!(!callers.is_empty() && plan.rate > 0, "somebody calls");
        let sessions = Sessions::new(plan.sessions);
        let shared = Arc::new(Shared { plan, callers, sessions, tally: Mutex::new(Tally::new()) });
        let open = |index| shared.sessions.open(&shared, index);
        stream::iter(0..shared.plan.sessions)
            .for_each_concurrent(OPENED_AT_ONCE, |index| async move { drop(open(index).await) })
            .await;
        assert_eq!(shared.sessions.alive(), shared.plan.sessions as u64, "{}", shared.tally());
        let (mut streams, mut listeners) = (JoinSet::new(), Vec::new());
        for index in 0..shared.plan.streams {
            let caller = shared.callers[index % shared.callers.len()].clone();
            let listener = Session::open(&shared.plan.url, caller.credential.as_deref()).await.expect("a session");
            streams.spawn(streams::standing(shared.clone(), listener.clone()));
            streams.spawn(streams::alone(shared.clone(), caller));
            listeners.push(listener);
        }
        until("every stream is open", PATIENCE, || async {
            let seen = shared.tally().streams;
            if seen.open == 2 * shared.plan.streams as u64 { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        {
            let mut tally = shared.tally();
            *tally = Tally { opened: tally.opened, streams: tally.streams, ..Tally::new() };
        }
        let stop = watch::Sender::new(false);
        let pace = tokio::spawn(pace(shared.clone(), stop.subscribe()));
        Self { shared, stop, pace, streams, listeners }
    }

    /// What was counted so far.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        self.shared.tally().until = Instant::now();
        self.seen()
    }

    /// Makes no more calls, waits for what came of all that were made, and ends the sessions.
    ///
    /// # Panics
    /// The load itself failed.
    pub async fn stop(mut self) -> Tally {
        self.shared.tally().until = Instant::now();
        self.stop.send_replace(true);
        (&mut self.pace).await.expect("the load goes on to its end");
        let tally = self.seen();
        self.streams.shutdown().await;
        self.shared.sessions.end(&self.shared).await;
        for listener in &self.listeners {
            // Whether it was there still is what its stream said.
            let _answer = listener.delete().await;
        }
        let seen = self.shared.tally();
        Tally {
            calls: seen.calls.clone(),
            failures: seen.failures.clone(),
            ended: seen.ended,
            lost: seen.lost,
            ..tally
        }
    }

    fn seen(&self) -> Tally {
        Tally { alive: self.shared.sessions.alive(), ..self.shared.tally().clone() }
    }
}

impl Drop for Load {
    /// Of a test that failed meanwhile.
    fn drop(&mut self) {
        self.pace.abort();
    }
}

/// Makes the calls, each at its time, until it is told to stop; then waits for those that are under way.
async fn pace(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut clock = interval(Duration::from_secs(1) / shared.plan.rate);
    // What a busy machine did not let be made in time is made then: the rate is what was asked for.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut renewal = interval(shared.plan.renewal);
    renewal.tick().await;
    let (mut under_way, mut number, mut renewed) = (JoinSet::new(), 0_u64, 0);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                number += 1;
                let (shared, number) = (shared.clone(), number);
                under_way.spawn(async move {
                    if number.is_multiple_of(2) && shared.sessions.len() > 0 {
                        shared.sessions.call(&shared, number).await;
                    } else {
                        shared.call_alone(number).await;
                    }
                });
            }
            _ = renewal.tick(), if shared.sessions.len() > 0 => {
                let (shared, index) = (shared.clone(), renewed % shared.sessions.len());
                renewed += 1;
                under_way.spawn(async move { shared.sessions.renew(&shared, index).await });
            }
            _ = stop.changed() => break,
        }
        while let Some(ended) = under_way.try_join_next() {
            ended.expect("a call does not panic");
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended.expect("a call does not panic");
    }
}
