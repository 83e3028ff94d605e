//! How many pods each server is to have whose load decides, looked at every second by the leader. Where what pods use decides, what was
//! decided elsewhere is remembered.

mod idle;
mod load;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use portolan_crds::server::{Autoscaling, ScalingMetricType};
use portolan_mcp::mac::MacKey;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bridge_client::{Address, BridgeClient},
    context::Ctx,
    gateways::GatewayName,
    metrics::Metrics,
    requeue::{Key, Requeue},
};
use idle::Idle;
use load::{Bounds, Load};

pub use idle::Calling;
pub use load::Reading;

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

/// What the load of a server is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Calls that it works on or that wait for it.
    pub in_flight: Reading,
    /// Open sessions.
    pub sessions: Reading,
}

impl Measured {
    fn of(self, type_: ScalingMetricType) -> Reading {
        match type_ {
            ScalingMetricType::InFlight => self.in_flight,
            ScalingMetricType::Sessions => self.sessions,
            // These are not measured here.
            ScalingMetricType::Cpu | ScalingMetricType::Memory => Reading::default(),
        }
    }
}

/// Servers whose load decides.
#[derive(Debug)]
pub struct Scaling {
    held: Mutex<HashMap<Key, Held>>,
    servers: Requeue,
    metrics: Metrics,
    /// Tells that it is to be looked now.
    looks: Notify,
}

/// One server.
#[derive(Debug)]
struct Held {
    bounds: Bounds,
    loads: Vec<(ScalingMetricType, Load)>,
    /// Whether nobody calls, where it then needs no pod.
    idle: Option<Idle>,
    /// Pods that it is to have.
    wanted: u32,
    asked: Asked,
}

/// How many pods there are to be, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    from: u32,
    to: u32,
}

/// Who is asked for the load of a server.
#[derive(Clone, Default)]
pub struct Asked {
    /// The pods whose bridges have its sessions.
    pub bridges: Vec<Address>,
    /// The key that they take; none is asked without.
    pub key: Option<MacKey>,
    /// The gateways that serve it, as `namespace/name`.
    pub gateways: Vec<GatewayName>,
    /// Whether a pod answers: that nothing is under way at one that is down says nothing of its load.
    pub is_up: bool,
    /// Whether a revision comes up that is to serve: it is to be seen to answer, and to take calls.
    pub is_changing: bool,
}

impl fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bridges, gateways, is_up, is_changing, .. } = self;
        formatter
            .debug_struct("Asked")
            .field("bridges", bridges)
            .field("gateways", gateways)
            .field("is_up", is_up)
            .field("is_changing", is_changing)
            .finish_non_exhaustive()
    }
}

impl Scaling {
    /// Nothing is scaled yet. `servers` wakes those that are to have more or fewer pods.
    #[must_use]
    pub fn new(servers: Requeue, metrics: Metrics) -> Self {
        Self { held: Mutex::default(), servers, metrics, looks: Notify::new() }
    }

    /// How many pods the server is to have. The first time, and while nothing is known, it is to have those that it has, `current`; so it is
    /// where an autoscaler decides, as long as it has any. `asked` are those who know its load.
    pub fn of(&self, server: &Key, autoscaling: &Autoscaling, current: Option<i32>, asked: Asked) -> i32 {
        let bounds = bounds(autoscaling);
        let current = current.map(|current| current.try_into().unwrap_or_default());
        let mut held = self.lock();
        let held = held.entry(server.clone()).or_insert_with(|| Held {
            bounds,
            loads: Vec::new(),
            idle: None,
            // The first one is to be seen to answer.
            wanted: current.unwrap_or(bounds.least.max(1)),
            asked: Asked::default(),
        });
        held.asked = asked;
        if autoscaling.is_by_usage() {
            held.wanted = current.filter(|current| *current > 0).unwrap_or(held.wanted);
        }
        held.follow(autoscaling, bounds);
        held.wanted.try_into().unwrap_or(i32::MAX)
    }

    /// Somebody waits for a server that has no pods: nobody waits for the next second.
    pub fn look(&self) {
        self.looks.notify_one();
    }

    /// The load of the server decides no more.
    pub fn forget(&self, server: &Key) {
        self.lock().remove(server);
    }

    /// The servers whose load decides, with who is asked for it, and whether for sessions too.
    fn servers(&self) -> Vec<(Key, Asked, bool)> {
        let by_sessions = |held: &Held| held.loads.iter().any(|(type_, _)| *type_ == ScalingMetricType::Sessions);
        let held = self.lock();
        let by_load = held.iter().filter(|(_, held)| !held.loads.is_empty());
        by_load.map(|(key, held)| (key.clone(), held.asked.clone(), by_sessions(held))).collect()
    }

    /// Takes in the load of a server, and wakes it when it is to have more or fewer pods.
    pub fn take(&self, server: &Key, measured: Measured, calling: &Calling, now: Instant) {
        let changed = self.lock().get_mut(server).and_then(|held| held.take(measured, calling, now));
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
        self.idle = autoscaling.sleep().map(|sleep| match self.idle.take() {
            Some(idle) if idle.after == sleep.after => idle,
            _ => Idle::new(sleep.after),
        });
        if self.asked.is_changing {
            self.wanted = self.wanted.max(1);
            self.idle.iter_mut().for_each(Idle::begin_anew);
        }
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
    fn take(&mut self, measured: Measured, calling: &Calling, now: Instant) -> Option<Change> {
        let current = self.wanted;
        self.wanted = if current == 0 { self.woken(calling) } else { self.while_awake(measured, calling, now) };
        (self.wanted != current).then_some(Change { from: current, to: self.wanted })
    }

    /// As many as those need who wait.
    fn woken(&mut self, calling: &Calling) -> u32 {
        if calling.under_way == 0 {
            return 0;
        }
        self.idle.iter_mut().for_each(Idle::begin_anew);
        let by_calls = self.loads.iter().find(|(type_, _)| *type_ == ScalingMetricType::InFlight);
        by_calls.map_or(1, |(_, load)| calling.under_way.div_ceil(load.target())).clamp(1, self.bounds.most)
    }

    fn while_awake(&mut self, measured: Measured, calling: &Calling, now: Instant) -> u32 {
        let (bounds, current) = (Bounds { least: self.bounds.least.max(1), ..self.bounds }, self.wanted);
        let asks = self.loads.iter_mut().map(|(type_, load)| load.take(now, measured.of(*type_), current, bounds));
        let wanted = asks.max().unwrap_or(current);
        let is_idle = self.idle.as_mut().is_some_and(|idle| idle.take(now, calling));
        if is_idle && !self.asked.is_changing { 0 } else { wanted }
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
            tokio::select! {
                _ = clock.tick() => {}
                () = ctx.scaling.looks.notified() => {}
            }
            let now = Instant::now();
            for (server, asked, _) in ctx.scaling.servers() {
                let known = |reading: Reading| Reading { is_whole: reading.is_whole && asked.is_up, ..reading };
                let in_flight = known(ctx.loaded.in_flight(&server.0, &server.1, &asked.gateways));
                let calling = ctx.loaded.callers(&server.0, &server.1, &asked.gateways);
                let calling = Calling { is_whole: calling.is_whole && asked.is_up, ..calling };
                ctx.scaling.take(&server, Measured { in_flight, sessions: known(sessions.of(&server)) }, &calling, now);
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
struct Sessions(Mutex<HashMap<Key, (Instant, Reading)>>);

impl Sessions {
    fn of(&self, server: &Key) -> Reading {
        let known = self.lock().get(server).copied();
        known.filter(|(asked, _)| asked.elapsed() < FRESH).map_or_else(Reading::default, |(_, sessions)| sessions)
    }

    fn put(&self, server: Key, sessions: Reading) {
        self.lock().insert(server, (Instant::now(), sessions));
    }

    fn forget_old(&self) {
        self.lock().retain(|_, (asked, _)| asked.elapsed() < FRESH);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Instant, Reading)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the bridges of every server whose sessions decide, again and again.
async fn ask(ctx: Arc<Ctx>, sessions: Arc<Sessions>) {
    let mut clock = interval(ASKING);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        sessions.forget_old();
        let by_sessions = ctx.scaling.servers().into_iter().filter(|(.., by_sessions)| *by_sessions);
        let asked = by_sessions.map(|(server, asked, _)| (server, asked, ctx.bridges.clone(), sessions.clone()));
        let all = stream::iter(asked).for_each_concurrent(PARALLEL, |(server, asked, client, sessions)| async move {
            sessions.put(server, sum(&client, asked).await);
        });
        all.await;
    }
}

/// All sessions of a server, as far as its bridges say.
async fn sum(client: &BridgeClient, asked: Asked) -> Reading {
    let Some(key) = asked.key else { return Reading::default() };
    let each = stream::iter(asked.bridges).map(|pod| {
        let (key, client) = (key.clone(), client.clone());
        async move { client.sessions(&pod, &key).await.ok() }
    });
    let said: Vec<_> = each.buffer_unordered(PARALLEL).collect().await;
    let least = said.iter().flatten().fold(0_u32, |sum, sessions| sum.saturating_add(*sessions));
    Reading { least, is_whole: said.iter().all(Option::is_some) && !asked.gateways.is_empty() }
}

fn bounds(autoscaling: &Autoscaling) -> Bounds {
    let least = autoscaling.min_replicas.try_into().unwrap_or_default();
    let most = autoscaling.max_replicas.try_into().unwrap_or_default();
    Bounds { least, most: least.max(most), delay: autoscaling.scale_down_delay.as_std() }
}

#[cfg(test)]
mod tests;
