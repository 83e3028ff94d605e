//! One revision of one server: its bridge and, for an HTTP server, its process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use portolan_bridge::config::{Probe, ServerCommand, Sessions, Upstream};
use portolan_bridge::{Bridge, Config};
use portolan_crds::conditions::reasons;
use portolan_crds::server::RevisionState;
use portolan_mcp::mac::MacKey;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::health::Health;
use super::http_process::HttpProcess;
use super::launch::{Command, Http, Launch, Run};
use super::objects::Name;

/// How often is looked whether a draining revision still serves anyone.
const DRAIN_TICK: Duration = Duration::from_millis(250);
/// A draining revision lives at least this long: a session or a call may be on its way to it while the gateway turns.
const DRAIN_LEAST: Duration = Duration::from_secs(1);
/// How often something that is missing on this machine is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where every port of `dev` but the gateway's is: any free one.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a revision tells.
#[derive(Debug)]
pub(super) struct Event {
    /// The server.
    pub(super) server: Name,
    /// The revision's pod.
    pub(super) uid: String,
    /// What happened.
    pub(super) news: News,
}

/// What happened to a revision.
#[derive(Debug)]
pub(super) enum News {
    /// Its bridge listens.
    Listening(SocketAddr),
    /// It is another way than before.
    Health(Health),
    /// Everything of it has ended.
    Ended,
}

/// What is wanted of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Run,
    Drain,
    Stop,
}

/// A revision as its server sees it.
#[derive(Debug)]
pub(super) struct Revision {
    /// `<server>-<8 hex digits>`.
    pub(super) name: String,
    /// `metadata.generation` of the spec that wants it.
    pub(super) generation: i64,
    /// What it does.
    pub(super) state: RevisionState,
    /// The UID of what would be its pod.
    pub(super) uid: String,
    /// Where its bridge listens.
    pub(super) address: Option<SocketAddr>,
    /// How it is.
    pub(super) health: Health,
    /// The port of its HTTP server.
    pub(super) port: Option<u16>,
    /// Whether it ever took sessions.
    served: bool,
    goal: watch::Sender<Goal>,
    task: JoinHandle<()>,
}

impl Revision {
    /// Starts what `launch` says.
    pub(super) fn start(
        server: &Name,
        generation: i64,
        uid: String,
        launch: Launch,
        mac: MacKey,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (goal, wanted) = watch::channel(Goal::Run);
        let (name, port) = (launch.revision(&server.name), launch.port());
        let life = Life { server: server.clone(), uid: uid.clone(), launch, mac, events, wanted };
        let task = tokio::spawn(life.run());
        let (state, health) = (RevisionState::Pending, Health::pending());
        Self { name, generation, state, uid, address: None, health, port, served: false, goal, task }
    }

    /// Gives it the traffic.
    pub(super) fn serve(&mut self) {
        self.state = RevisionState::Serving;
        self.served = true;
        self.goal.send_replace(Goal::Run);
    }

    /// Wants it back although it drains.
    pub(super) fn recall(&mut self) {
        self.state = RevisionState::Pending;
        self.goal.send_replace(Goal::Run);
    }

    /// Lets it keep the sessions it has until they end or the drain timeout has passed.
    pub(super) fn drain(&mut self) {
        if self.state != RevisionState::Draining {
            self.state = RevisionState::Draining;
            self.goal.send_replace(Goal::Drain);
        }
    }

    /// Lets another one run in its place, when the sessions have ended that it may have.
    pub(super) fn make_way(&mut self) {
        if self.served { self.drain() } else { self.stop() }
    }

    /// Whether it was told to end now: it cannot come back.
    pub(super) fn is_ending(&self) -> bool {
        *self.goal.borrow() == Goal::Stop || self.task.is_finished()
    }

    /// Ends it now.
    pub(super) fn stop(&mut self) {
        self.state = RevisionState::Draining;
        self.goal.send_replace(Goal::Stop);
    }

    /// Ends it now and waits for it.
    pub(super) async fn end(mut self) {
        self.stop();
        if let Err(error) = self.task.await {
            tracing::error!(%error, revision = self.name, "a revision failed");
        }
    }
}

/// The task behind a revision.
struct Life {
    server: Name,
    uid: String,
    launch: Launch,
    mac: MacKey,
    events: mpsc::Sender<Event>,
    wanted: watch::Receiver<Goal>,
}

impl Life {
    async fn run(mut self) {
        match self.launch.run.clone() {
            Run::Command(command) => self.host(&command).await,
            Run::Remote(remote) => match remote.upstream() {
                Ok(upstream) => self.bridge(upstream, None).await,
                Err(message) => {
                    self.tell(News::Health(Health::failed(reasons::INVALID, message))).await;
                    self.stops_within(Duration::MAX).await;
                }
            },
        }
        self.tell(News::Ended).await;
    }

    async fn host(&mut self, command: &Command) {
        let Some(server) = self.command(command).await else { return };
        match &command.http {
            None => self.bridge(Upstream::Stdio(server), None).await,
            Some(http) => self.http(server, http).await,
        }
    }

    /// The command, once its program is on this machine; `None` when nobody wants it any more.
    async fn command(&mut self, wanted: &Command) -> Option<ServerCommand> {
        let program = loop {
            match wanted.find_program() {
                Ok(program) => break program,
                Err(message) => self.tell(News::Health(Health::failed(reasons::SPAWN_FAILED, message))).await,
            }
            if self.stops_within(LOOK_AGAIN).await {
                return None;
            }
        };
        let mut command = ServerCommand::new(program, wanted.args.clone());
        command.env = wanted.env.clone();
        command.clear_env = true;
        Some(command)
    }

    async fn http(&mut self, command: ServerCommand, http: &Http) {
        let Http { port, path, sse } = http;
        match format!("http://127.0.0.1:{port}{path}").parse() {
            Ok(uri) => {
                let upstream = if *sse { Upstream::Sse(uri) } else { Upstream::Http(uri) };
                let mut process = HttpProcess::start(self.server.to_string(), command, *port);
                while self.runs(&mut process).await {
                    self.bridge(upstream.clone(), Some(&mut process)).await;
                }
                process.end().await;
            }
            Err(error) => {
                let message = format!("spec.container.path makes no URL: {error}");
                self.tell(News::Health(Health::failed(reasons::INVALID, message))).await;
                self.stops_within(Duration::MAX).await;
            }
        }
    }

    /// Waits until `process` runs: `false` when nobody wants it any more.
    async fn runs(&mut self, process: &mut HttpProcess) -> bool {
        while let Some(down) = process.down() {
            self.tell(News::Health(down)).await;
            tokio::select! {
                () = process.changed() => {}
                () = Self::stops(&mut self.wanted) => return false,
            }
        }
        *self.wanted.borrow() == Goal::Run
    }

    /// A bridge until nobody wants it any more, or until `process` ends: whoever listens on its port then is somebody
    /// else.
    async fn bridge(&mut self, upstream: Upstream, process: Option<&mut HttpProcess>) {
        match Bridge::start(self.config(upstream), ANY_PORT, ANY_PORT).await {
            Ok(bridge) => {
                self.tell(News::Listening(bridge.data_address())).await;
                self.follow(&bridge, process).await;
                bridge.shutdown().await;
            }
            Err(error) => {
                self.tell(News::Health(Health::failed(reasons::SPAWN_FAILED, error.to_string()))).await;
                self.stops_within(Duration::MAX).await;
            }
        }
    }

    fn config(&self, upstream: Upstream) -> Config {
        let mut config = Config::new(upstream, self.mac.clone());
        config.name = self.server.to_string();
        config.pod.clone_from(&self.uid);
        let (launch, check) = (&self.launch, self.launch.check);
        config.sessions = Sessions {
            stateless: launch.stateless,
            max: launch.max_sessions,
            max_per_caller: launch.max_sessions_per_caller.unwrap_or_else(|| Sessions::share_of(launch.max_sessions)),
            idle_timeout: launch.idle_timeout,
            ..config.sessions
        };
        config.probe = Probe {
            interval: check.interval,
            timeout: check.timeout,
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
            ..config.probe
        };
        config.request_timeout = launch.request_timeout;
        config.drain_timeout = launch.drain_timeout;
        config.document = launch.document;
        config
    }

    /// Tells how it is until nobody wants it any more or its process ends.
    async fn follow(&mut self, bridge: &Bridge, mut process: Option<&mut HttpProcess>) {
        let mut probe = bridge.probe();
        let mut draining_since = None;
        loop {
            let goal = *self.wanted.borrow_and_update();
            match goal {
                Goal::Run => draining_since = None,
                Goal::Drain => {
                    let since = *draining_since.get_or_insert_with(Instant::now);
                    if self.is_drained(bridge, since) {
                        return;
                    }
                }
                Goal::Stop => return,
            }
            let health = Health::of_probe(&probe.borrow_and_update());
            self.tell(News::Health(health)).await;
            tokio::select! {
                wanted = self.wanted.changed() => if wanted.is_err() { return },
                changed = probe.changed() => if changed.is_err() { return },
                () = ended(process.as_deref_mut()) => return,
                () = tokio::time::sleep(DRAIN_TICK), if goal == Goal::Drain => {}
            }
        }
    }

    fn is_drained(&self, bridge: &Bridge, since: Instant) -> bool {
        let empty = !bridge.is_busy();
        let over = since.elapsed() >= self.launch.drain_timeout;
        over || (empty && since.elapsed() >= DRAIN_LEAST)
    }

    /// Waits `time`, or until it is to stop: whether it is. What never served has nothing to drain.
    async fn stops_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, Self::stops(&mut self.wanted)).await.is_ok()
    }

    async fn stops(wanted: &mut watch::Receiver<Goal>) {
        // An error means that the one who would say so is gone.
        let _ = wanted.wait_for(|goal| *goal != Goal::Run).await;
    }

    async fn tell(&self, news: News) {
        // Nobody listens once dev itself ends.
        let _ = self.events.send(Event { server: self.server.clone(), uid: self.uid.clone(), news }).await;
    }
}

/// Waits until `process` ends; for ever when there is none.
async fn ended(process: Option<&mut HttpProcess>) {
    match process {
        Some(process) => {
            while process.down().is_none() {
                process.changed().await;
            }
        }
        None => std::future::pending().await,
    }
}
