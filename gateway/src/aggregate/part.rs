//! A client's session with one of the servers, which is a part of its session with all of them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use portolan_mcp::{
    aggregate::{Seek, Step},
    envelope::Message,
    failure::{Failure, Kind},
    members::Members,
    modern::VERSION_HEADER,
    token::{ManyClaims, SessionKey},
    wire,
};
use portolan_policy::identity::Identity;
use portolan_snapshot::snapshot::Pod;
use tokio::time::{Duration, Instant, timeout_at};

use super::placed::Place;
use super::{Asked, fetch};
use crate::gateway::Gateway;
use crate::message::{is_worth_another_pod, left};
use crate::pool::Answer;
use crate::record::Record;
use crate::recorded::Held;
use crate::state::Entry;
use crate::upstream::{self, Call, Lost, Purpose, timed_out};
use crate::{relay, session};

/// The id of what opens a session: none that a client has for a call that waits for that.
const OPENING: &str = "portolan-opening";
/// When a caller may come back for whom a server opened no session.
const COME_BACK: Duration = Duration::from_secs(1);

/// The part at one server.
pub(super) struct Part<'a> {
    gateway: &'a Gateway,
    claims: &'a ManyClaims,
    entry: &'a Entry,
    key: SessionKey,
    caller: &'a Identity,
    /// What a request to the server has for headers.
    pub(super) headers: HeaderMap,
    /// Which of the sessions is meant that the server has had for this client.
    meant: Option<HeaderValue>,
}

impl<'a> Part<'a> {
    pub(super) fn new(gateway: &'a Gateway, asked: Asked<'a>, claims: &'a ManyClaims, entry: &'a Entry) -> Self {
        let mut headers = asked.request.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let revision = Members::of(&claims.client).and_then(|client| client.string("protocolVersion"));
        if let Some(revision) = revision.and_then(|revision| HeaderValue::try_from(revision).ok()) {
            headers.insert(VERSION_HEADER, revision);
        }
        let key = claims.session.derived(entry.route.name.as_str().as_bytes());
        Self { gateway, claims, entry, key, caller: asked.caller, headers, meant: None }
    }

    /// The part of that name and no other; empty where the server names none. `None` if it is no name.
    pub(super) fn named(self, part: &str) -> Option<Self> {
        let meant = (!part.is_empty()).then(|| HeaderValue::try_from(part)).transpose().ok()?;
        Some(Self { meant, ..self })
    }

    /// Sends a request to the pod that holds the session; opens it where none does.
    pub(super) async fn ask(
        &self,
        body: &Bytes,
        deadline: Instant,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<(Response<Answer>, &'a Pod), Failure> {
        let place = self.place().await;
        let (mut seek, mut step) = Seek::new(self.known(&place));
        let mut turn = None;
        let mut failure = session::not_ready(&self.entry.route);
        loop {
            let next = match step {
                Step::TakeTurn => {
                    let taken = record.wait(timeout_at(deadline, place.turn())).await;
                    turn = Some(taken.map_err(|_| timed_out(self.entry.route.settings.request_timeout))?);
                    let (holders, takers) = (self.holders()?, self.entry.route.takers(&self.key));
                    seek.in_turn(self.known(&place), holders, takers)
                }
                Step::AskKnown(pod) | Step::Ask(pod) => {
                    turn = turn.filter(|_| matches!(step, Step::Ask(_)));
                    let call = self.call(Purpose::Call, &Method::POST, body, left(deadline));
                    match upstream::ask(&call, pod, self.entry, record, held).await {
                        Ok(response) if is_unknown(&response) => {
                            let next = seek.unknown();
                            if next.is_none() {
                                failure = self.ended("as it began; ask again").retry_after(COME_BACK);
                            }
                            next
                        }
                        // To the client its whole session would be unknown, and it is not.
                        Ok(response) if has_ended(&response) => {
                            return Err(self.ended("in the middle of this request, which may have been carried out"));
                        }
                        Ok(response) => {
                            place.note(&pod.uid);
                            return Ok((response, pod));
                        }
                        Err(lost) => {
                            failure = lost.failure;
                            seek.unreachable(lost.may_have_begun)
                        }
                    }
                }
                Step::Open(pod) => match record.wait(self.open(pod, deadline)).await {
                    Ok(()) => seek.opened(),
                    Err(refused) => {
                        failure = refused;
                        seek.not_opened()
                    }
                },
            };
            step = match next {
                Some(step) => step,
                None => return Err(failure),
            };
        }
    }

    /// Sends `body` to the pod that holds the session, or what `method` says without one; `None` where no pod does.
    pub(super) async fn tell(
        &self,
        method: &Method,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Option<(Response<Answer>, &'a Pod)>, Failure> {
        let place = self.place().await;
        let mut pods = self.holders()?;
        if let Some(known) = self.known(&place) {
            // It is no more than likely: another replica may have opened a part elsewhere before it knew of this one.
            pods.sort_by_key(|pod| pod.uid != known.uid);
        }
        let mut unreachable = None;
        for pod in pods {
            let response = match self.send(method, pod, body, left(deadline)).await {
                Ok(response) => response,
                // Of a pod that cannot be reached nobody knows: another may have it.
                Err(lost) if !lost.may_have_begun => {
                    unreachable.get_or_insert(lost.failure);
                    continue;
                }
                Err(lost) => return Err(lost.failure),
            };
            if has_ended(&response) {
                break;
            }
            if !is_unknown(&response) {
                if place.pod().is_none() {
                    place.note(&pod.uid);
                }
                return Ok(Some((response, pod)));
            }
        }
        unreachable.map_or(Ok(None), Err)
    }

    /// Sends `body` to `pod`, whatever comes of it.
    pub(super) async fn tell_pod(&self, method: &Method, pod: &Pod, body: &Bytes, timeout: Duration) {
        // Best effort: what is not heard of a session's end ends when nobody uses it.
        let _ = self.send(method, pod, body, timeout).await;
    }

    /// Whether it is known where it is, and that pod is there.
    pub(super) async fn is_at_a_pod(&self) -> bool {
        self.known(&*self.place().await).is_some()
    }

    async fn place(&self) -> std::sync::Arc<Place> {
        self.gateway.placed.at(&self.claims.session, self.entry.route.name.as_str()).await
    }

    /// The pod where it was last, if that is still there.
    fn known(&self, place: &Place) -> Option<&'a Pod> {
        self.entry.route.pods.get(&place.pod()?).filter(|pod| pod.serving)
    }

    /// Every pod that may hold it, the likeliest first.
    fn holders(&self) -> Result<Vec<&'a Pod>, Failure> {
        let pods = self.entry.route.holders(&self.key);
        if pods.is_empty() { Err(session::not_ready(&self.entry.route)) } else { Ok(pods) }
    }

    /// Opens the session at `pod`; that another request opens it is as good. Requests that come before it is open wait there.
    async fn open(&self, pod: &Pod, deadline: Instant) -> Result<(), Failure> {
        let initialize =
            format!(r#"{{"jsonrpc":"2.0","id":"{OPENING}","method":"initialize","params":{}}}"#, self.claims.client);
        let caller = self.entry.key_of(self.caller);
        let opening = Purpose::OpeningPart(&caller);
        let call = self.call(opening, &Method::POST, &initialize.into(), left(deadline));
        let response = upstream::send(&call, pod, self.entry).await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(());
        }
        let (status, failed) = (response.status(), relay::failure_of(response.headers()));
        let late = |_| timed_out(self.entry.route.settings.request_timeout);
        let answer = timeout_at(deadline, fetch::read(response)).await.map_err(late)??;
        let refused = match Message::parse(&answer) {
            Ok(Message::Response { is_error: false, .. }) => None,
            Ok(Message::Response { payload, .. }) => Some(fetch::said_by(payload.get())),
            _ => Some("no answer to initialize".to_owned()),
        };
        if status.is_success() && failed.is_none() && refused.is_none() {
            self.entry.series.session_opened();
            return Ok(());
        }
        let kind = failed.unwrap_or(Kind::BadServerReply);
        let why = refused.unwrap_or_else(|| format!("HTTP status {status}"));
        let failure = Failure::new(kind, format!("{} opened no session for this client: {why}", self.entry.route.name));
        Err(if is_worth_another_pod(kind) { failure.retry_after(COME_BACK) } else { failure })
    }

    fn ended(&self, when: &str) -> Failure {
        Failure::new(Kind::NotReady, format!("{} ended its session with this client {when}", self.entry.route.name))
    }

    async fn send(
        &self,
        method: &Method,
        pod: &Pod,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Response<Answer>, Lost> {
        upstream::send(&self.call(Purpose::of(method), method, body, timeout), pod, self.entry).await
    }

    fn call<'c>(&'c self, purpose: Purpose<'c>, method: &'c Method, body: &Bytes, timeout: Duration) -> Call<'c> {
        let (headers, session) = (&self.headers, &self.key);
        let part = self.meant.as_ref();
        Call { method, headers, session, part, body: body.clone(), timeout, purpose }
    }
}

/// Whether the pod holds no such session, and has done nothing.
fn is_unknown(response: &Response<Answer>) -> bool {
    is_told_unknown(response) && !response.headers().contains_key(wire::PART)
}

/// Whether the session took the request, and ended before it was answered.
fn has_ended(response: &Response<Answer>) -> bool {
    is_told_unknown(response) && response.headers().contains_key(wire::PART)
}

fn is_told_unknown(response: &Response<Answer>) -> bool {
    relay::failure_of(response.headers()) == Some(Kind::UnknownSession)
}
