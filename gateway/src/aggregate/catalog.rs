//! What this replica knows of every server: asked for when it is first needed, asked again while it is used, and kept as
//! it was where a server does not answer. No server waits for another.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use portolan_mcp::{
    aggregate::Kind as ListKind,
    failure::{Failure, Kind},
};
use portolan_snapshot::RouteName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::fetch::{self, Lists};
use crate::gateway::Gateway;
use crate::state::{Entry, unix_time};

/// How long whoever asks waits for servers of which nothing is known, from when they were asked.
const FIRST: Duration = Duration::from_secs(2);
/// How soon a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How soon a server that says that its lists have changed is asked again after it was asked last.
const HEARD: Duration = Duration::from_secs(1);
/// How long one server may take to tell all it has.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of all lists of all servers.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// All that is known.
#[derive(Default)]
pub(crate) struct Catalog {
    known: Mutex<HashMap<RouteName, Known>>,
    /// How often what is known became something else.
    version: AtomicU64,
    changes: watch::Sender<Changes>,
    /// Tells counts of this process from those of others.
    replica: OnceLock<u64>,
    /// Tells that a server answered, or did not.
    answers: watch::Sender<()>,
}

/// How often each list was seen to be another, in the order of [`ListKind::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes([u64; 4]);

impl Changes {
    /// As an event's id has it.
    pub(super) fn as_id(self, replica: u64) -> String {
        let [tools, prompts, resources, templates] = self.0;
        format!("{replica:x}.{tools}.{prompts}.{resources}.{templates}")
    }

    /// Reads an id back that this replica gave.
    pub(super) fn of_id(id: &str, replica: u64) -> Option<Self> {
        let mut parts = id.split('.');
        let of = u64::from_str_radix(parts.next()?, 16).ok()?;
        let counts: Vec<u64> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
        (of == replica).then(|| counts.try_into().ok().map(Self))?
    }

    /// The kinds that changed since `earlier`.
    pub(super) fn since(self, earlier: Self) -> impl Iterator<Item = ListKind> {
        let pairs = self.0.into_iter().zip(earlier.0);
        ListKind::ALL.into_iter().zip(pairs).filter(|(_, (now, then))| now != then).map(|(kind, _)| kind)
    }
}

#[derive(Default)]
struct Known {
    /// The version of the object and the revision that it was asked of.
    of: (i64, Option<Box<str>>),
    lists: Option<Arc<Lists>>,
    /// What they take.
    bytes: usize,
    /// When it was asked last, and whether that is still under way.
    asked: Option<Instant>,
    is_asked: bool,
    /// Whether it said that they have changed, and is to be asked for that.
    is_heard: bool,
    failure: Option<Failure>,
    /// When the lists came.
    came: Option<Instant>,
}

impl Known {
    /// When it is to be asked again, or to be looked at again while it is asked. What is known stays good for `fresh`.
    fn due(&self, entry: &Entry, fresh: Duration) -> Instant {
        // One that sleeps is not woken for that.
        if entry.route.is_asleep() {
            return Instant::now() + fresh;
        }
        let since = match self.asked {
            Some(_) if self.is_asked => Some(Instant::now()),
            asked => asked.filter(|_| self.of == version(entry)),
        };
        since.map_or_else(Instant::now, |since| since + self.pause(fresh))
    }

    fn pause(&self, fresh: Duration) -> Duration {
        if self.failure.is_some() { AGAIN.min(fresh) } else { fresh }
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
    /// When it was so, where there is a failure.
    came: Option<Instant>,
}

impl Part {
    /// A server that has `lists` now.
    #[cfg(test)]
    pub(super) fn new(route: RouteName, lists: Arc<Lists>) -> Self {
        Self { route, lists: Some(lists), failure: None, came: None }
    }

    /// Whether the same is known of the same server.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.has_lists_of(other) && self.failure == other.failure && self.came == other.came
    }

    /// Whether it is the same server with the same lists.
    pub(super) fn has_lists_of(&self, other: &Self) -> bool {
        let lists = (self.lists.as_ref().map(Arc::as_ptr), other.lists.as_ref().map(Arc::as_ptr));
        self.route == other.route && lists.0 == lists.1
    }

    /// How old what it has is, where it has no newer.
    pub(super) fn age(&self) -> Duration {
        self.came.map(|came| came.elapsed()).unwrap_or_default()
    }
}

impl Catalog {
    /// What tells this process from others.
    pub(super) fn replica(&self) -> u64 {
        // Clocks of replicas may agree to the second, and not to the nanosecond.
        *self.replica.get_or_init(|| u64::try_from(unix_time().as_nanos()).unwrap_or_default())
    }

    /// Follows what changes.
    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// How often what is known became something else.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What is known of `entries`, in their order, and when to ask for it again. Waits only for those of which nothing is
    /// known, and not for long.
    pub(super) async fn parts(&self, gateway: &Arc<Gateway>, entries: &[&Entry]) -> (Vec<Part>, Instant) {
        self.forget_gone(gateway);
        let mut answers = self.answers.subscribe();
        self.refresh(gateway, entries);
        while let Some(until) = self.unheard_until(entries) {
            // What comes later is told as a change.
            if timeout_at(until, answers.changed()).await.is_err() {
                break;
            }
        }
        let fresh = gateway.bounds.lists_interval;
        let known = self.lock();
        let known = entries.iter().map(|entry| (*entry, known.get(&entry.route.name)));
        let due = known.clone().filter_map(|(entry, known)| Some(known?.due(entry, fresh))).min();
        let latest = Instant::now() + fresh;
        (known.map(|(entry, known)| part(entry, known)).collect(), due.map_or(latest, |due| due.min(latest)))
    }

    fn unheard_until(&self, entries: &[&Entry]) -> Option<Instant> {
        let known = self.lock();
        entries.iter().filter_map(|entry| known.get(&entry.route.name)?.unheard_until()).max()
    }

    /// Whether it is known what the server has, as its object and its revision are now.
    pub(super) fn knows(&self, entry: &Entry) -> bool {
        let known = self.lock();
        let known = known.get(&entry.route.name);
        // What one had that sleeps by now is what it has.
        known.is_some_and(|known| known.lists.is_some() && (entry.route.is_asleep() || known.of == version(entry)))
    }

    /// Asks every server that is due, each by itself, and those that soon will be: together they are looked through less often.
    pub(super) fn refresh(&self, gateway: &Arc<Gateway>, entries: &[&Entry]) {
        let fresh = gateway.bounds.lists_interval;
        let now = Instant::now();
        let mut known = self.lock();
        for entry in entries {
            let known = known.entry(entry.route.name.clone()).or_default();
            if !entry.route.is_asleep() && !known.is_asked && known.due(entry, fresh) <= now + known.pause(fresh) / 4 {
                known.is_asked = true;
                known.asked = Some(now);
                let (gateway, entry) = (Arc::clone(gateway), Entry::clone(entry));
                tokio::spawn(async move { gateway.catalog.ask(&gateway, &entry).await });
            }
        }
    }

    /// A server says that a list of its own has changed: it is asked again at once, or soon where that was just done.
    pub(super) fn heard(&self, gateway: &Arc<Gateway>, route: &str) {
        let Ok(serving) = gateway.state.serving() else { return };
        let Some(entry) = serving.route(route).cloned() else { return };
        let asked = {
            let mut known = self.lock();
            // Of one that nobody has asked for its lists, nobody has an old one.
            let Some(known) = known.get_mut(route).filter(|known| !known.is_heard) else { return };
            known.is_heard = true;
            known.asked
        };
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            if let Some(asked) = asked {
                sleep_until(asked + HEARD).await;
            }
            if let Some(known) = gateway.catalog.lock().get_mut(&entry.route.name) {
                known.is_heard = false;
                known.asked = Some(Instant::now());
            }
            gateway.catalog.ask(&gateway, &entry).await;
        });
    }

    /// Forgets servers that are served no more: what they had is gone from the lists.
    fn forget_gone(&self, gateway: &Gateway) {
        let Ok(serving) = gateway.state.serving() else { return };
        let gone: Vec<Known> = {
            let mut known = self.lock();
            let gone = known.extract_if(|route, _| serving.route(route.as_str()).is_none());
            gone.map(|(_, known)| known).collect()
        };
        if !gone.is_empty() {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
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
        let serving = gateway.state.serving().ok();
        let now = serving.as_ref().and_then(|serving| serving.route(entry.route.name.as_str()));
        let is_outdated = now.is_some_and(|now| version(now) != version(entry));
        let mut all = self.lock();
        let held: usize = all.values().map(|known| known.bytes).sum();
        // A server that is gone by now is forgotten.
        let Some(known) = all.get_mut(&entry.route.name) else { return [false; 4] };
        known.is_asked = false;
        known.of = version(entry);
        if is_outdated {
            // It is another one by now, and to be asked itself.
            self.version.fetch_add(1, Ordering::AcqRel);
        }
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
                let is_same = known.lists.as_deref() == Some(&lists);
                let changed = changed(known.lists.as_deref(), &lists);
                let had_failed = known.failure.take().is_some();
                known.came = Some(Instant::now());
                if !is_same {
                    known.lists = Some(Arc::new(lists));
                    known.bytes = bytes;
                }
                if had_failed || !is_same {
                    self.version.fetch_add(1, Ordering::AcqRel);
                }
                changed
            }
            Err(failure) => {
                tracing::debug!(route = %entry.route.name, error = %failure, "a server's lists could not be had");
                gateway.metrics.catalog_failures.inc();
                if known.failure.as_ref() != Some(&failure) {
                    known.failure = Some(failure);
                    self.version.fetch_add(1, Ordering::AcqRel);
                }
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
    let lists = known.and_then(|known| known.lists.clone());
    let unheard = || Failure::new(Kind::NotReady, "it has not said yet what it has");
    // What one had before it slept is what it has.
    let sleeps_well = lists.is_some() && entry.route.is_asleep();
    let failure = known.filter(|_| !sleeps_well).and_then(|known| known.failure.clone());
    let failure = failure.or_else(|| lists.is_none().then(unheard));
    let came = known.and_then(|known| known.came).filter(|_| failure.is_some());
    Part { route: entry.route.name.clone(), lists, failure, came }
}
