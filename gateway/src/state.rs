//! What is served now: the snapshot, and what must outlive it (places in use, pods in use).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use portolan_mcp::{
    aggregate::Selection,
    failure::{Failure, Kind},
    token::{Binding, SessionKey},
};
use portolan_policy::{authorize, identity::Identity};
use portolan_snapshot::{
    Compiled, Diagnostics, Inputs, Report, Route, RouteName, Snapshot, Toolset, Unusable, compile,
    report::{Callers, FailingPod, Traffic},
    snapshot::Pod,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::budget::Budget;
use crate::limit::Limiter;
use crate::metrics::Metrics;
use crate::outlier::Asks;
use crate::pod::{Calls, InUse, Outliers, PodCall};
use crate::pool::Pool;
use crate::series::Series;
use crate::sleep::Sleeper;
use crate::traffic::{self, Tallies, Watched};

/// When a caller may come back while nothing is loaded yet.
const COME_BACK: Duration = Duration::from_secs(1);

/// The one place that is swapped.
pub(crate) struct State {
    budget: Arc<Budget>,
    /// Of one server, in bytes.
    part: usize,
    current: ArcSwapOption<Serving>,
    reports: watch::Sender<Option<Arc<Report>>>,
    outliers: Outliers,
    /// Tells that a call waits for a server that sleeps.
    waiting: watch::Sender<()>,
}

/// One snapshot in use.
pub(crate) struct Serving {
    /// One more than that of the one before.
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
    diagnostics: Diagnostics,
    routes: HashMap<RouteName, Entry>,
}

/// A route with what outlives its snapshot.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) route: Arc<Route>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) series: Arc<Series>,
    pods: Arc<HashMap<Box<str>, InUse>>,
    tallies: Tallies,
    outliers: Outliers,
    sleeper: Option<Arc<Sleeper>>,
}

impl State {
    /// Nothing is served yet. Servers hold parts of `budget`, each at most `part` bytes.
    pub(crate) fn new(budget: Arc<Budget>, part: usize) -> Self {
        let (current, reports) = (ArcSwapOption::empty(), watch::Sender::new(None));
        Self { budget, part, current, reports, outliers: Outliers::default(), waiting: watch::Sender::default() }
    }

    /// What is served now.
    pub(crate) fn serving(&self) -> Result<Arc<Serving>, Failure> {
        let message = "this gateway replica has not read its configuration yet; try again";
        self.current.load_full().ok_or_else(|| Failure::new(Kind::NotReady, message).retry_after(COME_BACK))
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Follows what is loaded.
    pub(crate) fn reports(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.reports.subscribe()
    }

    /// Follows which pods are outliers.
    pub(crate) fn outliers(&self) -> watch::Receiver<()> {
        self.outliers.subscribe()
    }

    /// Follows whether calls wait for servers that sleep.
    pub(crate) fn waiting(&self) -> watch::Receiver<()> {
        self.waiting.subscribe()
    }

    /// Waits until a server that sleeps has a pod: what is served then; `None` where it has one now. Held calls are as many as
    /// may be under way and wait.
    pub(crate) async fn awake(&self, entry: &Entry, metrics: &Metrics) -> Result<Option<Arc<Serving>>, Failure> {
        let (Some(sleeper), Some(limit)) = (&entry.sleeper, entry.route.settings.activation) else { return Ok(None) };
        if !entry.route.is_asleep() {
            return Ok(None);
        }
        let (name, settings) = (&entry.route.name, &entry.route.settings);
        let most = settings.max_parallel_requests.saturating_add(settings.max_pending_requests);
        let held = sleeper.hold(most).ok_or_else(|| {
            metrics.bound_hit("Asleep");
            let message = format!("{most} requests wait for a pod of {name} already; try again");
            Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
        })?;
        let deadline = Instant::now() + limit;
        let mut loaded = self.reports();
        if held.is_first {
            self.waiting.send_replace(());
        }
        loop {
            let serving = self.serving()?;
            match serving.route(name.as_str()) {
                Some(now) if now.route.is_asleep() => {}
                // One that was taken away meanwhile is found missing by whoever asks next.
                _ => return Ok(Some(serving)),
            }
            if timeout_at(deadline, loaded.changed()).await.is_err() {
                let seconds = limit.as_secs_f64();
                let message = format!("{name} slept, and none of its pods answered within {seconds} s; try again");
                return Err(Failure::new(Kind::NotReady, message).retry_after(COME_BACK));
            }
        }
    }

    /// Compiles `inputs` and serves from the outcome. Requests under way go on with the snapshot that they began with.
    pub(crate) fn load(&self, inputs: &Inputs, metrics: &Arc<Metrics>) -> Result<(), Unusable> {
        let previous = self.current.load_full();
        let Compiled { snapshot, diagnostics } = compile(inputs, previous.as_ref().map(|serving| &serving.snapshot))?;
        let serving = Arc::new(self.served(snapshot, diagnostics, previous.as_deref(), metrics));
        record(&serving, previous.as_deref(), metrics);
        let report = Arc::new(Report::whole(&serving.snapshot, &serving.diagnostics));
        self.current.store(Some(serving));
        // Only after the swap: what is reported is what the next request meets.
        self.reports.send_replace(Some(report));
        Ok(())
    }

    fn served(
        &self,
        snapshot: Snapshot,
        diagnostics: Diagnostics,
        previous: Option<&Serving>,
        metrics: &Arc<Metrics>,
    ) -> Serving {
        // The largest body has to fit, or nobody could ever send it.
        let part = self.part.max(snapshot.http.max_body_bytes);
        let routes = snapshot
            .routes
            .iter()
            .map(|(name, route)| {
                let last = previous.and_then(|previous| previous.routes.get(name));
                let budget = last.map_or_else(|| self.budget.part(part), |last| last.budget.adjusted(part));
                (name.clone(), Entry::new(route.clone(), budget, last, metrics, &self.outliers))
            })
            .collect();
        let number = previous.map_or(0, |previous| previous.number + 1);
        Serving { number, snapshot, diagnostics, routes }
    }
}

impl Serving {
    /// Every server that `identity` may use, of those of `selection` where there is one, in the order of their routes.
    pub(crate) fn members_for(&self, identity: &Identity, selection: Option<&Selection>) -> Vec<&Entry> {
        // Those of a selection are looked up: what it costs does not grow with the servers beside it.
        let mut members: Vec<&Entry> = match selection {
            None => self.routes.values().collect(),
            Some(selection) => selection.routes().filter_map(|route| self.route(route)).collect(),
        };
        members.retain(|entry| may_use(identity, entry));
        members.sort_unstable_by(|one, other| one.route.name.cmp(&other.route.name));
        members
    }

    /// The toolset `namespace/name`, for one who may use any server of it.
    pub(crate) fn toolset_for(&self, identity: &Identity, name: &str) -> Option<&Arc<Toolset>> {
        let toolset = self.snapshot.toolsets.get(name)?;
        let is_for = |route: &str| self.route(route).is_some_and(|entry| may_use(identity, entry));
        toolset.selection.routes().any(is_for).then_some(toolset)
    }

    /// Pods whose calls fail one after the other, by route.
    pub(crate) fn failing(&self) -> BTreeMap<String, BTreeMap<String, FailingPod>> {
        let failing = self.routes.iter().map(|(name, entry)| (name.to_string(), entry.failing()));
        failing.filter(|(_, pods)| !pods.is_empty()).collect()
    }

    /// How calls go at revisions that are compared, by route.
    pub(crate) fn traffic(&self) -> BTreeMap<String, BTreeMap<String, Traffic>> {
        let compared = self.routes.iter().filter(|(_, entry)| !entry.tallies.is_empty());
        compared.map(|(name, entry)| (name.to_string(), entry.traffic())).collect()
    }

    /// How many calls are under way, by route, where the operator is to know.
    pub(crate) fn in_flight(&self) -> BTreeMap<String, u32> {
        let measured = self.routes.iter().filter(|(_, entry)| entry.route.settings.is_measured);
        let count = |entry: &Entry| u32::try_from(entry.limiter.under_way()).unwrap_or(u32::MAX);
        measured.map(|(name, entry)| (name.to_string(), count(entry))).collect()
    }

    /// Who calls servers that sleep while nobody does, by route.
    pub(crate) fn callers(&self) -> BTreeMap<String, Callers> {
        let of = |(name, entry): (&RouteName, &Entry)| Some((name.to_string(), entry.sleeper.as_ref()?.report()));
        self.routes.iter().filter_map(of).collect()
    }

    /// Every server that sleeps while nobody calls.
    pub(crate) fn sleepers(&self) -> impl Iterator<Item = &Entry> {
        self.routes.values().filter(|entry| entry.sleeper.is_some())
    }

    /// A toolset, or a server that answers while it sleeps, as it is now.
    pub(crate) fn now_of(&self, toolset: &Toolset) -> Option<&Arc<Toolset>> {
        if toolset.selection.is_alone() {
            return self.route(toolset.name.as_str())?.route.alone.as_ref();
        }
        self.snapshot.toolsets.get(&toolset.name)
    }

    /// The route `namespace/server`.
    pub(crate) fn route(&self, name: &str) -> Option<&Entry> {
        self.routes.get(name)
    }
}

fn may_use(identity: &Identity, entry: &Entry) -> bool {
    authorize::authorize(identity, entry.route.name.target()).is_ok()
}

impl Entry {
    fn new(
        route: Arc<Route>,
        budget: Arc<Budget>,
        last: Option<&Self>,
        metrics: &Arc<Metrics>,
        outliers: &Outliers,
    ) -> Self {
        let (parallel, pending) = (route.settings.max_parallel_requests, route.settings.max_pending_requests);
        let limiter = match last {
            Some(last) => last.limiter.adjusted(parallel, pending),
            None => Arc::new(Limiter::new(parallel, pending)),
        };
        let series = match last {
            Some(last) => last.series.clone(),
            None => Series::new(route.name.clone(), metrics.clone()),
        };
        let known = |pod: &Pod| last.and_then(|last| last.pods.get(&pod.uid));
        let in_use = |pod: &Pod| InUse::of(pod, known(pod), &series, outliers);
        let pods = route.pods.iter().map(|(uid, pod)| (uid.clone(), in_use(pod))).collect();
        let tallies = traffic::tallies(&route, last.map(|last| &last.tallies));
        let kept = || last.and_then(|last| last.sleeper.clone()).unwrap_or_default();
        let sleeper = route.alone.as_ref().map(|_| kept());
        Self { route, limiter, budget, series, pods: Arc::new(pods), tallies, outliers: outliers.clone(), sleeper }
    }

    /// Counts those who call, where the server sleeps while nobody does.
    pub(crate) fn sleeper(&self) -> Option<&Arc<Sleeper>> {
        self.sleeper.as_ref()
    }

    /// The name of `caller` at this server's bridges.
    pub(crate) fn key_of(&self, caller: &Identity) -> SessionKey {
        SessionKey::of_caller(Binding { principal: caller.principal(), route: self.route.name.as_str() })
    }

    /// The same route with one of its pods, whichever revision that is of; what becomes of calls there is nobody else's concern.
    pub(crate) fn confined_to(&self, uid: &str) -> Option<Self> {
        let pod = self.route.pods.get(uid)?;
        let route = Route {
            serving: Some(pod.revision.clone()),
            canary: None,
            pods: HashMap::from([(pod.uid.clone(), pod.clone())]),
            departed: Vec::new(),
            alone: None,
            ..Route::clone(&self.route)
        };
        let (pods, tallies, outliers, sleeper) = (Arc::default(), Tallies::new(), Outliers::default(), None);
        Some(Self { route: route.into(), pods, tallies, outliers, sleeper, ..self.clone() })
    }

    /// Calls under way at a pod, of this replica.
    pub(crate) fn calls(&self, uid: &str) -> usize {
        self.pods.get(uid).map_or(0, |pod| pod.calls.count())
    }

    /// Begins a call at `pod`.
    pub(crate) fn begin_call(&self, pod: &Pod, asks: Asks) -> PodCall {
        let unknown = || Arc::new(Calls::new(pod, self.series.clone(), self.outliers.clone()));
        let calls = self.pods.get(&pod.uid).map_or_else(unknown, |pod| pod.calls.clone());
        PodCall::begin(calls, asks)
    }

    /// Watches a call at `pod` where revisions are compared, and it is one that asks for work.
    pub(crate) fn watch(&self, pod: &Pod, asks: Asks, caller: Option<&Identity>) -> Option<Watched> {
        let tally = self.tallies.get(&pod.revision).filter(|_| asks == Asks::Work)?;
        Some(Watched::begin(tally.clone(), caller?.clone()))
    }

    /// Those of `pods` that are not out; all of them where that would leave none: the last one stays, as some of its calls
    /// may yet be answered, and without it none would be.
    pub(crate) fn in_rotation<'a>(&self, pods: Vec<&'a Pod>) -> Vec<&'a Pod> {
        let is_out = |pod: &&Pod| self.pods.get(&pod.uid).is_some_and(|pod| pod.calls.is_out());
        if !pods.iter().any(is_out) {
            return pods;
        }
        let (out, others): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_out);
        if others.is_empty() {
            self.series.ejection_withheld();
            return out;
        }
        others
    }

    /// Pods whose calls fail one after the other, by UID.
    fn failing(&self) -> BTreeMap<String, FailingPod> {
        let failing = |pod: &Pod| {
            let kind = self.pods.get(&pod.uid)?.calls.failing()?;
            Some((pod.uid.to_string(), FailingPod { name: pod.name.to_string(), kind: kind.as_str().to_owned() }))
        };
        self.route.pods.values().filter_map(failing).collect()
    }

    fn traffic(&self) -> BTreeMap<String, Traffic> {
        self.tallies.iter().map(|(revision, tally)| (revision.to_string(), tally.report())).collect()
    }

    /// The connections to a pod.
    pub(crate) fn pool(&self, pod: &Pod) -> Arc<Pool> {
        self.pods.get(&pod.uid).map_or_else(|| Arc::new(Pool::new(pod.address)), |pod| pod.pool.clone())
    }
}

/// Counts what is wrong with the configuration; each problem is logged when it is new.
fn record(serving: &Serving, previous: Option<&Serving>, metrics: &Metrics) {
    let Serving { snapshot, diagnostics, .. } = serving;
    let before = previous.map(|previous| &previous.diagnostics);
    metrics.config_generation.set(snapshot.generation.try_into().unwrap_or(i64::MAX));
    metrics.config_loaded.set(unix_time().as_secs().try_into().unwrap_or(i64::MAX));
    metrics.rejected_objects.reset();
    for problem in &diagnostics.gateway {
        metrics.rejected_objects.with_label_values(&["MCPGateway", "Invalid"]).inc();
        if before.is_none_or(|before| !before.gateway.contains(problem)) {
            tracing::warn!(%problem, "the gateway's configuration has a problem");
        }
    }
    for (server, problem) in &diagnostics.servers {
        metrics.rejected_objects.with_label_values(&["MCPServer", problem.reason()]).inc();
        if before.is_none_or(|before| before.servers.get(server) != Some(problem)) {
            tracing::warn!(%server, %problem, "the latest version of a server is not served");
        }
    }
    for (toolset, problems) in &diagnostics.toolsets {
        for problem in problems {
            metrics.rejected_objects.with_label_values(&["MCPToolset", problem.reason()]).inc();
            if before.is_none_or(|before| before.toolsets.get(toolset).is_none_or(|before| !before.contains(problem))) {
                tracing::warn!(%toolset, %problem, "a toolset has a problem");
            }
        }
    }
    let gone = previous.into_iter().flat_map(|previous| &previous.routes);
    for (_, entry) in gone.filter(|(name, _)| !snapshot.routes.contains_key(*name)) {
        entry.series.retire();
    }
    tracing::debug!(generation = snapshot.generation, routes = snapshot.routes.len(), "loaded a snapshot");
}

/// Time since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
