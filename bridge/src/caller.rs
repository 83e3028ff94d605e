//! What one caller of the sessionless era has at a server: a link, on which its requests are told apart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Request};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::modern::{LISTEN, Mux, MuxOutput, Reply as Asked};
use portolan_mcp::session::{Refusal, single_line};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::ExitCause;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lines::LineError;
use crate::link::{Heard, Inbox, Link, NotReading, timed_out};
use crate::reply::{Delivery, Outlet, Reply};
use crate::session::{EXIT_AFTER_EOF, PostError, ended};
use crate::state::{State, lock};
use crate::stderr::shorten;

/// Requests of one caller under way at a time, streams of notifications included.
const MAX_CALLS: usize = 256;

/// A caller's link; the registry, the reader task and the streams hold it.
pub(crate) struct CallerSession {
    pub(crate) key: SessionKey,
    /// Who is counted for it, where that is known.
    pub(crate) owner: Option<SessionKey>,
    pub(crate) link: Link,
    state: Arc<State>,
    inner: Mutex<Inner>,
    over: CancellationToken,
}

struct Inner {
    mux: Mux,
    outlets: HashMap<Asked, Outlet>,
    timers: HashMap<Asked, AbortHandle>,
    last_used: Instant,
    ended: Option<Failure>,
}

impl std::fmt::Debug for CallerSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallerSession({})", self.key)
    }
}

impl CallerSession {
    /// A caller's requests on `link`, whose messages are read until it is over.
    pub(crate) fn start(
        state: &Arc<State>,
        key: SessionKey,
        owner: Option<SessionKey>,
        link: Link,
        inbox: Inbox,
    ) -> Arc<Self> {
        link.rename(key.as_str());
        // Without sessions of its own to keep, a server is asked for everyone over one link.
        let mux = if state.config.sessions.stateless { Mux::shared(MAX_CALLS) } else { Mux::new(MAX_CALLS) };
        let inner =
            Inner { mux, outlets: HashMap::new(), timers: HashMap::new(), last_used: Instant::now(), ended: None };
        let over = CancellationToken::new();
        let caller = Arc::new(Self { key, owner, link, state: Arc::clone(state), inner: Mutex::new(inner), over });
        tokio::spawn(Arc::clone(&caller).read(inbox));
        caller
    }

    /// Asks the server. The answer comes within `timeout`, from the server or in its stead; a stream of notifications has
    /// no such end.
    pub(crate) fn ask(
        self: &Arc<Self>,
        request: &Request<'_>,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Reply, PostError> {
        let mut inner = lock(&self.inner);
        if let Some(failure) = &inner.ended {
            return Err(PostError::Failed(failure.clone()));
        }
        inner.last_used = Instant::now();
        let mut out = Vec::new();
        let asked = inner.mux.ask(request, body, &mut out).map_err(|refusal| {
            self.state.counters.refused_calls.add(u64::from(refusal == Refusal::TooManyCalls));
            PostError::Refused(refusal)
        })?;
        let (outlet, reply) = Reply::new();
        inner.outlets.insert(asked, outlet);
        if request.method != LISTEN {
            let timer = tokio::spawn(Self::time_out(Arc::downgrade(self), asked, timeout));
            inner.timers.insert(asked, timer.abort_handle());
        }
        if !self.write_all(&mut inner, out) {
            self.state.counters.refused_calls.add(1);
            self.give_up(&mut inner, asked, &NotReading.failure());
        }
        let caller = Arc::downgrade(self);
        Ok(reply.on_drop(move || {
            if let Some(caller) = caller.upgrade() {
                caller.hung_up(asked);
            }
        }))
    }

    /// Hands on what the caller says without waiting for an answer.
    pub(crate) fn notify(&self, body: &Bytes) -> Result<(), Failure> {
        let mut inner = lock(&self.inner);
        if let Some(failure) = &inner.ended {
            return Err(failure.clone());
        }
        inner.last_used = Instant::now();
        self.link.write(single_line(body)).map_err(|error| {
            self.state.counters.refused_calls.add(1);
            error.failure()
        })
    }

    fn hung_up(&self, asked: Asked) {
        let mut inner = lock(&self.inner);
        inner.last_used = Instant::now();
        let mut out = Vec::new();
        inner.mux.hung_up(asked, &mut out);
        self.write_all(&mut inner, out);
        inner.forget(asked);
    }

    async fn time_out(caller: Weak<Self>, asked: Asked, timeout: Duration) {
        tokio::time::sleep(timeout).await;
        let Some(caller) = caller.upgrade() else { return };
        let mut inner = lock(&caller.inner);
        if caller.give_up(&mut inner, asked, &timed_out(timeout)) {
            caller.state.counters.timeouts.add(1);
        }
    }

    fn give_up(&self, inner: &mut Inner, asked: Asked, failure: &Failure) -> bool {
        let mut out = Vec::new();
        let given_up = inner.mux.give_up(asked, failure, &mut out);
        // A server that does not read will not read that nobody waits either.
        self.write_all(inner, out);
        given_up
    }

    /// Ends it: every request is answered with `failure`. Only the first end counts.
    pub(crate) fn end(&self, cause: ExitCause, failure: Failure) {
        self.end_now(&mut lock(&self.inner), cause, failure);
    }

    /// Ends it unless it was used within `limit`, which nobody does in between.
    pub(crate) fn end_if_idle(&self, limit: Duration, failure: Failure) {
        let mut inner = lock(&self.inner);
        if self.idle(&inner).is_some_and(|idle| idle >= limit) {
            self.end_now(&mut inner, ExitCause::Idle, failure);
        }
    }

    /// Counts as use, for whoever is about to ask; says whether there still is anything to use.
    pub(crate) fn touch(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.last_used = Instant::now();
        inner.ended.is_none()
    }

    fn end_now(&self, inner: &mut Inner, cause: ExitCause, failure: Failure) {
        if inner.ended.is_some() {
            return;
        }
        let mut out = Vec::new();
        inner.mux.end(&failure, &mut out);
        self.write_all(inner, out);
        for (_, timer) in inner.timers.drain() {
            timer.abort();
        }
        inner.outlets.clear();
        inner.ended = Some(failure);
        self.link.terminate(cause);
        self.over.cancel();
    }

    /// Completes when it has ended.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// How long nobody has used it; `None` while a request is under way, or waits for its client to come back.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        self.idle(&lock(&self.inner))
    }

    fn idle(&self, inner: &Inner) -> Option<Duration> {
        (inner.mux.in_flight() == 0 && !self.link.is_awaited()).then(|| inner.last_used.elapsed())
    }

    /// Sends everything without waiting; says whether the server took its part.
    fn write_all(&self, inner: &mut Inner, out: Vec<MuxOutput>) -> bool {
        let mut was_taken = true;
        for output in out {
            match output {
                MuxOutput::ToServer(line) => was_taken &= self.link.write(line).is_ok(),
                MuxOutput::Message { reply, message, failure, last } => {
                    if let Some(outlet) = inner.outlet(reply, last) {
                        outlet.send_now(Delivery { id: None, message, failure, last, permit: None });
                    }
                }
                MuxOutput::Close(reply) => inner.forget(reply),
            }
        }
        was_taken
    }

    async fn read(self: Arc<Self>, mut inbox: Inbox) {
        loop {
            let heard = tokio::select! {
                heard = inbox.next() => heard,
                () = self.over.cancelled() => return,
            };
            match heard {
                Ok(Some(Heard::Message(line))) => self.take_line(&line).await,
                Ok(Some(Heard::Refused { id, failure })) => self.was_refused(&id, &failure),
                Ok(None) | Err(LineError::Io(_)) => return self.server_is_gone().await,
                Err(error @ LineError::TooLong { .. }) => {
                    self.state.counters.oversized_messages.add(1);
                    let message = format!("the server was ended: it sent a message that is too long: {error}");
                    return self.end(ExitCause::MessageTooLong, Failure::new(Kind::BadServerReply, message));
                }
            }
        }
    }

    async fn take_line(&self, line: &Bytes) {
        let line = line.slice_ref(line.trim_ascii());
        if line.is_empty() {
            return;
        }
        for output in self.take_in(&line) {
            self.carry_out(output).await;
        }
    }

    fn take_in(&self, line: &Bytes) -> Vec<MuxOutput> {
        let mut inner = lock(&self.inner);
        let mut out = Vec::new();
        if let Err(error) = inner.mux.server_line(line, &mut out) {
            self.state.counters.skipped_lines.add(1);
            let text = String::from_utf8_lossy(line);
            tracing::debug!(session = %self.key, %error, line = shorten(&text, 200), "skipped a line of the server");
        }
        self.state.counters.dropped_messages.add(inner.mux.take_dropped());
        out
    }

    /// Like [`Self::write_all`], but waits for a client that reads slowly.
    async fn carry_out(&self, output: MuxOutput) {
        let MuxOutput::Message { reply, message, failure, last } = output else {
            self.write_all(&mut lock(&self.inner), vec![output]);
            return;
        };
        let outlet = lock(&self.inner).outlet(reply, last);
        let Some(outlet) = outlet else { return };
        let sent = tokio::select! {
            sent = outlet.send(Delivery { id: None, message, failure, last, permit: None }) => sent,
            () = self.over.cancelled() => Ok(()),
        };
        if sent.is_err() {
            self.state.counters.dropped_messages.add(1);
            tracing::warn!(session = %self.key, "a client does not read its stream; closed it");
            self.hung_up(reply);
        }
    }

    /// The server did not take a request.
    fn was_refused(&self, id: &Id, failure: &Failure) {
        let mut inner = lock(&self.inner);
        let mut out = Vec::new();
        inner.mux.refused(id, failure, &mut out);
        self.write_all(&mut inner, out);
    }

    async fn server_is_gone(&self) {
        let Ok(end) = tokio::time::timeout(EXIT_AFTER_EOF, self.link.ended()).await else {
            let message = format!("the server closed {} during the call; ask again", self.link.voice());
            return self.end(ExitCause::ServerExited, Failure::new(Kind::ServerExited, message));
        };
        self.end(ExitCause::ServerExited, ended(&end, "Ask again"));
    }
}

impl Inner {
    /// Where a message goes; with the last one, nothing more does.
    fn outlet(&mut self, asked: Asked, last: bool) -> Option<Outlet> {
        self.last_used = Instant::now();
        let outlet = self.outlets.get(&asked).cloned();
        if last {
            self.forget(asked);
        }
        outlet
    }

    fn forget(&mut self, asked: Asked) {
        self.outlets.remove(&asked);
        if let Some(timer) = self.timers.remove(&asked) {
            timer.abort();
        }
    }
}
