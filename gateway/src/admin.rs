//! The admin port: probes, metrics, and the operator's stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use portolan_mcp::wire;
use portolan_snapshot::Report;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::respond::{self, Body, BoxError};
use crate::{body, check, stack};

const TEXT: &str = "text/plain; version=0.0.4";
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A line as often while something is counted for the operator.
const COUNTING: Duration = Duration::from_secs(1);

/// A line at least this often, so that a reader notices a replica that vanished.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Answers one request.
pub(crate) async fn serve(gateway: Arc<Gateway>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path().starts_with(wire::CHECKS) {
        return stack::check(gateway, peer, request.map(body::Incoming::Stream)).await;
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readyz(&gateway),
        "/metrics" => metrics(&gateway),
        wire::STREAM => reports(&gateway, &request.into_parts().0),
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /v1/stream and /v1/checks/\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond::full(status, TEXT, body)
}

fn readyz(gateway: &Gateway) -> Response<Body> {
    if gateway.drain.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if !gateway.state.is_loaded() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been loaded yet\n");
    }
    text(StatusCode::OK, "ok\n")
}

fn metrics(gateway: &Gateway) -> Response<Body> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    gateway.metrics.entered.set(number(gateway.gate.entered()));
    gateway.metrics.buffered_bytes.set(number(gateway.budget.held()));
    gateway.metrics.pods_failing.reset();
    for (route, pods) in gateway.state.serving().iter().flat_map(|serving| serving.failing()) {
        gateway.metrics.pods_failing.with_label_values(&[&route]).set(number(pods.len()));
    }
    match gateway.metrics.render() {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The stream is for whoever has the gateway's stream key: the operator.
fn reports(gateway: &Arc<Gateway>, request: &Parts) -> Response<Body> {
    let Ok(serving) = gateway.state.serving() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been loaded yet\n");
    };
    if let Err(refused) = check::authenticate(request, &serving) {
        return text(refused.kind.status(), format!("{refused}\n"));
    }
    let (reports, outliers, waiting) = (gateway.state.reports(), gateway.state.outliers(), gateway.state.waiting());
    let lines = Lines { gateway: gateway.clone(), reports, outliers, waiting, last: None };
    let done = gateway.drain.done.clone();
    let frames = stream::unfold(lines, move |lines| {
        let done = done.clone();
        async move {
            tokio::select! {
                () = done.cancelled() => None,
                next = lines.next() => next,
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, LINES);
    response
}

/// Where one reader of the stream is.
struct Lines {
    gateway: Arc<Gateway>,
    reports: watch::Receiver<Option<Arc<Report>>>,
    outliers: watch::Receiver<()>,
    waiting: watch::Receiver<()>,
    last: Option<Arc<Report>>,
}

impl Lines {
    /// The next line: everything, then what changed, or a heartbeat.
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, BoxError>, Self)> {
        let line = match self.last.take() {
            None => {
                self.reports.wait_for(Option::is_some).await.ok()?;
                let whole = self.whole()?;
                self.last = Some(whole.clone());
                Report::clone(&whole)
            }
            Some(last) => {
                // That an outlier is tried again is no event: it is seen at the next heartbeat.
                let is_counting =
                    last.servers.values().any(|server| !server.traffic.is_empty() || server.in_flight.is_some());
                let pause = if is_counting { COUNTING } else { HEARTBEAT };
                if let Ok(changed) = tokio::time::timeout(pause, self.changed()).await {
                    changed.ok()?;
                }
                let whole = self.whole()?;
                let is_old = Arc::ptr_eq(&whole, &last) || whole == last;
                let line = if is_old { last.heartbeat() } else { whole.since(&last) };
                self.last = Some(whole);
                line
            }
        };
        let mut bytes = serde_json::to_vec(&line).ok()?;
        bytes.push(b'\n');
        Some((Ok(Frame::data(bytes.into())), self))
    }

    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.reports.changed() => changed,
            changed = self.outliers.changed() => changed,
            changed = self.waiting.changed() => changed,
        }
    }

    /// Everything, as it is now.
    fn whole(&mut self) -> Option<Arc<Report>> {
        self.outliers.mark_unchanged();
        self.waiting.mark_unchanged();
        let loaded = self.reports.borrow_and_update().clone()?;
        let serving = self.gateway.state.serving().ok()?;
        let (failing, traffic, in_flight) = (serving.failing(), serving.traffic(), serving.in_flight());
        if failing.is_empty() && traffic.is_empty() && in_flight.is_empty() {
            return Some(loaded);
        }
        let counted = Report::clone(&loaded).with_failing(failing).with_traffic(traffic).with_in_flight(in_flight);
        Some(counted.with_callers(serving.callers()).into())
    }
}
