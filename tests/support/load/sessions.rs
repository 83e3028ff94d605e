//! The sessions of a load: each called in turn, ended by its client after a while, and begun again where it is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::Client;
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::call::{self, AGAIN, LATE};
use super::tally::Outcome;
use crate::mcp::{self, Session, Unopened};

/// A session, and whoever calls in it at the moment.
pub(super) struct Live {
    pub(super) session: Session,
    calls: RwLock<()>,
}

/// Where a session stands.
#[derive(Clone)]
enum Slot {
    Open(Arc<Live>),
    Opening,
    Closed,
}

/// All of them.
pub(super) struct Sessions {
    slots: Vec<Mutex<Slot>>,
    /// Who has a session: each with connections of its own, which it keeps from one session to the next.
    clients: Vec<Client>,
    next: AtomicUsize,
}

impl Sessions {
    pub(super) fn new(count: usize) -> Self {
        let slots = (0..count).map(|_| Mutex::new(Slot::Closed)).collect();
        Self { slots, clients: (0..count).map(|_| mcp::http()).collect(), next: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn alive(&self) -> u64 {
        let open = self.slots.iter().filter(|slot| matches!(*lock(slot), Slot::Open(_)));
        open.count() as u64
    }

    fn set(&self, index: usize, to: Slot) -> Slot {
        std::mem::replace(&mut lock(&self.slots[index]), to)
    }

    /// The next session in turn that is open, opened where it is closed.
    async fn next(&self, shared: &Shared) -> Option<(usize, Arc<Live>)> {
        for _ in 0..self.len() {
            let index = self.next.fetch_add(1, Ordering::Relaxed) % self.len();
            let slot = {
                let mut slot = lock(&self.slots[index]);
                let was = slot.clone();
                if matches!(was, Slot::Closed) {
                    *slot = Slot::Opening;
                }
                was
            };
            match slot {
                Slot::Open(live) => return Some((index, live)),
                Slot::Closed => {
                    if let Some(live) = self.open(shared, index).await {
                        return Some((index, live));
                    }
                }
                Slot::Opening => {}
            }
        }
        None
    }

    /// Opens the session of a slot that nobody else opens.
    pub(super) async fn open(&self, shared: &Shared, index: usize) -> Option<Arc<Live>> {
        let live = begun(shared, &self.clients[index], index).await.map(Arc::new);
        self.set(index, live.clone().map_or(Slot::Closed, Slot::Open));
        live
    }

    /// Calls in the next session.
    pub(super) async fn call(&self, shared: &Shared, number: u64) {
        let made = Instant::now();
        let Some((index, live)) = self.next(shared).await else {
            return shared.count("in a session", made, Outcome::NoSession, 0);
        };
        let calling = live.calls.read().await;
        let began = Instant::now();
        let body = call::echo(number).to_string();
        let (outcome, unconnected) = call::made(number, || live.session.exchange(body.clone())).await;
        drop(calling);
        if outcome == Outcome::SessionLost {
            let mut slot = lock(&self.slots[index]);
            // Of several calls in it one finds it lost first.
            if matches!(&*slot, Slot::Open(now) if Arc::ptr_eq(now, &live)) {
                *slot = Slot::Closed;
                shared.tally().lost += 1;
            }
        }
        shared.count("in a session", began, outcome, unconnected);
    }

    /// Begins the session of a slot anew, and ends the one that it had once its calls are answered.
    pub(super) async fn renew(&self, shared: &Shared, index: usize) {
        // One that is lost is begun anew by whoever calls in it next.
        if !matches!(*lock(&self.slots[index]), Slot::Open(_)) {
            return;
        }
        let Some(live) = begun(shared, &self.clients[index], index).await else { return };
        match self.set(index, Slot::Open(Arc::new(live))) {
            Slot::Open(before) => {
                let (began, outcome, unconnected) = end(shared, &before).await;
                shared.count("to end a session", began, outcome, unconnected);
            }
            Slot::Opening | Slot::Closed => {}
        }
    }

    /// Ends all of them.
    pub(super) async fn end(&self, shared: &Shared) {
        let all = (0..self.len()).map(|index| async move {
            if let Slot::Open(live) = self.set(index, Slot::Closed) {
                // The rate is over: what is done then counts only where it fails.
                match end(shared, &live).await {
                    (_, Outcome::Answered, _) => {}
                    (began, outcome, unconnected) => shared.count("to end a session", began, outcome, unconnected),
                }
            }
        });
        futures::future::join_all(all).await;
    }
}

/// A new session of the client of that number; what it was answered is counted.
async fn begun(shared: &Shared, http: &Client, index: usize) -> Option<Live> {
    let (began, caller) = (Instant::now(), &shared.callers[index % shared.callers.len()]);
    let credential = caller.credential.as_deref();
    let mut unconnected = 0;
    let opened = timeout(LATE, async {
        loop {
            match Session::begin(http, &shared.plan.url, credential).await {
                Err(Unopened::BrokeOff(error)) if error.is_connect() => {
                    unconnected += 1;
                    sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    });
    let (outcome, session) = match opened.await {
        Ok(Ok(session)) => (Outcome::Answered, Some(session)),
        Ok(Err(Unopened::Refused(status, text))) => (call::judge(0, status, &text), None),
        Ok(Err(Unopened::BrokeOff(error))) => (call::broke_off(&error), None),
        Err(_) => (Outcome::Late, None),
    };
    shared.count("to begin a session", began, outcome, unconnected);
    let session = session?;
    shared.tally().opened += 1;
    Some(Live { session, calls: RwLock::new(()) })
}

/// Ends a session once its calls are answered; says when that began, what came of it, and how many connections were not taken.
async fn end(shared: &Shared, live: &Live) -> (Instant, Outcome, u64) {
    let _nobody_calls = live.calls.write().await;
    let began = Instant::now();
    let mut unconnected = 0;
    let ended = timeout(LATE, call::connected(&mut unconnected, || live.session.finish())).await;
    let outcome = match ended {
        Ok(Ok(response)) if response.status().is_success() => Outcome::Answered,
        Ok(Ok(response)) if response.status() == reqwest::StatusCode::NOT_FOUND => Outcome::SessionLost,
        Ok(Ok(response)) => Outcome::Refused(response.status().to_string()),
        Ok(Err(error)) => call::broke_off(&error),
        Err(_) => Outcome::Late,
    };
    match outcome {
        Outcome::SessionLost => shared.tally().lost += 1,
        _ => shared.tally().ended += 1,
    }
    (began, outcome, unconnected)
}

fn lock(slot: &Mutex<Slot>) -> std::sync::MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
