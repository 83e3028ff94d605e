//! The data port: who may speak, what a body is, and which session it is for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AsHeaderName, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use portolan_mcp::envelope::{Id, Message, string_param};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::revision::is_primed;
use portolan_mcp::session::Refusal;
use portolan_mcp::token::SessionKey;
use portolan_mcp::{mac, wire};

use crate::backend::{Backend, Way};
use crate::modern;
use crate::opening;
use crate::part::Part;
use crate::respond::{self, Opening};
use crate::server::{Body, Handler};
use crate::session::{ClientSession, PostError, Posted};
use crate::sessions::CreateError;
use crate::shared::Shared;
use crate::state::{State, unix_millis};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers the data port.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) state: Arc<State>,
    pub(crate) backend: Backend,
}

impl Handler for Data {
    async fn handle(self: Arc<Self>, _peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        match self.answer(request).await {
            Ok(response) | Err(response) => response,
        }
    }
}

/// An answer: what was asked for, or what is said instead.
pub(crate) type Answer = Result<Response<Body>, Response<Body>>;

/// A message that was posted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) message: &'r Message<'r>,
    /// What `message` was read from.
    pub(crate) body: &'r Bytes,
    /// How long its sender waits for an answer.
    pub(crate) timeout: Duration,
}

impl Received<'_> {
    /// Who wants the session that it opens, where its sender says so.
    pub(crate) fn owner(&self) -> Option<SessionKey> {
        header(self.headers, wire::CALLER).and_then(SessionKey::parse)
    }

    /// What names the session that it opens in its client's stead.
    pub(crate) fn part(&self) -> Result<Option<Part>, Response<Body>> {
        let failed = |failure| respond::failure(&failure, id_of(self.message), self.message.method());
        Part::of_opening(self.headers).map_err(failed)
    }
}

impl Data {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let key = admit(&self.state, &request)?;
        match *request.method() {
            Method::POST => self.post(&key, request).await,
            Method::GET => self.get(&key, request.headers()).await,
            Method::DELETE => self.delete(&key),
            _ => Err(refused(Kind::MethodNotAllowed, "use POST, GET or DELETE")),
        }
    }

    async fn post(&self, key: &SessionKey, request: Request<Incoming>) -> Answer {
        let (Parts { headers, .. }, body) = request.into_parts();
        let timeout = timeout(&self.state, &headers);
        let body = read_body(&self.state, &headers, body).await?;
        let message = parse(&body)?;
        let received = Received { headers: &headers, message: &message, body: &body, timeout };
        if headers.contains_key(wire::SHARED) {
            return modern::shared(&self.state, &self.backend, key, &received).await;
        }
        if message.is_modern() {
            return modern::post(&self.state, &self.backend, key, &received).await;
        }
        match &self.backend.way {
            Way::Links => self.post_to_link(key, &received).await,
            Way::Shared(shared) => shared.post(key, &received).await,
            Way::Http(relay) => match self.translates() {
                Some(shared) => shared.post(key, &received).await,
                None if self.is_linked(key, &message) => self.post_to_link(key, &received).await,
                None if opens_session(&message) && Part::is_wanted(&headers) => {
                    opening::in_stead(Arc::clone(relay), key.clone(), headers.clone(), body.clone(), timeout).await
                }
                None => relay.post(key, &received).await,
            },
        }
    }

    /// Whether a session with an HTTP server has a link of its own: at one that knows no sessions.
    fn is_linked(&self, key: &SessionKey, message: &Message<'_>) -> bool {
        (opens_session(message) && self.state.is_sessionless()) || self.backend.sessions.find(key).is_some()
    }

    /// Who answers everyone, where clients of sessions are no more to an HTTP server that knows none.
    fn translates(&self) -> Option<Shared> {
        let is_shared = self.state.is_sessionless() && self.state.config.sessions.stateless;
        is_shared.then(|| Shared::new(&self.state))
    }

    async fn post_to_link(&self, key: &SessionKey, received: &Received<'_>) -> Answer {
        let Received { headers, message, body, timeout } = *received;
        let session = self.session_for(key, received)?;
        let opening = opening(headers, Some(message));
        let response = match session.post(message, body, timeout) {
            Ok(Posted::Call(reply)) if opens_session(message) => respond::initialize(reply, opening).await,
            Ok(Posted::Call(reply)) => respond::call(reply, opening).await,
            Ok(Posted::Done) => respond::empty(StatusCode::ACCEPTED),
            Err(error) => return Err(not_taken(&error, id_of(message), message.method())),
        };
        Ok(Part::told(session.named.part.as_ref(), response))
    }

    fn session_for(&self, key: &SessionKey, received: &Received<'_>) -> Result<Arc<ClientSession>, Response<Body>> {
        let (sessions, message) = (&self.backend.sessions, received.message);
        if !opens_session(message) {
            let found = sessions.find(key).filter(|session| session.named.is_meant(received.headers));
            return found.ok_or_else(|| unknown_session(id_of(message)));
        }
        sessions.create(key, received.owner(), received.part()?).map_err(|error| match error {
            CreateError::Exists => {
                respond::invalid(StatusCode::CONFLICT, "a session of this name is already open", id_of(message))
            }
            CreateError::Failed(failure) => respond::failure(&failure, id_of(message), Some("initialize")),
        })
    }

    async fn get(&self, key: &SessionKey, headers: &HeaderMap) -> Answer {
        if self.state.config.sessions.stateless {
            return Err(refused(Kind::MethodNotAllowed, "a stateless server has no standing stream"));
        }
        let session = match (self.backend.sessions.find(key), &self.backend.way) {
            (Some(session), _) if session.named.is_meant(headers) => session,
            (Some(_), _) => return Err(unknown_session(None)),
            (None, Way::Http(relay)) => return relay.get(key, headers).await,
            (None, _) => return Err(unknown_session(None)),
        };
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        let reply = session.open(last).map_err(|failure| respond::failure(&failure, None, None))?;
        Ok(Part::told(session.named.part.as_ref(), respond::events(reply, None, opening(headers, None))))
    }

    fn delete(&self, key: &SessionKey) -> Answer {
        if self.state.config.sessions.stateless || self.backend.sessions.delete(key) {
            return Ok(respond::empty(StatusCode::NO_CONTENT));
        }
        match &self.backend.way {
            Way::Http(relay) => relay.delete(key),
            Way::Links | Way::Shared(_) => Err(unknown_session(None)),
        }
    }
}

/// The answer to a message that was not taken.
pub(crate) fn not_taken(error: &PostError, id: Option<&Id>, method: Option<&str>) -> Response<Body> {
    match error {
        PostError::Refused(refusal @ Refusal::DuplicateId) => {
            respond::invalid(StatusCode::BAD_REQUEST, &refusal.to_string(), id)
        }
        PostError::Refused(refusal @ Refusal::TooManyCalls) => {
            let full = Failure::new(Kind::Overloaded, refusal.to_string()).retry_after(Duration::from_secs(1));
            respond::failure(&full, id, method)
        }
        PostError::Failed(failure) => respond::failure(failure, id, method),
    }
}

/// Checks path, MAC and session header, before a byte of the body is read.
pub(crate) fn admit(state: &State, request: &Request<Incoming>) -> Result<SessionKey, Response<Body>> {
    if request.uri().path() != wire::DATA_PATH {
        return Err(refused(Kind::UnknownRoute, "the bridge serves /mcp"));
    }
    let session = header(request.headers(), wire::SESSION).unwrap_or_default();
    check_mac(state, request, session)?;
    SessionKey::parse(session)
        .ok_or_else(|| refused(Kind::MissingSession, "the portolan-session header must be a session key"))
}

/// Checks the MAC of `request`, and that it is meant for this pod; `session` is what it speaks for.
pub(crate) fn check_mac<B>(state: &State, request: &Request<B>, session: &str) -> Result<(), Response<Body>> {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let pod = header(request.headers(), wire::POD).unwrap_or_default();
    let subject = mac::Subject { method: request.method().as_str(), path, session, pod };
    let header = header(request.headers(), mac::HEADER);
    state.config.mac_key.verify(header, subject, unix_millis()).map_err(|error| {
        state.counters.refused_mac.add(1);
        refused(Kind::Unauthenticated, &error.to_string())
    })?;
    let own = &state.config.pod;
    if pod.is_empty() || own.is_empty() || pod == own {
        return Ok(());
    }
    let gone = Failure::new(Kind::ServerUnreachable, "the pod that was meant is gone, another one has its address");
    let mut refused = respond::failure(&gone.retry_after(Duration::from_secs(1)), None, None);
    *refused.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    Err(refused)
}

/// Reads the body within its bounds of type, size and time.
pub(crate) async fn read_body(state: &State, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Response<Body>> {
    let is_json = header(headers, CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(refused(Kind::UnsupportedMediaType, "Content-Type must be application/json"));
    }
    let limit = state.config.max_message_bytes;
    let too_large = || {
        state.counters.oversized_messages.add(1);
        refused(Kind::BodyTooLarge, &format!("the body is larger than {limit} bytes"))
    };
    let announced = header(headers, CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large());
    }
    let expected = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
    let weight = u32::try_from(expected / 1024 + 1).unwrap_or(u32::MAX);
    let _room = state.bodies.try_acquire_many(weight).map_err(|_| {
        state.counters.refused_calls.add(1);
        let failure = Failure::new(Kind::Overloaded, "too many large requests arrive at once; ask again soon");
        respond::failure(&failure.retry_after(Duration::from_secs(1)), None, None)
    })?;
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(refused(Kind::Malformed, "the body broke off")),
        Err(_) => Err(refused(Kind::BodyTimeout, "the body did not arrive in time")),
    }
}

/// Reads the envelope.
pub(crate) fn parse(body: &Bytes) -> Result<Message<'_>, Response<Body>> {
    Message::parse(body).map_err(|error| respond::failure(&error.into(), None, None))
}

/// Whether `message` is what begins a session.
pub(crate) fn opens_session(message: &Message<'_>) -> bool {
    message.method() == Some("initialize") && id_of(message).is_some()
}

/// How streams to this client open: by the revision that was agreed upon, or that it asks for.
pub(crate) fn opening(headers: &HeaderMap, message: Option<&Message<'_>>) -> Opening {
    let asked = message.filter(|message| opens_session(message)).and_then(Message::params);
    let asked = asked.and_then(|params| string_param(params, "protocolVersion"));
    let revision = asked.as_deref().or_else(|| header(headers, VERSION_HEADER));
    if revision.is_some_and(is_primed) { Opening::Primed } else { Opening::Plain }
}

/// How long this caller waits, at most what the configuration allows.
pub(crate) fn timeout(state: &State, headers: &HeaderMap) -> Duration {
    let asked = header(headers, wire::TIMEOUT).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    asked.map_or(state.config.request_timeout, |asked| asked.min(state.config.request_timeout))
}

pub(crate) fn id_of<'m>(message: &'m Message<'_>) -> Option<&'m Id> {
    match message {
        Message::Request(request) => Some(&request.id),
        _ => None,
    }
}

pub(crate) fn refused(kind: Kind, message: &str) -> Response<Body> {
    respond::failure(&Failure::new(kind, message), None, None)
}

pub(crate) fn unknown_session(id: Option<&Id>) -> Response<Body> {
    let failure = Failure::new(Kind::UnknownSession, "there is no such session here; open a new one with initialize");
    respond::failure(&failure, id, None)
}

pub(crate) fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
