//! POST of the sessionless era (2026-07-28): every request finds a pod by itself.
//!
//! A caller has a name at the bridges all the same, derived from who it is: what is kept for it there, such as a call
//! that waits for its answer to a question, is found again by whoever asked and nobody else.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use portolan_crds::server::SessionType;
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    modern::Head,
    parked::{Opened, Parked, ParkingKey},
    token::SessionKey,
};
use portolan_snapshot::{RouteName, snapshot::Pod};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::message::{self, hand_back, left};
use crate::pool::Answer;
use crate::record::Record;
use crate::recorded::Held;
use crate::relay::{self, For};
use crate::respond::Body;
use crate::route::Asked;
use crate::session;
use crate::upstream::{self, Call, Purpose};

/// Takes one request or notification and hands back the server's answer.
pub(crate) async fn post(
    gateway: &Arc<Gateway>,
    asked: &Asked<'_>,
    message: &Message<'_>,
    body: &Bytes,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let headers = &asked.request.headers;
    let head = Head::of(message)
        .ok_or_else(|| Failure::new(Kind::InvalidRequest, "a client of this revision sends no answers"))?;
    head.check(headers)?;
    let route = &asked.entry.route;
    let deadline = Instant::now() + route.settings.request_timeout;
    let caller = asked.entry.key_of(asked.caller);
    let pods = pods(asked, &caller, head.request_state.as_deref())?;
    let listens = match message {
        Message::Request(request) if head.is_listen() => Some(&request.id),
        _ => None,
    };
    // A stream of notifications lasts: like a session's standing stream, it takes no place of a call.
    if matches!(message, Message::Request(_)) && listens.is_none() {
        message::enter(asked, deadline, record, held).await?;
    }
    let purpose = if listens.is_some() { Purpose::Stream } else { Purpose::Call };
    let sender = Sender { asked, headers, caller: &caller, body, deadline, purpose };
    let (response, pod) = sender.send_to_first(&pods, record, held).await?;
    if let Some(id) = listens {
        // A replica that goes away ends it once its calls are answered: waiting for it as for one of them would be for ever.
        held.call = None;
        record.set_answer(response.status(), relay::failure_of(response.headers()));
        let closing = until_left(gateway.clone(), route.name.clone(), pod.uid.clone());
        return Ok(relay::answer(response, pod, For::listen(id, closing)));
    }
    Ok(hand_back(response, pod, left(deadline), record))
}

/// Waits until who listens at the pod of that UID is to listen elsewhere: this replica goes, or the pod takes no new callers any more and
/// others do, who may have another revision's tools.
async fn until_left(gateway: Arc<Gateway>, route: RouteName, uid: Box<str>) {
    let mut loaded = gateway.state.reports();
    let left = async {
        while loaded.changed().await.is_ok() {
            let Ok(serving) = gateway.state.serving() else { continue };
            if serving.route(route.as_str()).is_none_or(|entry| entry.route.is_left(&uid)) {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = gateway.drain.streams.cancelled() => {}
        () = left => {}
    }
}

/// Pods that may answer, best first: the one where a half-done call waits, else every ready one.
fn pods<'a>(asked: &'a Asked<'_>, caller: &SessionKey, state: Option<&str>) -> Result<Vec<&'a Pod>, Failure> {
    let settings = &asked.entry.route.settings;
    match state.and_then(|state| Some(ParkingKey::of(&settings.mac)?.open(state, caller))) {
        Some(Opened::Ours(parked)) => Ok(vec![waiting_at(asked, &parked)?]),
        Some(Opened::Refused) => Err(stale()),
        Some(Opened::Foreign) | None => {
            if settings.sessions != SessionType::Stateful {
                return session::candidates(asked.entry);
            }
            // What a pod keeps for a caller serves that caller's next request too.
            let route = &asked.entry.route;
            let pods = match &route.canary {
                // A share of calls, whoever's: of few callers a share would be none or all.
                Some(_) => route.takers_drawn_by(caller, &session::generate()?),
                None => route.takers(caller),
            };
            let pods = asked.entry.in_rotation(pods);
            if pods.is_empty() { Err(session::not_ready(&asked.entry.route)) } else { Ok(pods) }
        }
    }
}

fn waiting_at<'a>(asked: &'a Asked<'_>, parked: &Parked) -> Result<&'a Pod, Failure> {
    asked.entry.route.pods.get(&parked.pod).filter(|pod| pod.serving).ok_or_else(stale)
}

/// What a client is told whose half-done call is gone.
fn stale() -> Failure {
    let message = "the call that this requestState belongs to is over; make the call again without requestState";
    Failure::new(Kind::InvalidParams, message)
}

struct Sender<'a> {
    asked: &'a Asked<'a>,
    headers: &'a HeaderMap,
    caller: &'a SessionKey,
    body: &'a Bytes,
    deadline: Instant,
    purpose: Purpose<'a>,
}

impl<'a> Sender<'a> {
    /// Sends to the first pod that takes the request; to the next one only where it cannot have begun.
    async fn send_to_first(
        &self,
        pods: &[&'a Pod],
        record: &mut Record,
        held: &mut Held,
    ) -> Result<(Response<Answer>, &'a Pod), Failure> {
        for (position, pod) in pods.iter().enumerate() {
            let call = Call {
                method: &Method::POST,
                headers: self.headers,
                session: self.caller,
                part: None,
                body: self.body.clone(),
                timeout: left(self.deadline),
                purpose: self.purpose,
            };
            let is_last = position + 1 == pods.len();
            match upstream::ask(&call, pod, self.asked.entry, record, held).await {
                Ok(response) if !is_last && was_turned_away(&response) => {}
                Err(lost) if !is_last && !lost.may_have_begun => {}
                Ok(response) => return Ok((response, pod)),
                Err(lost) => return Err(lost.failure),
            }
        }
        Err(session::not_ready(&self.asked.entry.route))
    }
}

/// Whether the bridge says that it did not begin.
fn was_turned_away<B>(response: &Response<B>) -> bool {
    let kind = relay::failure_of(response.headers());
    matches!(kind, Some(Kind::Overloaded | Kind::Draining | Kind::NotReady))
}
