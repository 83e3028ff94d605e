//! The sessions of one bridge: the cap, the idle ones, the warm processes that wait for the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::unistd::Pid;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{ExitCause, SessionCounts};
use tokio::sync::Notify;

use crate::link::{Inbox, Link, Opener};
use crate::session::ClientSession;
use crate::state::{State, lock};

/// How often idle sessions and dead warm processes are looked for, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Why a session could not be made.
#[derive(Debug)]
pub(crate) enum CreateError {
    /// There is one of this key.
    Exists,
    /// No room, no process, or no time left.
    Failed(Failure),
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Sessions {
    state: Arc<State>,
    opener: Opener,
    live: Mutex<HashMap<SessionKey, Arc<ClientSession>>>,
    warm: Mutex<VecDeque<(Link, Inbox)>>,
    changed: Notify,
}

impl Sessions {
    pub(crate) fn start(state: &Arc<State>, opener: Opener) -> Arc<Self> {
        let sessions = Arc::new(Self {
            state: Arc::clone(state),
            opener,
            live: Mutex::default(),
            warm: Mutex::default(),
            changed: Notify::new(),
        });
        tokio::spawn(Arc::clone(&sessions).tend());
        sessions
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Option<Arc<ClientSession>> {
        lock(&self.live).get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<ClientSession>> {
        lock(&self.live).values().cloned().collect()
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        SessionCounts {
            active: count(lock(&self.live).len()),
            warm: count(lock(&self.warm).len()),
            max: self.state.config.sessions.max,
        }
    }

    /// The guards of the warm processes.
    pub(crate) fn warm(&self) -> Vec<Pid> {
        lock(&self.warm).iter().filter_map(|(link, _)| link.guard()).collect()
    }

    /// Takes the warm process behind `guard` out; `None` when a session took it meanwhile. Another is started in its place
    /// with the next look for dead ones.
    pub(crate) fn take_warm(&self, guard: Pid) -> Option<Link> {
        let mut warm = lock(&self.warm);
        let position = warm.iter().position(|(link, _)| link.guard() == Some(guard))?;
        warm.remove(position).map(|(link, _)| link)
    }

    /// Makes the session `key`, on a warm process when there is one.
    pub(crate) fn create(self: &Arc<Self>, key: &SessionKey) -> Result<Arc<ClientSession>, CreateError> {
        let mut live = lock(&self.live);
        if live.contains_key(key) {
            return Err(CreateError::Exists);
        }
        self.state.admit_session(live.len()).map_err(CreateError::Failed)?;
        let (link, inbox) = self.take_link().map_err(CreateError::Failed)?;
        let session = ClientSession::start(&self.state, key.clone(), link, inbox);
        live.insert(key.clone(), Arc::clone(&session));
        drop(live);
        tokio::spawn(Arc::clone(self).forget_when_over(Arc::clone(&session)));
        self.changed.notify_one();
        Ok(session)
    }

    fn take_link(&self) -> Result<(Link, Inbox), Failure> {
        while let Some((link, inbox)) = lock(&self.warm).pop_front() {
            if !link.has_ended() {
                return Ok((link, inbox));
            }
        }
        let opened = self.opener.open(&self.state, "session");
        opened.map_err(|error| Failure::new(Kind::ServerExited, error.to_string()))
    }

    async fn forget_when_over(self: Arc<Self>, session: Arc<ClientSession>) {
        session.over().await;
        lock(&self.live).remove(&session.key);
        self.changed.notify_one();
    }

    /// Ends the session `key`; says whether there was one.
    pub(crate) fn delete(&self, key: &SessionKey) -> bool {
        let Some(session) = lock(&self.live).remove(key) else { return false };
        session.end(ExitCause::Deleted, Failure::new(Kind::UnknownSession, "the session was ended by DELETE"));
        true
    }

    /// Ends everything and waits until nothing is left of it.
    pub(crate) async fn end_all(&self) {
        let (sessions, warm) = self.end_now();
        for session in &sessions {
            session.link.ended().await;
        }
        for (link, _) in &warm {
            link.ended().await;
        }
    }

    /// Ends everything without waiting; says what is ending.
    pub(crate) fn end_now(&self) -> (Vec<Arc<ClientSession>>, Vec<(Link, Inbox)>) {
        let sessions: Vec<_> = lock(&self.live).drain().map(|(_, session)| session).collect();
        let failure = Failure::new(Kind::Draining, "this replica went away; open a new session");
        for session in &sessions {
            session.end(ExitCause::Shutdown, failure.clone().retry_after(Duration::from_secs(1)));
        }
        let warm: Vec<_> = lock(&self.warm).drain(..).collect();
        for (link, _) in &warm {
            link.terminate(ExitCause::Shutdown);
        }
        (sessions, warm)
    }

    async fn tend(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.sweep_interval()) => {}
                () = self.changed.notified() => {}
                () = self.state.stop.cancelled() => return,
            }
            self.end_idle();
            self.refill();
        }
    }

    fn sweep_interval(&self) -> Duration {
        (self.state.config.sessions.idle_timeout / 4).clamp(Duration::from_millis(20), SWEEP)
    }

    fn end_idle(&self) {
        let limit = self.state.config.sessions.idle_timeout;
        for session in self.all() {
            if session.idle_for().is_some_and(|idle| idle >= limit) {
                let message = "the session was ended: nobody used it for spec.sessions.idleTimeout";
                session.end(ExitCause::Idle, Failure::new(Kind::UnknownSession, message));
            }
        }
    }

    /// Keeps the warm processes up to their number, while the probe says that the server works at all.
    fn refill(&self) {
        let mut warm = lock(&self.warm);
        warm.retain(|(link, _)| !link.has_ended());
        if self.opener.is_cheap() || !self.state.is_ready() || self.state.is_draining() {
            return;
        }
        while warm.len() < usize::try_from(self.state.config.sessions.warm).unwrap_or(0) {
            match self.opener.open(&self.state, "warm") {
                Ok(started) => warm.push_back(started),
                Err(error) => return tracing::warn!(%error, "cannot start a warm process"),
            }
        }
    }
}
