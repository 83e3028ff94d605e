//! One client's session with a server, over a link of its own: drives the state machine of `portolan_mcp::session`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::session::{Accepted, Attachment, Event, IdKey, Limits, Output, Refusal, Session, StreamId};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::ExitCause;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lines::LineError;
use crate::link::{End, Heard, How, Inbox, Link, timed_out};
use crate::part::Part;
use crate::reply::{Delivery, Outlet, Reply};
use crate::state::{State, lock};
use crate::stderr::shorten;

/// How long a server that closed its stdout may take to end.
pub(crate) const EXIT_AFTER_EOF: Duration = Duration::from_secs(1);

/// What came of a client's message.
#[derive(Debug)]
pub(crate) enum Posted {
    /// The answer comes here.
    Call(Reply),
    /// Nothing more will come of it.
    Done,
}

/// Why a client's message was not taken.
#[derive(Debug)]
pub(crate) enum PostError {
    /// The session's rules forbid it.
    Refused(Refusal),
    /// It failed before it reached the server.
    Failed(Failure),
}

/// Which session it is.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) key: SessionKey,
    /// Who is counted for it, where that is known.
    pub(crate) owner: Option<SessionKey>,
    /// Of one that is opened in its client's stead. Others than whoever opens it have its key.
    pub(crate) part: Option<Part>,
}

impl Named {
    /// Whether a request with these headers is meant for it.
    pub(crate) fn is_meant(&self, headers: &HeaderMap) -> bool {
        Part::is_meant(self.part.as_ref(), headers)
    }
}

/// A session; the registry, the reader task and the streams hold it.
pub(crate) struct ClientSession {
    pub(crate) named: Named,
    pub(crate) link: Link,
    state: Arc<State>,
    inner: Mutex<Inner>,
    over: CancellationToken,
}

struct Inner {
    machine: Session,
    /// Who holds each stream.
    outlets: HashMap<StreamId, (Attachment, Outlet)>,
    timers: HashMap<StreamId, AbortHandle>,
    last_used: Instant,
    ended: Option<Failure>,
    /// The stream of `initialize`, until it is answered.
    initialize: Option<StreamId>,
}

impl Inner {
    /// Forgets who held the stream, unless a newer connection does.
    fn let_go(&mut self, attachment: Attachment) {
        if self.outlets.get(&attachment.stream).is_some_and(|(holder, _)| *holder == attachment) {
            self.outlets.remove(&attachment.stream);
        }
    }

    /// Stops the timers of calls that are over, whether or not anyone was there to hear of it.
    fn stop_timers(&mut self) {
        if self.timers.len() > self.machine.in_flight() {
            for (_, timer) in self.timers.extract_if(|stream, _| !self.machine.is_open(*stream)) {
                timer.abort();
            }
        }
    }
}

impl std::fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientSession({})", self.named.key)
    }
}

impl ClientSession {
    /// A session on `link`, whose messages are read until the session is over.
    pub(crate) fn start(state: &Arc<State>, named: Named, link: Link, inbox: Inbox) -> Arc<Self> {
        link.rename(named.key.as_str());
        let begin = if named.part.is_some() { Session::opened_in_stead } else { Session::new };
        let inner = Inner {
            machine: begin(Limits::default()),
            outlets: HashMap::new(),
            timers: HashMap::new(),
            last_used: Instant::now(),
            ended: None,
            initialize: None,
        };
        let over = CancellationToken::new();
        let session = Arc::new(Self { named, link, state: Arc::clone(state), inner: Mutex::new(inner), over });
        tokio::spawn(Arc::clone(&session).read(inbox));
        session
    }

    /// Takes a client's message. A request is answered within `timeout`, by the server or in its stead.
    pub(crate) fn post(
        self: &Arc<Self>,
        message: &Message<'_>,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Posted, PostError> {
        let mut inner = lock(&self.inner);
        if let Some(failure) = &inner.ended {
            return Err(PostError::Failed(failure.clone()));
        }
        inner.last_used = Instant::now();
        let mut out = Vec::new();
        let accepted = inner.machine.accept(message, body, &mut out).map_err(|refusal| {
            self.state.counters.refused_calls.add(u64::from(refusal == Refusal::TooManyCalls));
            PostError::Refused(refusal)
        })?;
        let Accepted::Call(attachment) = accepted else {
            return self.take_all(&mut inner, out).map(|()| Posted::Done);
        };
        let reply = self.hold(&mut inner, attachment);
        if message.method() == Some("initialize") {
            inner.initialize = Some(attachment.stream);
        }
        if let Err(PostError::Failed(failure)) = self.take_all(&mut inner, out) {
            self.give_up(&mut inner, attachment.stream, &failure);
            return Ok(Posted::Call(reply));
        }
        let timer = tokio::spawn(Self::time_out(Arc::downgrade(self), attachment.stream, timeout));
        inner.timers.insert(attachment.stream, timer.abort_handle());
        Ok(Posted::Call(reply))
    }

    /// Sends what a client's message comes to.
    fn take_all(&self, inner: &mut Inner, out: Vec<Output>) -> Result<(), PostError> {
        self.write_all(inner, out).inspect_err(|_| self.state.counters.refused_calls.add(1))
    }

    /// Opens the standing stream, or resumes one.
    pub(crate) fn open(self: &Arc<Self>, last_event_id: Option<&str>) -> Result<Reply, Failure> {
        let mut inner = lock(&self.inner);
        if let Some(failure) = &inner.ended {
            return Err(failure.clone());
        }
        inner.last_used = Instant::now();
        let mut out = Vec::new();
        let opened = inner.machine.open(last_event_id, &mut out);
        let attachment = opened.map_err(|refusal| Failure::new(Kind::InvalidRequest, refusal.to_string()))?;
        // A close that comes first is for the connection that held the stream until now.
        if out.first() == Some(&Output::Close(attachment.stream)) && inner.outlets.remove(&attachment.stream).is_some()
        {
            out.remove(0);
        }
        let reply = self.hold(&mut inner, attachment);
        // What the server is told by this is a refusal of its own request: it may miss it.
        let _ = self.write_all(&mut inner, out);
        Ok(reply)
    }

    /// Ends the session: every call is answered with `failure`, and the link is ended.
    /// Only the first end counts.
    pub(crate) fn end(&self, cause: ExitCause, failure: Failure) {
        self.end_held(&mut lock(&self.inner), cause, failure);
    }

    fn end_held(&self, inner: &mut Inner, cause: ExitCause, failure: Failure) {
        if inner.ended.is_some() {
            return;
        }
        let mut out = Vec::new();
        inner.machine.end(&failure, &mut out);
        let _ = self.write_all(inner, out);
        for (_, timer) in inner.timers.drain() {
            timer.abort();
        }
        inner.outlets.clear();
        inner.ended = Some(failure);
        self.link.terminate(cause);
        self.over.cancel();
    }

    /// Completes when the session has ended.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// How long nobody has used it; `None` while a call is in flight.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let inner = lock(&self.inner);
        (inner.machine.in_flight() == 0).then(|| inner.last_used.elapsed())
    }

    fn hold(self: &Arc<Self>, inner: &mut Inner, attachment: Attachment) -> Reply {
        let (outlet, reply) = Reply::new();
        inner.outlets.insert(attachment.stream, (attachment, outlet));
        let session = Arc::downgrade(self);
        reply.resumable(attachment.event_id()).on_drop(move || {
            if let Some(session) = session.upgrade() {
                session.hung_up(attachment);
            }
        })
    }

    fn hung_up(&self, attachment: Attachment) {
        let mut inner = lock(&self.inner);
        inner.machine.closed(attachment);
        inner.let_go(attachment);
        let is_opening = inner.initialize == Some(attachment.stream);
        let nobody_knows_it =
            is_opening && self.named.part.is_none() && !inner.outlets.contains_key(&attachment.stream);
        drop(inner);
        if nobody_knows_it {
            self.never_opened(&mut lock(&self.inner));
        }
    }

    fn never_opened(&self, inner: &mut Inner) {
        let failure = Failure::new(Kind::UnknownSession, "the session was never opened");
        self.end_held(inner, ExitCause::NotInitialized, failure);
    }

    async fn time_out(session: Weak<Self>, stream: StreamId, timeout: Duration) {
        tokio::time::sleep(timeout).await;
        let Some(session) = session.upgrade() else { return };
        let mut inner = lock(&session.inner);
        if session.give_up(&mut inner, stream, &timed_out(timeout)) {
            session.state.counters.timeouts.add(1);
        }
    }

    fn give_up(&self, inner: &mut Inner, stream: StreamId, failure: &Failure) -> bool {
        let mut out = Vec::new();
        let given_up = inner.machine.give_up(stream, failure, &mut out);
        // A server that does not read will not read that nobody waits either.
        let _ = self.write_all(inner, out);
        given_up
    }

    /// Sends everything without waiting; an error when the server did not take its part.
    fn write_all(&self, inner: &mut Inner, out: Vec<Output>) -> Result<(), PostError> {
        let mut result = Ok(());
        for output in out {
            match output {
                Output::ToServer(line) => {
                    if let Err(error) = self.link.write(line) {
                        result = Err(PostError::Failed(error.failure()));
                    }
                }
                Output::Event(event) => {
                    if let Some(outlet) = self.outlet(inner, &event) {
                        outlet.send_now(delivery(event));
                    }
                }
                Output::Close(stream) => drop(inner.outlets.remove(&stream)),
                Output::NeverOpened => self.never_opened(inner),
            }
        }
        inner.stop_timers();
        result
    }

    /// Where the event goes; nowhere when another connection holds its stream by now, which has it by replay.
    fn outlet(&self, inner: &mut Inner, event: &Event) -> Option<Outlet> {
        inner.last_used = Instant::now();
        let (_, outlet) = inner.outlets.get(&event.stream).filter(|(holder, _)| event.is_for(holder)).cloned()?;
        if event.last {
            inner.outlets.remove(&event.stream);
        }
        Some(outlet)
    }

    async fn read(self: Arc<Self>, mut inbox: Inbox) {
        loop {
            let line = tokio::select! {
                line = inbox.next() => line,
                () = self.over.cancelled() => return,
            };
            match line {
                Ok(Some(Heard::Message(line))) => self.take_line(line).await,
                Ok(Some(Heard::Refused { id, failure })) => self.take_refusal(&id, &failure).await,
                Ok(None) | Err(LineError::Io(_)) => return self.server_is_gone().await,
                Err(error @ LineError::TooLong { .. }) => {
                    self.state.counters.oversized_messages.add(1);
                    let message = format!("the session was ended: the server sent a message that is too long: {error}");
                    return self.end(ExitCause::MessageTooLong, Failure::new(Kind::BadServerReply, message));
                }
            }
        }
    }

    async fn take_line(&self, line: Bytes) {
        let line = line.slice_ref(line.trim_ascii());
        if line.is_empty() {
            return;
        }
        let out = self.take_in(&line);
        for output in out {
            self.carry_out(output).await;
        }
    }

    fn take_in(&self, line: &Bytes) -> Vec<Output> {
        let mut inner = lock(&self.inner);
        let mut out = Vec::new();
        if let Err(error) = inner.machine.server_line(line, &mut out) {
            self.state.counters.skipped_lines.add(1);
            let text = String::from_utf8_lossy(line);
            tracing::debug!(session = %self.named.key, %error, line = shorten(&text, 200), "skipped what is no message");
        }
        self.state.counters.dropped_messages.add(inner.machine.take_dropped());
        // What goes to the server goes before anything that a client says next; clients may be slow.
        let mut to_clients = Vec::with_capacity(out.len());
        for output in out {
            match output {
                Output::ToServer(line) => self.write_or_refuse(&mut inner, &line, &mut to_clients),
                output => to_clients.push(output),
            }
        }
        inner.stop_timers();
        to_clients
    }

    /// Writes to the server; a request that it does not take is answered in its stead.
    fn write_or_refuse(&self, inner: &mut Inner, line: &Bytes, out: &mut Vec<Output>) {
        if let Err(error) = self.link.write(line.clone())
            && let Ok(Message::Request(request)) = Message::parse(line)
        {
            self.state.counters.refused_calls.add(1);
            inner.machine.refused(&IdKey::from(&request.id), &error.failure(), out);
        }
    }

    /// The server did not take a request.
    async fn take_refusal(&self, id: &Id, failure: &Failure) {
        let mut out = Vec::new();
        {
            let mut inner = lock(&self.inner);
            inner.machine.refused(&IdKey::from(id), failure, &mut out);
            inner.stop_timers();
        }
        for output in out {
            self.carry_out(output).await;
        }
    }

    /// Like [`Self::write_all`], but waits for a client that reads slowly.
    async fn carry_out(&self, output: Output) {
        let Output::Event(event) = output else {
            let mut inner = lock(&self.inner);
            let _ = self.write_all(&mut inner, vec![output]);
            return;
        };
        let outlet = {
            let mut inner = lock(&self.inner);
            inner.initialize = inner.initialize.filter(|stream| !event.last || *stream != event.stream);
            self.outlet(&mut inner, &event)
        };
        if let Some(outlet) = outlet {
            let sent = tokio::select! {
                sent = outlet.send(delivery(event.clone())) => sent,
                () = self.over.cancelled() => Ok(()),
            };
            if sent.is_err() {
                self.state.counters.dropped_messages.add(1);
                tracing::warn!(session = %self.named.key, "a client does not read its stream; closed it");
                lock(&self.inner).outlets.retain(|_, (holder, _)| !event.is_for(holder));
            }
        }
    }

    async fn server_is_gone(&self) {
        let Ok(end) = tokio::time::timeout(EXIT_AFTER_EOF, self.link.ended()).await else {
            let failure = Failure::new(Kind::ServerExited, "the server closed its stdout during the session");
            return self.end(ExitCause::ServerExited, failure);
        };
        self.end(ExitCause::ServerExited, exited(&end));
    }
}

/// The failure that calls see when their server ended.
pub(crate) fn exited(end: &End) -> Failure {
    ended(end, "Open a new session and ask again")
}

/// The failure that calls see when their server ended, with what to do next.
pub(crate) fn ended(end: &End, next: &str) -> Failure {
    let kind = match &end.how {
        How::Unreachable(error) => error.failure().kind,
        How::NotSse(_) => Kind::BadServerReply,
        _ if end.cause == ExitCause::MemoryPressure => Kind::MemoryPressure,
        _ => Kind::ServerExited,
    };
    Failure::new(kind, format!("{}. {next}", end.describe()))
}

fn delivery(event: Event) -> Delivery {
    Delivery { id: Some(event.id()), message: event.message, failure: event.failure, last: event.last, permit: None }
}

#[cfg(test)]
mod tests;
