//! What a client says in its session with all servers, and who is told: the one server that it is about, or all of those
//! with which the client has to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, Response, StatusCode};
use portolan_mcp::{
    aggregate::{Kind as ListKind, Origin},
    envelope::{Id, Request, string_param},
    failure::{Failure, Kind},
    members::Members,
    session::with_id,
    token::ManyClaims,
    wire,
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::modern::answered;
use super::part::Part;
use super::{Asked, answer, settle, target};
use crate::gateway::Gateway;
use crate::message::{self, hand_back, left};
use crate::record::Record;
use crate::recorded::Held;
use crate::relay::{self, For};
use crate::respond::{self, Body};
use crate::state::{Entry, Serving};

pub(super) const LAST_EVENT_ID: &str = "last-event-id";
/// How long servers may take to hear that a session or a call is over.
const GOODBYE: Duration = Duration::from_secs(3);
/// Pods that are told something although nobody knows whether it is for them.
const MAX_TOLD: usize = 128;
const TOLD_AT_ONCE: usize = 32;

/// One client's session.
pub(super) struct Many<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) asked: Asked<'a>,
    pub(super) claims: &'a ManyClaims,
}

impl<'a> Many<'a> {
    /// Answers a request.
    pub(super) async fn request(
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
            return self.asked.list(self.gateway, kind, request, None, record).await;
        }
        let target = target::of(request, body, self.asked.selection())?;
        let awake = record.wait(self.awake(&target, request)).await?;
        let asked = awake.as_deref().map_or(self.asked, |serving| self.asked.in_(serving));
        let (entry, permit) = asked.member(target.member()).ok_or_else(|| target::unknown(request))?;
        settle(entry, record, held);
        entry.budget.admit()?;
        let deadline = Instant::now() + entry.route.settings.request_timeout;
        message::enter(&asked.of(asked.request, entry, permit), deadline, record, held).await?;
        let part = Part::new(self.gateway, asked, self.claims, entry);
        let (response, pod) = part.ask(&target.body, deadline, record, held).await?;
        let part = response.headers().get(wire::PART).cloned();
        let response = hand_back(response, pod, left(deadline), record);
        let from = answer::From { entry, part: part.as_ref(), is_alone: asked.is_alone() };
        record.wait(answer::renamed(self.gateway, response, from, Some(&request.method))).await
    }

    /// Waits until the server has a pod, where it sleeps and no pod that goes away has this client's session: what is served then.
    async fn awake(&self, target: &target::Target, request: &Request<'_>) -> Result<Option<Arc<Serving>>, Failure> {
        let (entry, _permit) = self.asked.member(target.member()).ok_or_else(|| target::unknown(request))?;
        if !entry.route.is_asleep() || self.part(entry).is_at_a_pod().await {
            return Ok(None);
        }
        self.gateway.state.awake(entry, &self.gateway.metrics).await
    }

    /// Takes a notification. What the client tells of its own calls and roots is for every server that it has to do with;
    /// what it tells of a server's question, for that server.
    pub(super) async fn notification(
        &self,
        method: &str,
        params: Option<&RawValue>,
        body: &Bytes,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        match method {
            "notifications/cancelled" | "notifications/roots/list_changed" => {
                record.wait(self.tell_all(&Method::POST, body)).await;
            }
            "notifications/progress" => {
                let token = params.and_then(|params| string_param(params, "progressToken"));
                if let Some((origin, body)) = token.as_deref().and_then(|token| with_own_token(token, body)) {
                    return self.hand_on(origin, &body, record, held).await;
                }
            }
            // The rest is the gateway's own, such as the end of its handshake, or means nothing here.
            _ => {}
        }
        record.set_answer(StatusCode::ACCEPTED, None);
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// Hands the client's answer to the server that asked.
    pub(super) async fn answer(
        &self,
        id: Option<&Id>,
        body: &Bytes,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        let text = id.and_then(|id| serde_json::from_str::<String>(id.as_json()).ok());
        let (origin, own) = text.as_deref().and_then(Origin::of_id).ok_or_else(nobody_asked)?;
        let body = with_id(body, &own).ok_or_else(nobody_asked)?;
        self.hand_on(origin, &body, record, held).await
    }

    async fn hand_on(
        &self,
        origin: Origin<'_>,
        body: &Bytes,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        let (entry, _permit) = self.asked.member(origin.member).ok_or_else(nobody_asked)?;
        settle(entry, record, held);
        let deadline = Instant::now() + entry.route.settings.request_timeout;
        let part = self.part(entry).named(origin.part).ok_or_else(nobody_asked)?;
        let told = record.wait(part.tell(&Method::POST, body, deadline)).await?;
        let (response, pod) =
            told.ok_or_else(|| Failure::new(Kind::InvalidRequest, "the session in which this was asked is over"))?;
        Ok(hand_back(response, pod, left(deadline), record))
    }

    /// Opens the stream of a call again at the server that has it.
    pub(super) async fn resume(
        &self,
        (origin, last): (Origin<'_>, &str),
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        let unknown =
            || Failure::new(Kind::InvalidRequest, "the stream of this Last-Event-ID is over; open one without it");
        let (entry, _permit) = self.asked.member(origin.member).ok_or_else(unknown)?;
        settle(entry, record, held);
        let mut part = self.part(entry).named(origin.part).ok_or_else(unknown)?;
        part.headers.insert(LAST_EVENT_ID, HeaderValue::try_from(last).map_err(|_| unknown())?);
        let deadline = Instant::now() + entry.route.settings.request_timeout;
        let told = record.wait(part.tell(&Method::GET, &Bytes::new(), deadline)).await?;
        let (response, pod) = told.ok_or_else(unknown)?;
        record.set_answer(response.status(), relay::failure_of(response.headers()));
        let purpose = For::standing(self.gateway.drain.streams.clone().cancelled_owned());
        let part = response.headers().get(wire::PART).cloned();
        let from = answer::From { entry, part: part.as_ref(), is_alone: self.asked.is_alone() };
        record.wait(answer::renamed(self.gateway, relay::answer(response, pod, purpose), from, None)).await
    }

    /// Tells every server with which this client has a session. Where another replica opened that, nobody here knows of it:
    /// then every pod is told that may have it, unless those are too many.
    pub(super) async fn tell_all(&self, method: &Method, body: &Bytes) {
        let placed: HashMap<String, Box<str>> =
            self.gateway.placed.all(&self.claims.session).await.into_iter().collect();
        let serving = self.asked.serving;
        let known = placed.iter().filter_map(|(route, uid)| {
            let entry = serving.route(route)?;
            Some((entry, entry.route.pods.get(uid)?))
        });
        let mut members = serving.members_for(self.asked.caller, self.asked.selection());
        members.retain(|entry| !placed.contains_key(entry.route.name.as_str()));
        let others = members.into_iter().flat_map(|entry| entry.route.pods.values().map(move |pod| (entry, pod)));
        let mut others: Vec<_> = others.filter(|(_, pod)| pod.serving).take(MAX_TOLD + 1).collect();
        if others.len() > MAX_TOLD {
            self.gateway.metrics.bound_hit("Told");
            others.clear();
        }
        let told = stream::iter(known.chain(others));
        told.for_each_concurrent(TOLD_AT_ONCE, |(entry, pod)| async move {
            self.part(entry).tell_pod(method, pod, body, GOODBYE).await;
        })
        .await;
    }

    fn part(&self, entry: &'a Entry) -> Part<'a> {
        Part::new(self.gateway, self.asked, self.claims, entry)
    }
}

/// `body` of a notification with the token that a server gave, in the place of what the client knows it by.
fn with_own_token<'a>(token: &'a str, body: &Bytes) -> Option<(Origin<'a>, Bytes)> {
    let (origin, own) = Origin::of_id(token)?;
    let mut message = Members::of(std::str::from_utf8(body).ok()?)?;
    let params = message.get("params")?.to_owned();
    let mut params = Members::of(&params)?;
    params.set("progressToken", own.as_json().to_owned());
    let params = params.to_string();
    message.set("params", params);
    Some((origin, message.to_string().into()))
}

fn nobody_asked() -> Failure {
    Failure::new(Kind::InvalidRequest, "no server here asked under this id")
}
