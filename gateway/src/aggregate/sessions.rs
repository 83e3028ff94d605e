//! Sessions with all servers: named by a token that any replica opens. At each server's bridges a client has a session of
//! its own, whose name derives from it; it is opened when the client first needs it, by whichever replica that is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use portolan_mcp::{
    aggregate::{Kind as ListKind, Owned},
    envelope::{Id, Message, Request, string_param},
    failure::{Failure, Kind},
    members::Members,
    modern::VERSION_HEADER,
    session::with_id,
    sse,
    token::{self, Binding, ManyClaims, SessionKey},
};
use portolan_snapshot::snapshot::Pod;
use tokio::time::Instant;

use super::changes::{self, Script};
use super::modern::answered;
use super::{Asked, ROUTE, answer, fetch, lists, settle, target};
use crate::gateway::Gateway;
use crate::message::{self, hand_back, left};
use crate::modern::rank;
use crate::record::Record;
use crate::recorded::Held;
use crate::relay::For;
use crate::respond::{self, Body};
use crate::route;
use crate::state::{Entry, unix_time};
use crate::upstream::Call;
use crate::{metrics, negotiate, relay, session};

const LAST_EVENT_ID: &str = "last-event-id";
/// How long a token is good for.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// When a client comes back whose stream went with this replica.
const COME_BACK: Duration = Duration::from_secs(1);
/// How long servers may take to hear that a session or a call is over.
const GOODBYE: Duration = Duration::from_secs(3);
/// What a client says of itself beyond this is left out of its token.
const MAX_CLIENT: usize = 400;

/// Answers a message.
pub(super) async fn post(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    message: &Message<'_>,
    body: &Bytes,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    if let Message::Request(request) = message
        && request.method == "initialize"
    {
        return initialize(gateway, asked, request, record).await;
    }
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let many = Many { gateway, asked, claims: &claims };
    match message {
        Message::Request(request) => many.request(request, body, record, held).await,
        Message::Notification { method, .. } => {
            if matches!(&**method, "notifications/cancelled" | "notifications/roots/list_changed") {
                many.tell_all(body).await;
            }
            record.set_answer(StatusCode::ACCEPTED, None);
            Ok(respond::empty(StatusCode::ACCEPTED))
        }
        Message::Response { id, .. } => many.answer(id.as_ref(), body, record, held).await,
    }
}

async fn initialize(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    request: &Request<'_>,
    record: &mut Record,
) -> Result<Response<Body>, Failure> {
    let parts = record.wait(gateway.catalog.parts(gateway, &asked.members())).await;
    let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
    let revision = params.string("protocolVersion").unwrap_or_default();
    let claims = ManyClaims {
        session: session::generate()?,
        client: introduction(&params).into(),
        expires: (unix_time() + LIFETIME).as_secs(),
    };
    let sealed = asked.serving.snapshot.keyring.seal(&claims, binding(asked));
    let token = sealed.ok().and_then(|token| HeaderValue::try_from(token).ok());
    let token = token.ok_or_else(|| Failure::new(Kind::Internal, "the gateway could not make a session id"))?;
    record.set_session(&claims.session);
    let mut response = answered(request, &lists::initialize(&revision, &parts), record);
    response.headers_mut().insert(HeaderName::from_static(token::HEADER), token);
    Ok(response)
}

/// What servers are told of the client when its sessions there are opened: the parameters of `initialize`, short enough
/// for a token.
fn introduction(params: &Members<'_>) -> String {
    let object = |name| params.get(name).filter(|json| Members::of(json).is_some());
    let mut info = object("clientInfo").and_then(Members::of).unwrap_or_default();
    info.retain(|name| matches!(name, "name" | "version"));
    let info = Some(info.to_string()).filter(|info| info.len() <= MAX_CLIENT / 4);
    let mut capabilities = object("capabilities").and_then(Members::of).unwrap_or_default();
    if capabilities.to_string().len() > MAX_CLIENT / 2 {
        // What servers may ask a client is what matters of it.
        capabilities.retain(|name| matches!(name, "roots" | "sampling" | "elicitation"));
    }
    let capabilities = Some(capabilities.to_string()).filter(|json| json.len() <= MAX_CLIENT / 2);
    let revision = params.string("protocolVersion").filter(|revision| revision.len() <= 16).unwrap_or_default();
    let mut told = Members::default();
    told.set("protocolVersion", serde_json::Value::from(revision).to_string());
    told.set("capabilities", capabilities.unwrap_or_else(|| "{}".to_owned()));
    told.set("clientInfo", info.unwrap_or_else(|| r#"{"name":"unnamed","version":""}"#.to_owned()));
    told.to_string()
}

fn binding<'a>(asked: Asked<'a>) -> Binding<'a> {
    Binding { principal: &asked.caller.principal, route: ROUTE }
}

fn find(gateway: &Gateway, asked: Asked<'_>) -> Result<ManyClaims, Failure> {
    let token = session::token(&asked.request.headers)?;
    let opened = asked.serving.snapshot.keyring.open_as(token, binding(asked), unix_time().as_secs());
    opened.map_err(|error| session::refused(error, &gateway.metrics))
}

/// The stream on which a client hears that lists changed; or, for one that comes back for what it missed of a call, the
/// stream of that call.
pub(super) async fn open(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::STREAM);
    negotiate::get(&asked.request.headers)?;
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let last = asked.request.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    if let Some(owned) = last.and_then(Owned::of_uri) {
        return Many { gateway, asked, claims: &claims }.resume(owned, record, held).await;
    }
    record.set_answer(StatusCode::OK, None);
    let told = |kind: ListKind| {
        let method = kind.changed();
        Some(sse::encode(None, format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#).as_bytes()))
    };
    let first = Some(Bytes::from_static(sse::KEEP_ALIVE));
    let script = Script { first, told: Box::new(told), farewell: sse::retry(COME_BACK) };
    Ok(changes::stream(gateway, asked.caller, script))
}

/// Ends a session, and its parts at the servers as far as they are known here; the others end when nobody uses them.
pub(super) async fn delete(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    record: &mut Record,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::DELETE);
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let many = Many { gateway, asked, claims: &claims };
    record.wait(many.send_to_all(&Method::DELETE, &Bytes::new())).await;
    gateway.placed.forget(&claims.session).await;
    record.set_answer(StatusCode::NO_CONTENT, None);
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// One client's session.
struct Many<'a> {
    gateway: &'a Arc<Gateway>,
    asked: Asked<'a>,
    claims: &'a ManyClaims,
}

impl Many<'_> {
    async fn request(
        &self,
        request: &Request<'_>,
        body: &Bytes,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        if request.method == "ping" {
            return Ok(answered(request, "{}", record));
        }
        if let Some(kind) = ListKind::of_method(&request.method) {
            let cursor = request.params.and_then(|params| string_param(params, "cursor"));
            let parts = record.wait(self.gateway.catalog.parts(self.gateway, &self.asked.members())).await;
            let result = lists::list(kind, cursor.as_deref(), &parts)?;
            return Ok(answered(request, &result.to_string(), record));
        }
        let target = target::of(request, body)?;
        let (entry, permit) = self.asked.member(target.member()).ok_or_else(|| target::unknown(request))?;
        settle(entry, record, held);
        let deadline = Instant::now() + entry.route.settings.request_timeout;
        let one = self.asked.of(self.asked.request, entry, permit);
        message::enter(&one, deadline, record, held).await?;
        let (response, pod) = self.ask(entry, &target.body, deadline, record, held).await?;
        let response = hand_back(response, pod, left(deadline), record);
        Ok(answer::renamed(response, entry.route.name.as_str(), &request.method))
    }

    /// Sends `body` to the client's session at a server; opens it where there is none yet.
    async fn ask<'e>(
        &self,
        entry: &'e Entry,
        body: &Bytes,
        deadline: Instant,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<(Response<Incoming>, &'e Pod), Failure> {
        let key = self.key(entry);
        let pods = self.pods(entry, &key).await?;
        for pod in &pods {
            held.pod = Some(entry.begin_call(&pod.uid));
            let response = record.wait(self.send(entry, pod, &key, body, deadline)).await?;
            if relay::failure_of(response.headers()) != Some(Kind::UnknownSession) {
                self.note(entry, pod).await;
                return Ok((response, pod));
            }
        }
        let pod = record.wait(self.begin(entry, &key, deadline)).await?;
        self.note(entry, pod).await;
        held.pod = Some(entry.begin_call(&pod.uid));
        Ok((record.wait(self.send(entry, pod, &key, body, deadline)).await?, pod))
    }

    fn key(&self, entry: &Entry) -> SessionKey {
        self.claims.session.derived(entry.route.name.as_str().as_bytes())
    }

    /// Pods that may hold the session at a server: the one where it was last, else all, the likeliest first.
    async fn pods<'e>(&self, entry: &'e Entry, key: &SessionKey) -> Result<Vec<&'e Pod>, Failure> {
        let known = self.gateway.placed.find(&self.claims.session, entry.route.name.as_str()).await;
        if let Some(pod) = known.and_then(|uid| entry.route.pods.get(&uid)).filter(|pod| pod.serving) {
            return Ok(vec![pod]);
        }
        let mut pods: Vec<&Pod> = entry.route.pods.values().filter(|pod| pod.serving).collect();
        if pods.is_empty() {
            return Err(session::not_ready(&entry.route));
        }
        pods.sort_by_cached_key(|pod| rank(pod, key));
        Ok(pods)
    }

    /// Opens the session at a server, on the pod that every replica would choose.
    async fn begin<'e>(&self, entry: &'e Entry, key: &SessionKey, deadline: Instant) -> Result<&'e Pod, Failure> {
        let mut pods = session::candidates(entry)?;
        pods.sort_by_cached_key(|pod| rank(pod, key));
        let initialize = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}}"#, self.claims.client);
        let initialized = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let mut last = session::not_ready(&entry.route);
        for pod in pods {
            let response = match self.send(entry, pod, key, &initialize.clone().into(), deadline).await {
                Ok(response) => response,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
            // Another replica, or another request on this one, was first: then it is open.
            if response.status() == StatusCode::CONFLICT {
                return Ok(pod);
            }
            let (status, failed) = (response.status(), relay::failure_of(response.headers()));
            let answer = fetch::read(response).await?;
            let is_open = matches!(Message::parse(&answer), Ok(Message::Response { is_error: false, .. }));
            if status.is_success() && failed.is_none() && is_open {
                self.send(entry, pod, key, &initialized, deadline).await?;
                return Ok(pod);
            }
            let kind = failed.unwrap_or(Kind::BadServerReply);
            last = Failure::new(kind, format!("{} opened no session for this client", entry.route.name));
        }
        Err(last)
    }

    async fn send(
        &self,
        entry: &Entry,
        pod: &Pod,
        key: &SessionKey,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let headers = self.headers();
        let call = Call {
            method: &Method::POST,
            headers: &headers,
            session: key,
            body: body.clone(),
            timeout: left(deadline),
            shared: false,
        };
        Ok(self.gateway.upstream.send(&call, pod, &entry.route.settings).await?)
    }

    /// The revision is that of the sessions at the servers, which the client asked for.
    fn headers(&self) -> HeaderMap {
        let mut headers = self.asked.request.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let revision = Members::of(&self.claims.client).and_then(|client| client.string("protocolVersion"));
        if let Some(revision) = revision.and_then(|revision| HeaderValue::try_from(revision).ok()) {
            headers.entry(VERSION_HEADER).or_insert(revision);
        }
        headers
    }

    /// Opens the stream of a call again at the server that has it.
    async fn resume(&self, last: Owned<'_>, record: &mut Record, held: &mut Held) -> Result<Response<Body>, Failure> {
        let unknown =
            || Failure::new(Kind::InvalidRequest, "the stream of this Last-Event-ID is over; open one without it");
        let (entry, _permit) = self.asked.member(last.member).ok_or_else(unknown)?;
        settle(entry, record, held);
        let (key, mut headers) = (self.key(entry), self.headers());
        headers.insert(LAST_EVENT_ID, HeaderValue::try_from(last.own).map_err(|_| unknown())?);
        for pod in self.pods(entry, &key).await? {
            let timeout = entry.route.settings.request_timeout;
            let call = Call {
                method: &Method::GET,
                headers: &headers,
                session: &key,
                body: Bytes::new(),
                timeout,
                shared: false,
            };
            let sent = self.gateway.upstream.send(&call, pod, &entry.route.settings);
            let response = record.wait(sent).await?;
            if relay::failure_of(response.headers()) == Some(Kind::UnknownSession) {
                continue;
            }
            record.set_answer(response.status(), relay::failure_of(response.headers()));
            let purpose = For::standing(self.gateway.drain.streams.clone().cancelled_owned());
            let response = relay::answer(response, pod, purpose);
            return Ok(answer::renamed(response, entry.route.name.as_str(), "tools/call"));
        }
        Err(unknown())
    }

    async fn note(&self, entry: &Entry, pod: &Pod) {
        self.gateway.placed.note(&self.claims.session, entry.route.name.as_str(), &pod.uid).await;
    }

    /// Hands the client's answer to the server that asked.
    async fn answer(
        &self,
        id: Option<&Id>,
        body: &Bytes,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        let text = id.and_then(|id| serde_json::from_str::<String>(id.as_json()).ok());
        let owned = text.as_deref().and_then(Owned::of_uri);
        let raw = owned.and_then(|owned| serde_json::from_str::<&serde_json::value::RawValue>(owned.own).ok());
        let own = raw.and_then(Id::parse);
        let found = owned.and_then(|owned| self.asked.member(owned.member));
        let (Some(own), Some((entry, permit))) = (own, found) else {
            let message = "no server here asked under this id";
            return Err(Failure::new(Kind::InvalidRequest, message));
        };
        settle(entry, record, held);
        let body = with_id(body, &own).unwrap_or_else(|| body.clone());
        let deadline = Instant::now() + entry.route.settings.request_timeout;
        let _one: route::Asked<'_> = self.asked.of(self.asked.request, entry, permit);
        let key = self.key(entry);
        for pod in self.pods(entry, &key).await? {
            let response = record.wait(self.send(entry, pod, &key, &body, deadline)).await?;
            if relay::failure_of(response.headers()) != Some(Kind::UnknownSession) {
                return Ok(hand_back(response, pod, left(deadline), record));
            }
        }
        Err(Failure::new(Kind::InvalidRequest, "the session in which this was asked is over"))
    }

    /// Tells every server with which this client has a session, as far as this replica knows.
    async fn tell_all(&self, body: &Bytes) {
        self.send_to_all(&Method::POST, body).await;
    }

    async fn send_to_all(&self, method: &Method, body: &Bytes) {
        let placed = self.gateway.placed.all(&self.claims.session).await;
        let headers = self.headers();
        let sends = placed.iter().filter_map(|(route, uid)| {
            let entry = self.asked.serving.route(route)?;
            let pod = entry.route.pods.get(uid)?;
            let (key, headers) = (self.key(entry), &headers);
            Some(async move {
                let call = Call { method, headers, session: &key, body: body.clone(), timeout: GOODBYE, shared: false };
                // Best effort: a server that does not hear it ends the session when nobody uses it.
                let _ = self.gateway.upstream.send(&call, pod, &entry.route.settings).await;
            })
        });
        join_all(sends).await;
    }
}
