//! Speaks to bridges: one pool of connections, one way to sign.

use std::time::Duration;

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use portolan_mcp::{
    failure::{Failure, Kind},
    mac,
    token::{self, SessionKey},
    wire,
};
use portolan_snapshot::snapshot::{Pod, Settings};

use crate::relay;
use crate::state::unix_time;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Below the time after which a bridge closes an idle connection, so that no request meets a closing one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// As many as a pod may well have calls under way, so that the next call finds a connection; they end by
/// [`POOL_IDLE_TIMEOUT`].
const POOL_MAX_IDLE_PER_POD: usize = 1024;
/// Of an answer, before its client takes it. What large answers cost is how often they are read and written.
const MAX_BUFFER_BYTES: usize = 256 * 1024;
/// Of a stream that lasts: each holds it for as long as it is open. Heads of bridges are smaller ([`wire::returned`]).
const STREAM_BUFFER_BYTES: usize = 2 * 1024;
/// A pod that vanished without a word is noticed on open streams after three of these.
const TCP_KEEPALIVE: Duration = Duration::from_secs(5);

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

/// The connections to bridges.
pub(crate) struct Upstream {
    calls: Client<HttpConnector, Full<Bytes>>,
    streams: Client<HttpConnector, Full<Bytes>>,
}

/// A request to a bridge.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) session: &'a SessionKey,
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

impl Upstream {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(TCP_KEEPALIVE));
        connector.set_keepalive_interval(Some(TCP_KEEPALIVE));
        connector.set_keepalive_retries(Some(3));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_MAX_IDLE_PER_POD)
            // Only what was never written to a connection is tried on another: nothing is ever sent twice.
            .retry_canceled_requests(true);
        let streams = builder.clone().http1_read_buf_exact_size(STREAM_BUFFER_BYTES).build(connector.clone());
        Self { calls: builder.http1_max_buf_size(MAX_BUFFER_BYTES).build(connector), streams }
    }

    /// Sends `call` to `pod` and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        call: &Call<'_>,
        pod: &Pod,
        settings: &Settings,
    ) -> Result<Response<Incoming>, Lost> {
        let request = request(call, pod, settings).map_err(Lost::before)?;
        let client = if call.purpose == Purpose::Stream { &self.streams } else { &self.calls };
        match tokio::time::timeout(call.timeout + GRACE, client.request(request)).await {
            Ok(Ok(response)) if is_refusal_of_us(&response) => Err(Lost::before(refused(pod))),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(pod, &error)),
            Err(_) => Err(Lost::midway(timed_out(call.timeout))),
        }
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
    headers.insert(mac::HEADER, value(settings.mac.sign(subject, now))?);
    headers.insert(wire::TIMEOUT, timeout.into());
    match call.purpose {
        Purpose::Everyone => _ = headers.insert(wire::SHARED, HeaderValue::from_static("1")),
        Purpose::Opening(caller) => _ = headers.insert(wire::CALLER, value(caller.as_str())?),
        Purpose::Call | Purpose::Stream => {}
    }
    headers.insert(header::HOST, pod.host.clone());
    // A call that fails after its answer began to stream says so behind it.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = pod.uri.clone();
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
fn is_refusal_of_us(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && relay::failure_of(response.headers()) == Some(Kind::Unauthenticated)
}

fn refused(pod: &Pod) -> Failure {
    tracing::error!(pod = %pod.name, address = %pod.address, "the pod's bridge does not take this gateway's MAC: the keys differ, or the clocks");
    Failure::new(Kind::ServerUnreachable, "the server's pod does not take requests of this gateway")
        .retry_after(COME_BACK)
}

/// The words say whether the server may have begun, too.
fn unreachable(pod: &Pod, error: &Error) -> Lost {
    tracing::warn!(pod = %pod.name, address = %pod.address, error = error as &(dyn std::error::Error + 'static), "no answer from a pod");
    if error.is_connect() {
        let message = "the server's pod cannot be reached, so the call did not begin; try again";
        return Lost::before(Failure::new(Kind::ServerUnreachable, message).retry_after(COME_BACK));
    }
    Lost::midway(broke_off())
}
