//! Speaks to bridges: what of a request goes on, how it is signed, and what the lack of an answer means.

use std::time::Duration;

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::Full;
use portolan_mcp::{
    failure::{Failure, Kind},
    mac,
    token::{self, SessionKey},
    wire,
};
use portolan_snapshot::snapshot::{Pod, Settings};

use crate::negotiate;
use crate::outlier::{Asks, Fault};
use crate::pool::{Answer, Unanswered};
use crate::record::Record;
use crate::recorded::Held;
use crate::relay;
use crate::state::{Entry, unix_time};

/// What the gateway itself grants beyond the timeout that the bridge keeps: its answer is the better one.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// When a caller may come back after a pod could not be reached.
const COME_BACK: Duration = Duration::from_secs(1);

/// Room for the headers of most requests, so that their map is made once.
const MAX_HEADERS_OF_MOST: usize = 16;

/// Headers of a client that mean something to a server, besides those of the protocol itself. Its credential is not among
/// them, and nothing of ours is.
const FORWARDED: [&str; 6] = ["content-type", "accept", "last-event-id", "traceparent", "tracestate", "baggage"];

/// Whether a client's header goes on: an `Mcp-Param-*` that nobody here knows too (2026-07-28, "Server Behavior for Custom
/// Headers").
fn is_forwarded(name: &HeaderName) -> bool {
    FORWARDED.contains(&name.as_str()) || (name.as_str().starts_with("mcp-") && *name != token::HEADER)
}

/// A request to a bridge.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) session: &'a SessionKey,
    /// Which of the sessions is meant that had this key.
    pub(crate) part: Option<&'a HeaderValue>,
    pub(crate) body: Bytes,
    /// How long the caller still waits.
    pub(crate) timeout: Duration,
    pub(crate) purpose: Purpose<'a>,
}

/// What a request to a bridge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'a> {
    /// A message, or the end of a session.
    Call,
    /// What is the same for everyone, so that nothing is started for it.
    Everyone,
    /// A session of this caller.
    Opening(&'a SessionKey),
    /// The same, of a session that this caller has with several servers: the bridge finishes what opens it.
    OpeningPart(&'a SessionKey),
    /// A stream that lasts, and says little.
    Stream,
}

impl Purpose<'_> {
    /// What is asked in a session with `method`, which opens none.
    pub(crate) fn of(method: &Method) -> Self {
        if *method == Method::GET { Self::Stream } else { Self::Call }
    }
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) failure: Failure,
    /// Whether the server may have begun: then nobody but the caller knows whether asking again does harm.
    pub(crate) may_have_begun: bool,
}

impl Lost {
    fn before(failure: Failure) -> Self {
        Self { failure, may_have_begun: false }
    }

    fn midway(failure: Failure) -> Self {
        Self { failure, may_have_begun: true }
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        lost.failure
    }
}

/// Does for a client what [`send`] does: the call counts at its pod until its answer has ended, and so does how that goes.
pub(crate) async fn ask(
    call: &Call<'_>,
    pod: &Pod,
    entry: &Entry,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Answer>, Lost> {
    let asks = match record.request() {
        // A stream lasts as long as its client likes: that it ends says nothing of the pod.
        (Some(_), Some(method)) if call.purpose != Purpose::Stream => Asks::of(method),
        _ => Asks::Nothing,
    };
    let at_pod = held.pod.insert(entry.begin_call(pod, asks));
    held.watched = entry.watch(pod, asks, record.caller());
    let sent = record.wait(send(call, pod, entry)).await;
    let fault = match &sent {
        Ok(response) => relay::failure_of(response.headers()).map(Fault::Answered),
        Err(lost) if lost.failure.kind == Kind::ServerUnreachable => Some(Fault::NotReached),
        Err(lost) => Some(Fault::Answered(lost.failure.kind)),
    };
    if let (Some(fault), Some(caller)) = (fault, record.caller()) {
        at_pod.failed(fault, caller);
    }
    if let Some(watched) = &mut held.watched {
        match (&sent, fault) {
            (_, Some(fault)) if fault.is_of_the_pod() => watched.failed(),
            (Err(_), _) | (_, Some(_)) => watched.is_nobodys_fault(),
            (Ok(response), None) => watched.answers(negotiate::is_stream(response.headers())),
        }
    }
    sent
}

/// Sends `call` to `pod`, one of those of `entry`, and waits for the head of its answer.
pub(crate) async fn send(call: &Call<'_>, pod: &Pod, entry: &Entry) -> Result<Response<Answer>, Lost> {
    let request = request(call, pod, &entry.route.settings).map_err(Lost::before)?;
    let pool = entry.pool(pod);
    let answered = async {
        if call.purpose == Purpose::Stream { pool.open_stream(request).await } else { pool.send(request).await }
    };
    match tokio::time::timeout(call.timeout + GRACE, answered).await {
        Ok(Ok(response)) if is_refusal_of_us(&response) => Err(Lost::before(refused(pod))),
        Ok(Ok(response)) if is_of_another(&response) => Err(Lost::before(gone(pod))),
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(unreachable(pod, &error)),
        Err(_) => Err(Lost::midway(timed_out(call.timeout))),
    }
}

fn request(call: &Call<'_>, pod: &Pod, settings: &Settings) -> Result<Request<Full<Bytes>>, Failure> {
    let subject = mac::Subject {
        method: call.method.as_str(),
        path: wire::DATA_PATH,
        session: call.session.as_str(),
        pod: &pod.uid,
    };
    let now = unix_time().as_millis().try_into().unwrap_or(u64::MAX);
    let timeout = u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut headers = HeaderMap::with_capacity(MAX_HEADERS_OF_MOST);
    for (name, value) in call.headers.iter().filter(|(name, _)| is_forwarded(name)) {
        // Each of several: what a client accepts may be written in more than one header.
        headers.append(name, value.clone());
    }
    headers.insert(wire::SESSION, value(call.session.as_str())?);
    headers.insert(wire::POD, pod.named.clone());
    if let Some(part) = call.part {
        headers.insert(wire::PART, part.clone());
    }
    headers.insert(mac::HEADER, value(settings.mac.sign(subject, now))?);
    headers.insert(wire::TIMEOUT, timeout.into());
    match call.purpose {
        Purpose::Everyone => _ = headers.insert(wire::SHARED, HeaderValue::from_static("1")),
        Purpose::Opening(caller) => _ = headers.insert(wire::CALLER, value(caller.as_str())?),
        Purpose::OpeningPart(caller) => {
            headers.insert(wire::CALLER, value(caller.as_str())?);
            headers.insert(wire::HANDSHAKE, HeaderValue::from_static("1"));
        }
        Purpose::Call | Purpose::Stream => {}
    }
    headers.insert(header::HOST, pod.host.clone());
    // A call that fails after its answer began to stream says so behind it.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = PathAndQuery::from_static(wire::DATA_PATH).into();
    *request.headers_mut() = headers;
    Ok(request)
}

fn value<T>(text: T) -> Result<HeaderValue, Failure>
where
    HeaderValue: TryFrom<T, Error = InvalidHeaderValue>,
{
    HeaderValue::try_from(text).map_err(|error| internal(&error))
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error, "a request to a bridge could not be made");
    Failure::new(Kind::Internal, "the gateway could not make its request to the server")
}

pub(crate) fn timed_out(after: Duration) -> Failure {
    let message = format!("the server did not answer within {} ms (spec.timeouts.request)", after.as_millis());
    Failure::new(Kind::RequestTimeout, message)
}

pub(crate) fn broke_off() -> Failure {
    Failure::new(Kind::ServerUnreachable, "the connection to the server broke off during the call; try again")
        .retry_after(COME_BACK)
}

/// A bridge that does not take our MAC says nothing about the client's credential: its 401 must not reach the client.
fn is_refusal_of_us(response: &Response<Answer>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && relay::failure_of(response.headers()) == Some(Kind::Unauthenticated)
}

/// Whether another pod answers, which has the address by now.
fn is_of_another(response: &Response<Answer>) -> bool {
    response.status() == StatusCode::MISDIRECTED_REQUEST
        && relay::failure_of(response.headers()) == Some(Kind::ServerUnreachable)
}

fn gone(pod: &Pod) -> Failure {
    let message = format!("the server's pod {} is gone, and another one has its address; ask again", pod.name);
    Failure::new(Kind::ServerUnreachable, message).retry_after(COME_BACK)
}

fn refused(pod: &Pod) -> Failure {
    tracing::error!(pod = %pod.name, address = %pod.address, "the pod's bridge does not take this gateway's MAC: the keys differ, or the clocks");
    Failure::new(Kind::ServerUnreachable, "the server's pod does not take requests of this gateway")
        .retry_after(COME_BACK)
}

/// The words say whether the server may have begun, too.
fn unreachable(pod: &Pod, error: &Unanswered) -> Lost {
    tracing::warn!(pod = %pod.name, address = %pod.address, error = error as &(dyn std::error::Error + 'static), "no answer from a pod");
    if matches!(error, Unanswered::Unsent(_)) {
        let message = "the server's pod cannot be reached, so the call did not begin; try again";
        return Lost::before(Failure::new(Kind::ServerUnreachable, message).retry_after(COME_BACK));
    }
    Lost::midway(broke_off())
}
