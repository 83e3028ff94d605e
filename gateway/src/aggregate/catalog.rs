//! What this replica knows of every server: asked for when it is first needed, asked again while it is used, and kept as
//! it was where a server does not answer. No server waits for another.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use portolan_mcp::{
    aggregate::Kind as ListKind,
    failure::{Failure, Kind},
};
use portolan_snapshot::RouteName;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::fetch::{self, Lists};
use crate::gateway::Gateway;
use crate::state::Entry;

/// How long whoever asks waits for servers of which nothing is known, from when they were asked.
const FIRST: Duration = Duration::from_secs(2);
/// How soon a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long one server may take to tell all it has.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of all lists of all servers.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// All that is known.
#[derive(Default)]
pub(crate) struct Catalog {
    known: Mutex<HashMap<RouteName, Known>>,
    changes: watch::Sender<Changes>,
    /// Tells that a server answered, or did not.
    answers: watch::Sender<()>,
}

/// How often each list was seen to be another, in the order of [`ListKind::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes([u64; 4]);

impl Changes {
    /// The kinds that changed since `earlier`.
    pub(super) fn since(self, earlier: Self) -> impl Iterator<Item = ListKind> {
        let pairs = self.0.into_iter().zip(earlier.0);
        ListKind::ALL.into_iter().zip(pairs).filter(|(_, (now, then))| now != then).map(|(kind, _)| kind)
    }
}

#[derive(Clone, Default)]
struct Known {
    /// The version of the object and the revision that it was asked of.
    of: (i64, Option<Box<str>>),
    lists: Option<Arc<Lists>>,
    /// What they take.
    bytes: usize,
    /// When it was asked last, and whether that is still under way.
    asked: Option<Instant>,
    is_asked: bool,
    failure: Option<Failure>,
    /// When the lists came.
    came: Option<Instant>,
}

impl Known {
    /// Whether it is to be asked now. What is known stays good for `fresh`.
    fn is_due(&self, entry: &Entry, fresh: Duration) -> bool {
        let age = self.asked.map(|asked| asked.elapsed());
        let wait = if self.failure.is_some() { AGAIN.min(fresh) } else { fresh };
        !self.is_asked && (age.is_none_or(|age| age >= wait) || self.of != version(entry))
    }

    /// Until when to wait for it; `None` where something is known of it.
    fn unheard_until(&self) -> Option<Instant> {
        let is_unheard = self.is_asked && self.lists.is_none() && self.failure.is_none();
        self.asked.filter(|_| is_unheard).map(|asked| asked + FIRST)
    }
}

fn version(entry: &Entry) -> (i64, Option<Box<str>>) {
    (entry.route.settings.version.generation, entry.route.serving.clone())
}

/// What is known of one server.
#[derive(Clone)]
pub(super) struct Part {
    /// The server.
    pub(super) route: RouteName,
    /// What it has, perhaps as it was some time ago.
    pub(super) lists: Option<Arc<Lists>>,
    /// Why that is not what it has now.
    pub(super) failure: Option<Failure>,
    /// How long ago it was so.
    pub(super) age: Duration,
}

impl Catalog {
    /// Follows what changes.
    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// What is known of `entries`, in their order. Waits only for those of which nothing is known, and not for long.
    pub(super) async fn parts(&self, gateway: &Arc<Gateway>, entries: &[&Entry]) -> Vec<Part> {
        self.forget_gone(gateway);
        let mut answers = self.answers.subscribe();
        self.refresh(gateway, entries);
        while let Some(until) = self.unheard_until(entries) {
            // What comes later is told as a change.
            if timeout_at(until, answers.changed()).await.is_err() {
                break;
            }
        }
        let known = self.lock();
        entries.iter().map(|entry| part(entry, known.get(&entry.route.name))).collect()
    }

    fn unheard_until(&self, entries: &[&Entry]) -> Option<Instant> {
        let known = self.lock();
        entries.iter().filter_map(|entry| known.get(&entry.route.name)?.unheard_until()).max()
    }

    /// Asks every server that is due, each by itself.
    fn refresh(&self, gateway: &Arc<Gateway>, entries: &[&Entry]) {
        let mut known = self.lock();
        for entry in entries {
            let known = known.entry(entry.route.name.clone()).or_default();
            if known.is_due(entry, gateway.bounds.lists_interval) {
                known.is_asked = true;
                known.asked = Some(Instant::now());
                let (gateway, entry) = (Arc::clone(gateway), Entry::clone(entry));
                tokio::spawn(async move { gateway.catalog.ask(&gateway, &entry).await });
            }
        }
    }

    /// Forgets servers that are served no more: what they had is gone from the lists.
    fn forget_gone(&self, gateway: &Gateway) {
        let Ok(serving) = gateway.state.serving() else { return };
        let gone: Vec<Known> = {
            let mut known = self.lock();
            let gone = known.extract_if(|route, _| serving.route(route.as_str()).is_none());
            gone.map(|(_, known)| known).collect()
        };
        for lists in gone.into_iter().filter_map(|known| known.lists) {
            self.tell(changed(None, &lists));
        }
    }

    async fn ask(&self, gateway: &Gateway, entry: &Entry) {
        let answer = AssertUnwindSafe(timeout(WHOLE, fetch::lists(entry))).catch_unwind().await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(Failure::new(Kind::RequestTimeout, format!("its lists did not come within {} s", WHOLE.as_secs())))
            }
            Err(_) => {
                gateway.metrics.panics.inc();
                Err(Failure::new(Kind::Internal, "the gateway failed on its lists"))
            }
        };
        let changed = self.note(gateway, entry, answer);
        self.tell(changed);
        self.answers.send_replace(());
    }

    /// Notes what a server answered; says which of its lists are others than they were.
    fn note(&self, gateway: &Gateway, entry: &Entry, answer: Result<Lists, Failure>) -> [bool; 4] {
        let mut all = self.lock();
        let held: usize = all.values().map(|known| known.bytes).sum();
        // A server that is gone by now is forgotten.
        let Some(known) = all.get_mut(&entry.route.name) else { return [false; 4] };
        known.is_asked = false;
        known.of = version(entry);
        let answer = answer.and_then(|lists| {
            let bytes = lists.bytes();
            if held - known.bytes + bytes <= MAX_BYTES {
                return Ok((lists, bytes));
            }
            gateway.metrics.bound_hit("Lists");
            let message = format!("the lists of all servers have more than {MAX_BYTES} bytes with those of this one");
            Err(Failure::new(Kind::Overloaded, message))
        });
        match answer {
            Ok((lists, bytes)) => {
                let changed = changed(known.lists.as_deref(), &lists);
                known.failure = None;
                known.came = Some(Instant::now());
                known.lists = Some(Arc::new(lists));
                known.bytes = bytes;
                changed
            }
            Err(failure) => {
                tracing::debug!(route = %entry.route.name, error = %failure, "a server's lists could not be had");
                gateway.metrics.catalog_failures.inc();
                known.failure = Some(failure);
                [false; 4]
            }
        }
    }

    fn tell(&self, changed: [bool; 4]) {
        if changed.contains(&true) {
            self.changes.send_modify(|changes| {
                for (count, changed) in changes.0.iter_mut().zip(changed) {
                    *count += u64::from(changed);
                }
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RouteName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which lists are others than they were.
fn changed(before: Option<&Lists>, now: &Lists) -> [bool; 4] {
    std::array::from_fn(|place| match before {
        Some(before) => before.items[place] != now.items[place],
        None => !now.items[place].is_empty(),
    })
}

fn part(entry: &Entry, known: Option<&Known>) -> Part {
    let known = known.cloned().unwrap_or_default();
    let unheard = || Failure::new(Kind::NotReady, "it has not said yet what it has");
    Part {
        route: entry.route.name.clone(),
        failure: known.failure.or_else(|| known.lists.is_none().then(unheard)),
        age: known.came.map(|came| came.elapsed()).unwrap_or_default(),
        lists: known.lists,
    }
}
