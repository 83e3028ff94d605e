//! Known-answer checks of servers: the leader asks every pod that answers its probe, through a gateway, before its revision serves
//! and from then on.

mod rounds;
mod signed;
mod standing;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portolan_canary::{BadCheck, Checks, Protocol};
use portolan_crds::server::CanaryChecks;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

pub use standing::{Fault, Standing};

use crate::{
    loaded::LoadedView,
    metrics::Metrics,
    requeue::{Key, Requeue},
    stream_keys::StreamKeys,
};

/// Rounds that are under way at once: each holds answers in memory, and connections to a gateway's admin port.
const AT_ONCE: usize = 24;
/// Of those, the rounds of one namespace: servers that hang keep their places for a while, and not everyone's.
const OF_A_NAMESPACE: usize = 6;
/// Longest time that an answer may take, whatever the server's `timeouts.request`.
const LONGEST: Duration = Duration::from_secs(30);

/// A pod that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// UID of the pod.
    pub uid: String,
    /// How its server is spoken to; `None` while its probe is not answered: then it is not asked if it was not before.
    pub protocol: Option<Protocol>,
    /// Whether its revision has served.
    pub serves: bool,
}

/// What there is to ask of a server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The checks.
    pub spec: &'a CanaryChecks,
    /// How long an answer may take of which its check does not say how long.
    pub limit: Duration,
}

/// The checks of every server, under way.
pub struct Canaries {
    asker: Asker,
    held: Mutex<HashMap<Key, Held>>,
}

/// What every round needs.
#[derive(Clone)]
struct Asker {
    http: reqwest::Client,
    loaded: LoadedView,
    keys: StreamKeys,
    servers: Requeue,
    metrics: Metrics,
    places: Arc<Semaphore>,
    of_namespaces: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// The checks of one server.
struct Held {
    spec: CanaryChecks,
    limit: Duration,
    checks: Result<Arc<Checks>, BadCheck>,
    pods: HashMap<String, Asking>,
}

/// The checks of one pod.
struct Asking {
    protocol: Protocol,
    serves: Arc<AtomicBool>,
    standing: watch::Receiver<Standing>,
    _task: AbortOnDropHandle<()>,
}

impl Canaries {
    /// Nothing is asked yet. A server is woken through `servers` when the standing of one of its pods changes.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(
        loaded: LoadedView,
        keys: StreamKeys,
        servers: Requeue,
        metrics: Metrics,
    ) -> Result<Self, reqwest::Error> {
        let http = signed::client()?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let asker = Asker { http, loaded, keys, servers, metrics, places, of_namespaces: Arc::default() };
        Ok(Self { asker, held: Mutex::default() })
    }

    /// Asks these pods of a server and no other of it, and returns where each stands that was asked, by uid.
    ///
    /// # Errors
    /// A check that cannot be made: then nothing is asked.
    pub fn of(&self, server: &Key, asked: Asked<'_>, pods: &[Target]) -> Result<BTreeMap<String, Standing>, BadCheck> {
        let mut all = self.lock();
        let held = all.entry(server.clone()).or_insert_with(|| Held::new(asked));
        // One that could not be read is read again: it may have been for want of a thread.
        if held.spec != *asked.spec || held.limit != asked.limit || held.checks.is_err() {
            let before = std::mem::replace(held, Held::new(asked));
            self.discount(server, &before);
        }
        let checks = held.checks.clone()?;
        held.pods.retain(|uid, asking| pods.iter().any(|pod| pod.uid == *uid && asking.is_of(pod)));
        let mut standings = BTreeMap::new();
        for pod in pods {
            if let (Some(protocol), false) = (pod.protocol, held.pods.contains_key(&pod.uid)) {
                let asking = self.begin(server, pod, protocol, &checks, &held.spec, held.limit);
                held.pods.insert(pod.uid.clone(), asking);
            }
            if let Some(asking) = held.pods.get(&pod.uid) {
                asking.serves.store(pod.serves, Ordering::Relaxed);
                standings.insert(pod.uid.clone(), asking.standing.borrow().clone());
            }
        }
        for check in &checks.checks {
            self.asker.metrics.canary_failing(server, &check.name, count(&standings, &check.name));
        }
        Ok(standings)
    }

    /// Asks nothing more of a server.
    pub fn forget(&self, server: &Key) {
        if let Some(before) = self.lock().remove(server) {
            self.discount(server, &before);
        }
    }

    fn discount(&self, server: &Key, before: &Held) {
        for check in &before.spec.checks {
            self.asker.metrics.forget_canary(server, &check.name);
        }
    }

    fn begin(
        &self,
        server: &Key,
        pod: &Target,
        protocol: Protocol,
        checks: &Arc<Checks>,
        spec: &CanaryChecks,
        limit: Duration,
    ) -> Asking {
        let (said, standing) = watch::channel(Standing::default());
        let serves = Arc::new(AtomicBool::new(pod.serves));
        let rounds = rounds::Rounds {
            asker: self.asker.clone(),
            server: server.clone(),
            pod: pod.uid.clone(),
            protocol,
            serves: serves.clone(),
            checks: checks.clone(),
            interval: spec.interval.as_std(),
            threshold: spec.failure_threshold,
            limit: limit.min(LONGEST),
            said,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(rounds.run()));
        Asking { protocol, serves, standing, _task: task }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    /// Places for rounds of a namespace.
    fn of_namespace(&self, namespace: &str) -> Arc<Semaphore> {
        let mut all = self.of_namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OF_A_NAMESPACE))).clone()
    }
}

impl Asking {
    /// Whether it still is what `pod` is to be asked: a server of another era is spoken to in another way.
    fn is_of(&self, pod: &Target) -> bool {
        pod.protocol.is_none_or(|protocol| protocol == self.protocol)
    }
}

impl Held {
    fn new(asked: Asked<'_>) -> Self {
        let checks = Checks::read(asked.spec).map(Arc::new);
        Self { spec: asked.spec.clone(), limit: asked.limit, checks, pods: HashMap::new() }
    }
}

/// At how many pods a check fails.
fn count(standings: &BTreeMap<String, Standing>, check: &str) -> usize {
    standings.values().filter(|standing| standing.faults().iter().any(|fault| fault.check == check)).count()
}
