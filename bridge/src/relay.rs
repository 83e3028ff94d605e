//! HTTP mode: sessions of the bridge in front of those of a streamable HTTP server.

mod session;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::session::{INITIALIZED, cancelled};
use portolan_mcp::token;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use self::session::{InFlight, Session};
use crate::awaited::{self, Content, Pending};
use crate::data::{self, Answer, Received, id_of, unknown_session};
use crate::opening::Opening;
use crate::part::Part;
use crate::relayed::{self, Call};
use crate::respond::{self, QUICK};
use crate::server::Body;
use crate::sessions::Sessions;
use crate::state::{Held, State, lock};
use crate::upstream::Server;

const SWEEP: Duration = Duration::from_secs(1);
/// How long the server may take to hear that a session or a call is over.
const GOODBYE: Duration = Duration::from_secs(3);

/// Goodbyes under way at a time.
const GOODBYES: usize = 32;
/// How long the goodbyes of all sessions may take when the bridge ends.
const LAST_GOODBYES: Duration = Duration::from_secs(5);

/// The relay.
#[derive(Debug)]
pub(crate) struct Relay {
    state: Arc<State>,
    server: Server,
    sessions: Mutex<HashMap<SessionKey, Arc<Session>>>,
    beside: OnceLock<Weak<Sessions>>,
    in_flight: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn start(state: &Arc<State>, server: Server) -> Arc<Self> {
        let relay = Arc::new(Self {
            state: Arc::clone(state),
            server,
            sessions: Mutex::default(),
            beside: OnceLock::new(),
            in_flight: Arc::default(),
        });
        tokio::spawn(Arc::clone(&relay).end_idle());
        relay
    }

    /// Sessions that are open here, for `caller`.
    pub(crate) fn held(&self, caller: Option<&SessionKey>) -> Held {
        held(&lock(&self.sessions), caller)
    }

    /// The sessions that count against the same bound.
    pub(crate) fn beside(&self, sessions: &Arc<Sessions>) {
        // It is said once, at the start.
        let _ = self.beside.set(Arc::downgrade(sessions));
    }

    /// The largest message of a server.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.state.config.max_message_bytes
    }

    /// Messages of clients whose answer is under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Ends every session, and tells the server.
    pub(crate) async fn end_all(&self) {
        let sessions: Vec<_> = lock(&self.sessions).drain().map(|(_, session)| session).collect();
        sessions.iter().for_each(|session| session.over.cancel());
        let goodbyes = stream::iter(&sessions).for_each_concurrent(GOODBYES, |session| self.say_goodbye(session));
        if tokio::time::timeout(LAST_GOODBYES, goodbyes).await.is_err() {
            tracing::warn!("the server did not hear in time that its sessions ended");
        }
    }

    /// Relays a message of a client with a session.
    pub(crate) async fn post(self: &Arc<Self>, key: &SessionKey, received: &Received<'_>) -> Answer {
        let Received { headers, message, body, timeout } = *received;
        let is_initialize = data::opens_session(message);
        let session = self.session_for(key, received, is_initialize)?;
        let has_sessions = !self.state.config.sessions.stateless;
        let opening = (is_initialize && has_sessions).then(|| Opening::new(self, key, &session));
        let in_flight = InFlight::new(&session, &self.in_flight);
        let (call, part) = (Call::of(message, timeout), session.part.clone());
        let told = |response| Ok(Part::told(part.as_ref(), response));
        let (key, headers, id) = (key.clone(), headers.clone(), call.id.clone());
        let mut pending = Arc::clone(self).ask(key, Arc::clone(&session), is_initialize, headers, body.clone(), id);
        let (relay, held) = (Arc::clone(self), Arc::clone(&session));
        let gave_up = move |call: &Call| relay.give_up(&held, call);
        let answer = match tokio::time::timeout(timeout.min(QUICK), &mut pending).await {
            Ok(answer) => answer,
            Err(_) => match &call.id {
                // The head of the answer to `initialize` names the session, and what is not a request has no answer.
                Some(_) if !is_initialize => {
                    return told(relayed::late(pending, call, in_flight, session.over.clone(), gave_up));
                }
                _ => tokio::time::timeout_at(call.deadline, pending).await.unwrap_or_else(|_| {
                    self.give_up(&session, &call);
                    Err(call.timed_out())
                }),
            },
        };
        match answer {
            Ok(response) => told(relayed::call(response, call, in_flight, session.over.clone(), gave_up, opening)),
            Err(failure) => Err(respond::failure(&failure, call.id.as_ref(), call.method.as_deref())),
        }
    }

    /// Relays a request or notification of the sessionless era as it is. A client that hangs up closes the request at the
    /// server too, which takes it back there.
    pub(crate) async fn pass(self: &Arc<Self>, received: &Received<'_>, listens: bool) -> Answer {
        let Received { headers, message, body, timeout } = *received;
        let call = Call::of(message, timeout);
        let asked = async {
            let sent = self.server.send(Method::POST, headers, None, body.clone()).await;
            awaited::begin(sent.map_err(|error| error.failure())?, call.id.as_ref()).await
        };
        let answer = match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                self.state.counters.timeouts.add(1);
                Err(call.timed_out())
            }
        };
        let response =
            answer.map_err(|failure| respond::failure(&failure, call.id.as_ref(), call.method.as_deref()))?;
        let session = Session::of(None, None);
        let response = match response.into_parts() {
            (head, Content::Rest(_, body)) if listens && head.status.is_success() => {
                return Ok(relayed::stream(Response::from_parts(head, body), session.over.clone(), || {}));
            }
            (head, content) => Response::from_parts(head, content),
        };
        let in_flight = InFlight::new(&session, &self.in_flight);
        let relay = Arc::clone(self);
        let gave_up = move |_: &Call| relay.state.counters.timeouts.add(1);
        Ok(relayed::call(response, call, in_flight, session.over.clone(), gave_up, None))
    }

    /// Sends a message on, and learns from the head of its answer. It is the answer of request `id`.
    fn ask(
        self: Arc<Self>,
        key: SessionKey,
        session: Arc<Session>,
        is_initialize: bool,
        headers: HeaderMap,
        body: Bytes,
        id: Option<Id>,
    ) -> Pending {
        Box::pin(async move {
            if !is_initialize {
                session.until_begun().await?;
            }
            session.note_revision(&headers);
            let name = lock(&session.id).clone();
            let sent = self.server.send(Method::POST, &headers, name.as_ref(), body).await;
            let response = sent.map_err(|error| error.failure())?;
            awaited::begin(self.take(&key, &session, is_initialize, response)?, id.as_ref()).await
        })
    }

    fn session_for(
        &self,
        key: &SessionKey,
        received: &Received<'_>,
        is_initialize: bool,
    ) -> Result<Arc<Session>, Response<Body>> {
        let message = received.message;
        if self.state.config.sessions.stateless {
            return Ok(Session::of(None, None));
        }
        let mut sessions = lock(&self.sessions);
        if !is_initialize {
            let held = sessions.get(key).filter(|session| Part::is_meant(session.part.as_ref(), received.headers));
            return held.cloned().ok_or_else(|| unknown_session(id_of(message)));
        }
        if sessions.contains_key(key) {
            let text = "a session of this name is already open";
            return Err(respond::invalid(StatusCode::CONFLICT, text, id_of(message)));
        }
        let owner = received.owner();
        let beside = self.beside.get().and_then(Weak::upgrade);
        let beside = beside.map_or_else(Held::default, |beside| beside.held(owner.as_ref()));
        self.state
            .admit_session(held(&sessions, owner.as_ref()) + beside)
            .map_err(|failure| respond::failure(&failure, id_of(message), Some("initialize")))?;
        let session = Session::of(owner, received.part()?);
        sessions.insert(key.clone(), Arc::clone(&session));
        Ok(session)
    }

    /// Learns from the head of an answer what it says about the session.
    fn take(
        &self,
        key: &SessionKey,
        session: &Arc<Session>,
        is_initialize: bool,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Failure> {
        if is_initialize {
            *lock(&session.id) = response.headers().get(token::HEADER).cloned();
        } else if response.status() == StatusCode::NOT_FOUND && lock(&session.id).is_some() {
            // Another may have been opened under its key since.
            let mut sessions = lock(&self.sessions);
            if sessions.get(key).is_some_and(|held| Arc::ptr_eq(held, session)) {
                sessions.remove(key);
            }
            session.over.cancel();
            let message = "the server ended the session; open a new one with initialize";
            return Err(Failure::new(Kind::UnknownSession, message));
        }
        Ok(response)
    }

    pub(crate) async fn get(&self, key: &SessionKey, headers: &HeaderMap) -> Answer {
        let session = lock(&self.sessions).get(key).cloned();
        let session = session.filter(|session| Part::is_meant(session.part.as_ref(), headers));
        let session = session.ok_or_else(|| unknown_session(None))?;
        *lock(&session.last_used) = Instant::now();
        let id = lock(&session.id).clone();
        let sent = self.server.send(Method::GET, headers, id.as_ref(), Bytes::new());
        let response = match tokio::time::timeout(self.state.config.request_timeout, sent).await {
            Ok(Ok(response)) => self.take(key, &session, false, response),
            Ok(Err(error)) => Err(error.failure()),
            Err(_) => Err(Failure::new(Kind::RequestTimeout, "the server did not open the stream in time")),
        };
        let response = response.map_err(|failure| {
            // A stream has no request to answer inside the protocol.
            let mut response = respond::failure(&failure, None, None);
            if failure.kind.is_in_protocol() {
                *response.status_mut() = StatusCode::BAD_GATEWAY;
            }
            response
        })?;
        let (over, part) = (session.over.clone(), session.part.clone());
        let response = relayed::stream(response, over, move || *lock(&session.last_used) = Instant::now());
        Ok(Part::told(part.as_ref(), response))
    }

    /// The server has opened the session that was asked for in a client's stead.
    pub(crate) async fn begin(self: Arc<Self>, session: Arc<Session>) {
        let (headers, id) = (session.message_headers(), lock(&session.id).clone());
        let sent = self.server.send(Method::POST, &headers, id.as_ref(), Bytes::from_static(INITIALIZED));
        if !matches!(tokio::time::timeout(GOODBYE, sent).await, Ok(Ok(_))) {
            // Whatever is asked next says why.
            tracing::debug!("the server did not hear that a session has begun");
        }
        session.begun.cancel();
    }

    /// `initialize` came to nothing.
    pub(crate) fn never_opened(self: &Arc<Self>, key: &SessionKey, session: &Arc<Session>) {
        let mut sessions = lock(&self.sessions);
        if sessions.get(key).is_none_or(|held| !Arc::ptr_eq(held, session)) {
            return;
        }
        sessions.remove(key);
        self.part_with(Arc::clone(session));
    }

    fn part_with(self: &Arc<Self>, session: Arc<Session>) {
        session.over.cancel();
        let relay = Arc::clone(self);
        tokio::spawn(async move { relay.say_goodbye(&session).await });
    }

    pub(crate) fn delete(self: &Arc<Self>, key: &SessionKey) -> Answer {
        let session = lock(&self.sessions).remove(key).ok_or_else(|| unknown_session(None))?;
        self.part_with(session);
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    async fn say_goodbye(&self, session: &Session) {
        session.over.cancel();
        let Some(id) = lock(&session.id).clone() else { return };
        let headers = session.headers();
        let sent = self.server.send(Method::DELETE, &headers, Some(&id), Bytes::new());
        if !matches!(tokio::time::timeout(GOODBYE, sent).await, Ok(Ok(_))) {
            tracing::debug!("the server did not hear that a session ended");
        }
    }

    /// Tells the server that nobody waits for `call` any more.
    fn give_up(&self, session: &Session, call: &Call) {
        self.state.counters.timeouts.add(1);
        let Some(id) = call.id.as_ref().filter(|_| call.method.as_deref() != Some("initialize")) else { return };
        let (server, body, headers) = (self.server.clone(), cancelled(id), session.message_headers());
        let session = lock(&session.id).clone();
        tokio::spawn(async move {
            let sent = server.send(Method::POST, &headers, session.as_ref(), body);
            // Best effort: the server may be the reason why.
            let _ = tokio::time::timeout(GOODBYE, sent).await;
        });
    }

    /// Ends all sessions: the server that they were with is gone for good.
    pub(crate) fn end_replaced(&self) {
        for (_, session) in lock(&self.sessions).drain() {
            session.over.cancel();
        }
    }

    async fn end_idle(self: Arc<Self>) {
        let limit = self.state.config.sessions.idle_timeout;
        let interval = (limit / 4).clamp(Duration::from_millis(20), SWEEP);
        let turns = Arc::new(Semaphore::new(GOODBYES));
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.state.stop.cancelled() => return,
            }
            let idle = |session: &Session| {
                session.in_flight.load(Ordering::Relaxed) == 0 && lock(&session.last_used).elapsed() >= limit
            };
            let ended: Vec<_> = lock(&self.sessions).extract_if(|_, session| idle(session)).collect();
            for (key, session) in &ended {
                tracing::info!(session = %key, "ended an idle session");
                session.over.cancel();
            }
            for (_, session) in ended {
                // The sessions of one sweep are bounded, and the next one waits until they are on their way.
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
                let relay = Arc::clone(&self);
                tokio::spawn(async move {
                    relay.say_goodbye(&session).await;
                    drop(turn);
                });
            }
        }
    }
}

fn held(sessions: &HashMap<SessionKey, Arc<Session>>, caller: Option<&SessionKey>) -> Held {
    Held::by(caller, sessions.values().map(|session| session.owner.as_ref()))
}

/// The head of a relayed answer.
pub(crate) fn head<A, B>(response: &Response<A>, body: B) -> Response<B> {
    let mut head = Response::new(body);
    *head.status_mut() = response.status();
    head.headers_mut().extend(wire::returned(response.headers()));
    head
}
