//! A client's session with one of the servers, which is a part of its session with all of them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    members::Members,
    modern::VERSION_HEADER,
    token::{ManyClaims, SessionKey},
};
use portolan_policy::identity::Identity;
use portolan_snapshot::snapshot::Pod;
use tokio::time::{Duration, Instant, timeout_at};

use super::placed::Place;
use super::{Asked, fetch};
use crate::gateway::Gateway;
use crate::message::{is_worth_another_pod, left};
use crate::modern::rank;
use crate::pool::Answer;
use crate::record::Record;
use crate::recorded::Held;
use crate::state::Entry;
use crate::upstream::{self, Call, Lost, Purpose, timed_out};
use crate::{relay, session};

/// When a caller may come back for whom a server opened no session.
const COME_BACK: Duration = Duration::from_secs(1);
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The part at one server.
pub(super) struct Part<'a> {
    gateway: &'a Gateway,
    claims: &'a ManyClaims,
    entry: &'a Entry,
    key: SessionKey,
    caller: &'a Identity,
    /// What a request to the server has for headers.
    pub(super) headers: HeaderMap,
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
        Self { gateway, claims, entry, key, caller: asked.caller, headers }
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
        let mut lost = None;
        loop {
            if let Some(pod) = self.known(&place).filter(|pod| lost != Some(&pod.uid)) {
                held.pod = Some(self.entry.begin_call(&pod.uid));
                let response = record.wait(self.send(&Method::POST, pod, body, left(deadline))).await?;
                if !is_unknown(&response) {
                    return Ok((response, pod));
                }
                lost = Some(&pod.uid);
            }
            // One request looks for the session or opens it, and this client's others wait for that: none of them may come
            // before `initialize` is through.
            let turn = record.wait(timeout_at(deadline, place.turn())).await;
            let _turn = turn.map_err(|_| timed_out(self.entry.route.settings.request_timeout))?;
            if self.known(&place).is_some_and(|pod| lost != Some(&pod.uid)) {
                continue;
            }
            let (response, pod) = record.wait(self.find(body, deadline, held)).await?;
            place.note(&pod.uid);
            return Ok((response, pod));
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
        let pods = match self.known(&place) {
            Some(pod) => vec![pod],
            None => self.likely()?,
        };
        for pod in pods {
            let response = self.send(method, pod, body, left(deadline)).await?;
            if !is_unknown(&response) {
                place.note(&pod.uid);
                return Ok(Some((response, pod)));
            }
        }
        Ok(None)
    }

    /// Sends `body` to the pod `uid`, whatever comes of it.
    pub(super) async fn tell_pod(&self, method: &Method, uid: &str, body: &Bytes, timeout: Duration) {
        if let Some(pod) = self.entry.route.pods.get(uid) {
            // Best effort: what is not heard of a session's end ends when nobody uses it.
            let _ = self.send(method, pod, body, timeout).await;
        }
    }

    async fn place(&self) -> std::sync::Arc<Place> {
        self.gateway.placed.at(&self.claims.session, self.entry.route.name.as_str()).await
    }

    /// The pod where it was last, if that is still there.
    fn known(&self, place: &Place) -> Option<&'a Pod> {
        self.entry.route.pods.get(&place.pod()?).filter(|pod| pod.serving)
    }

    /// Every pod that may hold it, the likeliest first.
    fn likely(&self) -> Result<Vec<&'a Pod>, Failure> {
        let mut pods: Vec<&Pod> = self.entry.route.pods.values().filter(|pod| pod.serving).collect();
        if pods.is_empty() {
            return Err(session::not_ready(&self.entry.route));
        }
        pods.sort_by_cached_key(|pod| rank(pod, &self.key));
        Ok(pods)
    }

    /// Asks every pod in turn, and opens the session where none of them has it. Of a pod that cannot be reached nobody
    /// knows: it holds up no session that may be elsewhere, or is yet to be opened.
    async fn find(
        &self,
        body: &Bytes,
        deadline: Instant,
        held: &mut Held,
    ) -> Result<(Response<Answer>, &'a Pod), Failure> {
        for pod in self.likely()? {
            held.pod = Some(self.entry.begin_call(&pod.uid));
            match self.send(&Method::POST, pod, body, left(deadline)).await {
                Ok(response) if is_unknown(&response) => {}
                Ok(response) => return Ok((response, pod)),
                Err(lost) if lost.may_have_begun => return Err(lost.failure),
                Err(_) => {}
            }
        }
        let pod = self.begin(deadline).await?;
        held.pod = Some(self.entry.begin_call(&pod.uid));
        Ok((self.send(&Method::POST, pod, body, left(deadline)).await?, pod))
    }

    /// Opens the session, on the pod that every replica would choose.
    async fn begin(&self, deadline: Instant) -> Result<&'a Pod, Failure> {
        let mut pods = session::candidates(self.entry)?;
        pods.sort_by_cached_key(|pod| rank(pod, &self.key));
        let initialize = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}}"#, self.claims.client);
        let initialize = Bytes::from(initialize);
        let caller = self.entry.key_of(self.caller);
        let mut last = session::not_ready(&self.entry.route);
        for pod in pods {
            let sent = self.send_for(Purpose::Opening(&caller), &Method::POST, pod, &initialize, left(deadline)).await;
            let response = match sent {
                Ok(response) => response,
                Err(lost) => {
                    last = lost.failure;
                    continue;
                }
            };
            // Another replica was first: then it is open.
            if response.status() == StatusCode::CONFLICT {
                return Ok(pod);
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
                self.send(&Method::POST, pod, &Bytes::from_static(INITIALIZED), left(deadline)).await?;
                return Ok(pod);
            }
            let kind = failed.unwrap_or(Kind::BadServerReply);
            let why = refused.unwrap_or_else(|| format!("HTTP status {status}"));
            last = Failure::new(kind, format!("{} opened no session for this client: {why}", self.entry.route.name));
            if is_worth_another_pod(kind) {
                last = last.retry_after(COME_BACK);
            }
        }
        Err(last)
    }

    async fn send(
        &self,
        method: &Method,
        pod: &Pod,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Response<Answer>, Lost> {
        self.send_for(Purpose::of(method), method, pod, body, timeout).await
    }

    async fn send_for(
        &self,
        purpose: Purpose<'_>,
        method: &Method,
        pod: &Pod,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Response<Answer>, Lost> {
        let (headers, session) = (&self.headers, &self.key);
        let call = Call { method, headers, session, body: body.clone(), timeout, purpose };
        upstream::send(&call, pod, self.entry).await
    }
}

/// Whether the pod holds no such session.
fn is_unknown(response: &Response<Answer>) -> bool {
    relay::failure_of(response.headers()) == Some(Kind::UnknownSession)
}
