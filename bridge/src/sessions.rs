//! The sessions of one bridge: the cap, the idle ones, the warm processes that wait for the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::unistd::Pid;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{ExitCause, SessionCounts};
use tokio::sync::Notify;

use crate::config::ServerCommand;
use crate::process::{Process, Stdout};
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
    command: ServerCommand,
    live: Mutex<HashMap<SessionKey, Arc<ClientSession>>>,
    warm: Mutex<VecDeque<(Process, Stdout)>>,
    changed: Notify,
}

impl Sessions {
    pub(crate) fn start(state: &Arc<State>, command: ServerCommand) -> Arc<Self> {
        let sessions = Arc::new(Self {
            state: Arc::clone(state),
            command,
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
        lock(&self.warm).iter().map(|(process, _)| process.guard).collect()
    }

    /// Takes the warm process behind `guard` out; `None` when a session took it meanwhile. Another is started in its place
    /// with the next look for dead ones.
    pub(crate) fn take_warm(&self, guard: Pid) -> Option<Process> {
        let mut warm = lock(&self.warm);
        let position = warm.iter().position(|(process, _)| process.guard == guard)?;
        warm.remove(position).map(|(process, _)| process)
    }

    /// Makes the session `key`, on a warm process when there is one.
    pub(crate) fn create(self: &Arc<Self>, key: &SessionKey) -> Result<Arc<ClientSession>, CreateError> {
        let mut live = lock(&self.live);
        if live.contains_key(key) {
            return Err(CreateError::Exists);
        }
        self.state.admit_session(live.len()).map_err(CreateError::Failed)?;
        let (process, stdout) = self.take_process().map_err(CreateError::Failed)?;
        let session = ClientSession::start(&self.state, key.clone(), process, stdout);
        live.insert(key.clone(), Arc::clone(&session));
        drop(live);
        tokio::spawn(Arc::clone(self).forget_when_over(Arc::clone(&session)));
        self.changed.notify_one();
        Ok(session)
    }

    fn take_process(&self) -> Result<(Process, Stdout), Failure> {
        while let Some((process, stdout)) = lock(&self.warm).pop_front() {
            if !process.has_ended() {
                return Ok((process, stdout));
            }
        }
        Process::spawn(&self.state, &self.command, "session")
            .map_err(|error| Failure::new(Kind::ServerExited, error.to_string()))
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

    /// Ends everything and waits until all processes are gone.
    pub(crate) async fn end_all(&self) {
        let (sessions, warm) = self.end_now();
        for session in &sessions {
            session.process.ended().await;
        }
        for (process, _) in &warm {
            process.ended().await;
        }
    }

    /// Ends everything without waiting; says what is ending.
    pub(crate) fn end_now(&self) -> (Vec<Arc<ClientSession>>, Vec<(Process, Stdout)>) {
        let sessions: Vec<_> = lock(&self.live).drain().map(|(_, session)| session).collect();
        let failure = Failure::new(Kind::Draining, "this replica went away; open a new session");
        for session in &sessions {
            session.end(ExitCause::Shutdown, failure.clone().retry_after(Duration::from_secs(1)));
        }
        let warm: Vec<_> = lock(&self.warm).drain(..).collect();
        for (process, _) in &warm {
            process.terminate(ExitCause::Shutdown);
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
        warm.retain(|(process, _)| !process.has_ended());
        if !self.state.is_ready() || self.state.is_draining() {
            return;
        }
        while warm.len() < usize::try_from(self.state.config.sessions.warm).unwrap_or(0) {
            match Process::spawn(&self.state, &self.command, "warm") {
                Ok(started) => warm.push_back(started),
                Err(error) => return tracing::warn!(%error, "cannot start a warm process"),
            }
        }
    }
}
