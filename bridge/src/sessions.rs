//! The sessions of one bridge: the cap, the idle ones, the warm processes that wait for the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::unistd::Pid;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::revision::Era;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{ExitCause, SessionCounts};
use tokio::sync::Notify;

use crate::caller::CallerSession;
use crate::link::{Caller, Inbox, Link, Opener};
use crate::live::Live;
use crate::part::Part;
use crate::session::{ClientSession, Named};
use crate::state::{Held, State, lock};

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

/// Counts sessions that are held elsewhere, for the caller who wants another.
pub(crate) type Beside = Box<dyn Fn(Option<&SessionKey>) -> Held + Send + Sync>;

/// The registry.
pub(crate) struct Sessions {
    state: Arc<State>,
    opener: Opener,
    /// Sessions that are counted elsewhere under the same bound.
    beside: Beside,
    live: Mutex<HashMap<SessionKey, Live>>,
    warm: Mutex<VecDeque<(Link, Inbox)>>,
    changed: Notify,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn start(state: &Arc<State>, opener: Opener, beside: Beside) -> Arc<Self> {
        let sessions = Arc::new(Self {
            state: Arc::clone(state),
            opener,
            beside,
            live: Mutex::default(),
            warm: Mutex::default(),
            changed: Notify::new(),
        });
        tokio::spawn(Arc::clone(&sessions).tend());
        sessions
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Option<Arc<ClientSession>> {
        match lock(&self.live).get(key) {
            Some(Live::Client(session)) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    pub(crate) fn all(&self) -> Vec<Live> {
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

    /// Sessions of clients, and callers of whom something is under way.
    pub(crate) fn busy(&self) -> usize {
        let is_busy = |live: &&Live| matches!(live, Live::Client(_)) || live.idle_for().is_none();
        lock(&self.live).values().filter(is_busy).count()
    }

    /// Those that are held here, for `caller`.
    pub(crate) fn held(&self, caller: Option<&SessionKey>) -> Held {
        held(&lock(&self.live), caller)
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

    /// Makes the session `key` of `owner`, on a warm process when there is one.
    pub(crate) fn create(
        self: &Arc<Self>,
        key: &SessionKey,
        owner: Option<SessionKey>,
        part: Option<Part>,
    ) -> Result<Arc<ClientSession>, CreateError> {
        let mut live = lock(&self.live);
        if live.contains_key(key) {
            return Err(CreateError::Exists);
        }
        self.admit(&live, owner.as_ref()).map_err(CreateError::Failed)?;
        let (link, inbox) = self.take_link().map_err(CreateError::Failed)?;
        let session = ClientSession::start(&self.state, Named { key: key.clone(), owner, part }, link, inbox);
        self.keep(&mut live, Live::Client(Arc::clone(&session)));
        Ok(session)
    }

    /// What is kept for `caller` at a server of `era`; made when there is nothing yet.
    pub(crate) fn caller(self: &Arc<Self>, caller: Caller, era: Era) -> Result<Arc<CallerSession>, Failure> {
        // A server of sessions is told what its client can do when one begins: who can do something else gets another.
        let part = if era == Era::Legacy { caller.introduction.digest() } else { Vec::new() };
        let key = caller.key.derived(&part);
        let mut live = lock(&self.live);
        if let Some(Live::Caller(caller)) = live.get(&key)
            && caller.touch()
        {
            return Ok(Arc::clone(caller));
        }
        // One that has just ended is nobody's answer.
        live.remove(&key);
        // What is kept for everyone is nobody's.
        let owner = (caller.key != SessionKey::of_everyone()).then(|| caller.key.clone());
        self.admit(&live, owner.as_ref())?;
        let opened = self.opener.open_for(caller, era, &self.state, "caller");
        let (link, inbox) = opened.map_err(|error| Failure::new(Kind::ServerExited, error.to_string()))?;
        let caller = CallerSession::start(&self.state, key, owner, link, inbox);
        self.keep(&mut live, Live::Caller(Arc::clone(&caller)));
        Ok(caller)
    }

    fn admit(&self, live: &HashMap<SessionKey, Live>, owner: Option<&SessionKey>) -> Result<(), Failure> {
        self.state.admit_session(held(live, owner) + (self.beside)(owner))
    }

    fn keep(self: &Arc<Self>, sessions: &mut HashMap<SessionKey, Live>, session: Live) {
        sessions.insert(session.key().clone(), session.clone());
        tokio::spawn(Arc::clone(self).forget_when_over(session));
        self.changed.notify_one();
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

    async fn forget_when_over(self: Arc<Self>, session: Live) {
        session.over().await;
        let mut live = lock(&self.live);
        if live.get(session.key()).is_some_and(|held| held.is(&session)) {
            live.remove(session.key());
        }
        drop(live);
        self.changed.notify_one();
    }

    /// Ends the session `key`; says whether there was one.
    pub(crate) fn delete(&self, key: &SessionKey) -> bool {
        let Some(session) = self.find(key) else { return false };
        lock(&self.live).remove(key);
        session.end(ExitCause::Deleted, Failure::new(Kind::UnknownSession, "the session was ended by DELETE"));
        true
    }

    /// Ends everything and waits until nothing is left of it.
    pub(crate) async fn end_all(&self) {
        let (sessions, warm) = self.end_now();
        for session in &sessions {
            session.link().ended().await;
        }
        for (link, _) in &warm {
            link.ended().await;
        }
    }

    /// Ends everything without waiting; says what is ending.
    pub(crate) fn end_now(&self) -> (Vec<Live>, Vec<(Link, Inbox)>) {
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

    /// Ends all sessions: the server that they were with is gone for good.
    pub(crate) fn end_replaced(&self) {
        let message = "another server came in the place of the one that this session was with; open a new one";
        for session in self.all() {
            session.end(ExitCause::Replaced, Failure::new(Kind::UnknownSession, message));
        }
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
            let message = "the session was ended: nobody used it for spec.sessions.idleTimeout";
            session.end_if_idle(limit, Failure::new(Kind::UnknownSession, message));
        }
    }

    /// Keeps the warm processes up to their number, while the probe says that the server works at all.
    fn refill(&self) {
        let mut warm = lock(&self.warm);
        warm.retain(|(link, _)| !link.has_ended());
        let is_wanted = !self.state.config.sessions.stateless && !self.opener.is_cheap();
        if !is_wanted || !self.state.is_ready() || self.state.is_draining() {
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

fn held(live: &HashMap<SessionKey, Live>, caller: Option<&SessionKey>) -> Held {
    Held::by(caller, live.values().map(Live::owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::unguarded;
    use crate::upstream::Server;
    use portolan_mcp::translate::Introduction;

    #[tokio::test]
    async fn a_caller_whose_link_has_just_ended_gets_another_and_keeps_it() {
        let (state, ..) = unguarded("true");
        let server = Server::new("http://127.0.0.1:9/mcp".parse().expect("an address"));
        let sessions = Sessions::start(&state, Opener::Http(server), Box::new(|_| Held::default()));
        let caller = || {
            let caller = Caller { key: SessionKey::of_everyone(), introduction: Introduction::of_many() };
            sessions.caller(caller, Era::Modern).expect("a link")
        };
        let one = caller();
        one.end_if_idle(Duration::from_secs(600), Failure::new(Kind::UnknownSession, "it is in use"));
        assert!(Arc::ptr_eq(&one, &caller()), "it was used just now");
        one.end_if_idle(Duration::ZERO, Failure::new(Kind::UnknownSession, "nobody used it"));
        // Nobody had the time to forget the one before.
        let other = caller();
        assert!(!Arc::ptr_eq(&one, &other));
        one.over().await;
        one.link.ended().await;
        tokio::task::yield_now().await;
        assert!(Arc::ptr_eq(&other, &caller()), "it went with the one before");
        assert_eq!(sessions.held(None).all, 1);
    }
}
