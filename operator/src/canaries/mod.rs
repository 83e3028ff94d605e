//! Known-answer checks of servers: the leader asks every pod that answers its probe, through a gateway, before its revision serves
//! and from then on.

mod rounds;
mod signed;
mod standing;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// Rounds that are under way at once: each has a few connections, and a gateway's admin port takes 256.
const AT_ONCE: usize = 64;

/// A pod that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// UID of the pod.
    pub uid: String,
    /// How its server is spoken to.
    pub protocol: Protocol,
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
        Ok(Self { asker: Asker { http, loaded, keys, servers, metrics, places }, held: Mutex::default() })
    }

    /// Asks these pods of a server and no other of it, and returns where each stands, by uid.
    ///
    /// # Errors
    /// A check that cannot be made: then nothing is asked.
    pub fn of(&self, server: &Key, asked: Asked<'_>, pods: &[Target]) -> Result<BTreeMap<String, Standing>, BadCheck> {
        let mut all = self.lock();
        let held = all.entry(server.clone()).or_insert_with(|| Held::new(asked));
        if held.spec != *asked.spec || held.limit != asked.limit {
            let before = std::mem::replace(held, Held::new(asked));
            self.discount(server, &before);
        }
        let checks = held.checks.clone()?;
        held.pods.retain(|uid, asking| pods.iter().any(|pod| pod.uid == *uid && pod.protocol == asking.protocol));
        let mut standings = BTreeMap::new();
        for pod in pods {
            let begin = || self.begin(server, pod, &checks, &held.spec, held.limit);
            let asking = held.pods.entry(pod.uid.clone()).or_insert_with(begin);
            standings.insert(pod.uid.clone(), asking.standing.borrow().clone());
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

    fn begin(&self, server: &Key, pod: &Target, checks: &Arc<Checks>, spec: &CanaryChecks, limit: Duration) -> Asking {
        let (said, standing) = watch::channel(Standing::default());
        let rounds = rounds::Rounds {
            asker: self.asker.clone(),
            server: server.clone(),
            pod: pod.clone(),
            checks: checks.clone(),
            interval: spec.interval.as_std(),
            threshold: spec.failure_threshold,
            limit,
            said,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(rounds.run()));
        Asking { protocol: pod.protocol, standing, _task: task }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
