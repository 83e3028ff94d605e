//! POST: one message to a server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use portolan_mcp::{
    envelope::{Message, is_batch},
    failure::{Failure, Kind},
    revision::Era,
    scan,
    token::{self, SessionKey},
};
use portolan_snapshot::snapshot::Pod;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::body::Incoming;
use crate::gateway::Gateway;
use crate::pool::Answer;
use crate::record::Record;
use crate::recorded::Held;
use crate::relay::{self, For};
use crate::respond::Body;
use crate::route::Asked;
use crate::upstream::{self, Call, GRACE, Purpose};
use crate::{body, modern, negotiate, opening, respond, session};

/// Takes one message and hands back the server's answer.
pub(crate) async fn post(
    gateway: &Arc<Gateway>,
    asked: &Asked<'_>,
    incoming: Incoming,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let headers = &asked.request.headers;
    negotiate::post(headers)?;
    let cap = asked.snapshot.http.max_body_bytes;
    let read = body::read(incoming, cap, gateway.bounds.body_timeout, &asked.entry.budget);
    // Held until the bridge has answered: the share of the budget is what the body takes.
    let buffered = record.wait(read).await?;
    // Before anything acts on it: what is decided here is what the server will read.
    scan::scan(&buffered.bytes).map_err(|error| Failure::new(Kind::Malformed, error.to_string()))?;
    if is_batch(&buffered.bytes) {
        let batch = Batch::read(headers, buffered)?;
        session::find(headers, asked.snapshot, asked.entry, asked.caller.principal(), &gateway.metrics)?;
        return Ok(batch.serve(gateway, asked.request, record, held).await);
    }
    let message = Message::parse(&buffered.bytes)?;
    record.set_message(&message, buffered.bytes.len());
    if negotiate::era(headers, &message) == Era::Modern {
        return modern::post(gateway, asked, &message, &buffered.bytes, record, held).await;
    }
    let is_initialize = matches!(&message, Message::Request(request) if request.method == "initialize");
    // `initialize` says in its body what it speaks, whatever its headers say.
    if !is_initialize {
        negotiate::version(headers)?;
    }
    let deadline = Instant::now() + asked.entry.route.settings.request_timeout;
    if is_initialize {
        enter(asked, deadline, record, held).await?;
        return initialize(asked, buffered.bytes.clone(), deadline, record, held).await;
    }
    // The session before the limit: who has none takes nobody's place.
    let session = session::find(headers, asked.snapshot, asked.entry, asked.caller.principal(), &gateway.metrics)?;
    record.set_session(&session.key);
    // Only requests take a place: an answer to the server may be what the call that holds one waits for.
    if matches!(message, Message::Request(_)) {
        enter(asked, deadline, record, held).await?;
    }
    let call = Call {
        method: &Method::POST,
        headers,
        session: &session.key,
        part: None,
        body: buffered.bytes.clone(),
        timeout: left(deadline),
        purpose: Purpose::Call,
    };
    let response = upstream::ask(&call, session.pod, asked.entry, record, held).await?;
    Ok(hand_back(response, session.pod, call.timeout, record))
}

/// Takes a place at the server, for as long as the answer lasts.
pub(crate) async fn enter(
    asked: &Asked<'_>,
    deadline: Instant,
    record: &mut Record,
    held: &mut Held,
) -> Result<(), Failure> {
    held.under_way = asked.entry.sleeper().map(|sleeper| sleeper.begin());
    held.place = Some(record.wait(asked.entry.limiter.enter(deadline)).await?);
    Ok(())
}

/// Opens a session on the less busy of two pods; on another when that one is full, goes away or cannot be reached.
async fn initialize(
    asked: &Asked<'_>,
    body: Bytes,
    deadline: Instant,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let caller = asked.entry.key_of(asked.caller);
    let mut pods = session::candidates(asked.entry)?.into_iter().peekable();
    while let Some(pod) = pods.next() {
        // A name of its own for each attempt: what a lost one left behind is never taken for this one.
        let key = session::generate()?;
        let headers = &asked.request.headers;
        let call = Call {
            method: &Method::POST,
            headers,
            session: &key,
            part: None,
            body: body.clone(),
            timeout: left(deadline),
            purpose: Purpose::Opening(&caller),
        };
        let sent = upstream::ask(&call, pod, asked.entry, record, held).await;
        let failure = match &sent {
            Ok(response) => relay::failure_of(response.headers()),
            Err(lost) => Some(lost.failure.kind),
        };
        if pods.peek().is_some() && failure.is_some_and(is_worth_another_pod) {
            continue;
        }
        let timeout = call.timeout;
        let response = sent?;
        record.set_session(&key);
        let mut opened = response.status().is_success() && failure.is_none();
        let mut answer = if opened && opening::may_be_error(&response) {
            let read = record.wait(opening::read(response, timeout + GRACE)).await;
            let (parts, body) = read.inspect_err(|failure| held.broke(failure.kind, record))?;
            opened = opening::is_opened_by(&body);
            record.set_answer(parts.status, None);
            relay::under(&parts, respond::whole(body))
        } else {
            hand_back(response, pod, timeout, record)
        };
        if opened {
            name_session(&mut answer, key, pod, asked)?;
            record.session_opened();
        }
        return Ok(answer);
    }
    Err(session::not_ready(&asked.entry.route))
}

/// Whether a failure is one pod's, so that another may do better.
pub(crate) fn is_worth_another_pod(kind: Kind) -> bool {
    matches!(kind, Kind::Overloaded | Kind::Draining | Kind::NotReady | Kind::ServerUnreachable)
}

fn name_session(answer: &mut Response<Body>, key: SessionKey, pod: &Pod, asked: &Asked<'_>) -> Result<(), Failure> {
    let token: HeaderValue = session::seal(key, pod, asked.snapshot, &asked.entry.route, asked.caller.principal())?;
    answer.headers_mut().insert(token::HEADER, token);
    Ok(())
}

/// The client's answer out of the pod's.
pub(crate) fn hand_back(
    response: Response<Answer>,
    pod: &Pod,
    timeout: Duration,
    record: &mut Record,
) -> Response<Body> {
    record.set_answer(response.status(), relay::failure_of(response.headers()));
    let (id, method) = record.request();
    let purpose = For::Post { id: id.cloned(), method: method.map(Into::into), silence: timeout + GRACE };
    relay::answer(response, pod, purpose)
}

pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
