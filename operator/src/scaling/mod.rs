//! How many pods each server is to have whose load decides, looked at every second by the leader.

mod load;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use portolan_crds::server::{Autoscaling, ScalingMetricType};
use portolan_mcp::mac::MacKey;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    bridge_client::{Address, BridgeClient},
    context::Ctx,
    metrics::Metrics,
    requeue::{Key, Requeue},
};
use load::{Bounds, Load};

/// How often the load is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often bridges are asked how many sessions they have.
const ASKING: Duration = Duration::from_secs(5);
/// For how long what they said counts.
const FRESH: Duration = Duration::from_secs(15);
/// Bridges that are asked at once.
const PARALLEL: usize = 16;

/// What may be measured.
const MEASURED: [ScalingMetricType; 2] = [ScalingMetricType::InFlight, ScalingMetricType::Sessions];

/// What the load of a server is now; `None` where someone who counts does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Calls that it works on or that wait for it.
    pub in_flight: Option<u32>,
    /// Open sessions.
    pub sessions: Option<u32>,
}

impl Measured {
    fn of(self, type_: ScalingMetricType) -> Option<u32> {
        match type_ {
            ScalingMetricType::InFlight => self.in_flight,
            ScalingMetricType::Sessions => self.sessions,
        }
    }
}

/// Servers whose load decides.
#[derive(Debug)]
pub struct Scaling {
    held: Mutex<HashMap<Key, Held>>,
    servers: Requeue,
    metrics: Metrics,
}

/// One server.
#[derive(Debug)]
struct Held {
    bounds: Bounds,
    loads: Vec<(ScalingMetricType, Load)>,
    /// Pods that it is to have.
    wanted: u32,
    bridges: Bridges,
}

/// How many pods there are to be, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    from: u32,
    to: u32,
}

/// The bridges that have the sessions of a server, and the key that they take.
#[derive(Clone, Default)]
pub struct Bridges {
    /// Their pods.
    pub pods: Vec<Address>,
    /// The server's key; none is asked without.
    pub key: Option<MacKey>,
}

impl fmt::Debug for Bridges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bridges").field("pods", &self.pods).finish_non_exhaustive()
    }
}

impl Scaling {
    /// Nothing is scaled yet. `servers` wakes those that are to have more or fewer pods.
    #[must_use]
    pub fn new(servers: Requeue, metrics: Metrics) -> Self {
        Self { held: Mutex::default(), servers, metrics }
    }

    /// How many pods the server is to have. The first time, and while nothing is known, it is to have those that it has, `current`.
    /// `bridges` are those that have its sessions.
    pub fn of(&self, server: &Key, autoscaling: &Autoscaling, current: i32, bridges: Bridges) -> i32 {
        let bounds = bounds(autoscaling);
        let mut held = self.lock();
        let held = held.entry(server.clone()).or_insert_with(|| Held {
            bounds,
            loads: Vec::new(),
            wanted: current.try_into().unwrap_or_default(),
            bridges: Bridges::default(),
        });
        held.bridges = bridges;
        held.follow(autoscaling, bounds);
        held.wanted.try_into().unwrap_or(i32::MAX)
    }

    /// The load of the server decides no more.
    pub fn forget(&self, server: &Key) {
        self.lock().remove(server);
    }

    /// The servers whose load decides, with the bridges to ask for sessions where those do.
    #[must_use]
    pub fn servers(&self) -> Vec<(Key, Option<Bridges>)> {
        let by_sessions = |held: &Held| held.loads.iter().any(|(type_, _)| *type_ == ScalingMetricType::Sessions);
        let asked = |held: &Held| by_sessions(held).then(|| held.bridges.clone());
        self.lock().iter().map(|(key, held)| (key.clone(), asked(held))).collect()
    }

    /// Takes in the load of a server, and wakes it when it is to have more or fewer pods.
    pub fn take(&self, server: &Key, measured: Measured, now: Timestamp) {
        let changed = self.lock().get_mut(server).and_then(|held| held.take(measured, now));
        let Some(Change { from, to }) = changed else { return };
        let (namespace, name) = server;
        tracing::info!(namespace, name, from, to, "the load of a server asks for other than the pods that it has");
        self.metrics.scaled(if to > from { "up" } else { "down" });
        self.servers.wake(namespace, name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What is known of a measure whose target stays is kept.
    fn follow(&mut self, autoscaling: &Autoscaling, bounds: Bounds) {
        self.bounds = bounds;
        self.wanted = self.wanted.clamp(bounds.least, bounds.most);
        self.loads.retain(|(type_, load)| autoscaling.target(*type_) == Some(load.target()));
        for type_ in MEASURED {
            if let Some(target) = autoscaling.target(type_)
                && !self.loads.iter().any(|(known, _)| *known == type_)
            {
                self.loads.push((type_, Load::new(target)));
            }
        }
    }

    /// What that changes.
    fn take(&mut self, measured: Measured, now: Timestamp) -> Option<Change> {
        let (bounds, current) = (self.bounds, self.wanted);
        let asks = self.loads.iter_mut().map(|(type_, load)| load.take(now, measured.of(*type_), current, bounds));
        let wanted = asks.max().unwrap_or(current);
        self.wanted = wanted;
        (wanted != current).then_some(Change { from: current, to: wanted })
    }
}

/// Looks at the load of every server whose load decides, every second until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, stop: CancellationToken) {
    let sessions = Arc::new(Sessions::default());
    let asking = ask(ctx.clone(), sessions.clone());
    let looking = async {
        let mut clock = interval(INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let now = Timestamp::now();
            for (server, _) in ctx.scaling.servers() {
                let in_flight = ctx.loaded.in_flight(&server.0, &server.1);
                ctx.scaling.take(&server, Measured { in_flight, sessions: sessions.of(&server) }, now);
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = asking => {}
        () = looking => {}
    }
}

/// How many sessions servers had when their bridges were asked last.
#[derive(Debug, Default)]
struct Sessions(Mutex<HashMap<Key, (Instant, u32)>>);

impl Sessions {
    fn of(&self, server: &Key) -> Option<u32> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(server).copied();
        known.filter(|(asked, _)| asked.elapsed() < FRESH).map(|(_, sessions)| sessions)
    }

    /// Those of servers that are asked no more are forgotten.
    fn put(&self, told: HashMap<Key, u32>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (asked, _)| asked.elapsed() < FRESH);
        known.extend(told.into_iter().map(|(server, sessions)| (server, (Instant::now(), sessions))));
    }
}

/// Asks the bridges of every server whose sessions decide, again and again.
async fn ask(ctx: Arc<Ctx>, sessions: Arc<Sessions>) {
    let mut clock = interval(ASKING);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let asked = ctx.scaling.servers().into_iter().filter_map(|(server, bridges)| Some((server, bridges?)));
        let told = stream::iter(asked)
            .map(|(server, bridges)| async { Some((server, sum(&ctx.bridges, bridges).await?)) })
            .buffer_unordered(PARALLEL)
            .filter_map(std::future::ready)
            .collect()
            .await;
        sessions.put(told);
    }
}

/// All sessions of a server; `None` where one of its bridges does not say.
async fn sum(client: &BridgeClient, bridges: Bridges) -> Option<u32> {
    let key = bridges.key?;
    let asked = stream::iter(bridges.pods).map(|pod| {
        let key = key.clone();
        async move { client.sessions(&pod, &key).await }
    });
    let said: Vec<_> = asked.buffer_unordered(PARALLEL).collect().await;
    said.into_iter().try_fold(0_u32, |sum, said| Some(sum.saturating_add(said.ok()?)))
}

fn bounds(autoscaling: &Autoscaling) -> Bounds {
    let least = autoscaling.min_replicas.try_into().unwrap_or_default();
    let most = autoscaling.max_replicas.try_into().unwrap_or_default();
    Bounds { least, most: least.max(most), delay: autoscaling.scale_down_delay.as_std() }
}

#[cfg(test)]
mod tests;
