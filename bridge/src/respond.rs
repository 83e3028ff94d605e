//! Responses: refusals, JSON, and streams of events.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::{sse, wire};

use crate::reply::{Delivery, Reply};
use crate::server::{Body, BodyError};

/// A stream that is silent for so long gets a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Empty::new().map_err(BodyError::from).boxed_unsync())
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_body(status, Full::new(body.into()).map_err(BodyError::from).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A failure as a response.
pub(crate) fn failure(failure: &Failure, id: Option<&Id>, method: Option<&str>) -> Response<Body> {
    let mut response = json(failure.kind.status(), failure.answer(id, method));
    mark(&mut response, failure.kind);
    if let Some(seconds) = failure.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A request that the rules of JSON-RPC or of sessions forbid: an HTTP status with code -32600.
pub(crate) fn invalid(status: StatusCode, message: &str, id: Option<&Id>) -> Response<Body> {
    let id = id.map_or("null", Id::as_json);
    let error = serde_json::json!({"code": -32600, "message": message});
    let mut response = json(status, format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#));
    mark(&mut response, Kind::Malformed);
    response
}

/// Says that the bridge answered in the server's stead.
fn mark(response: &mut Response<Body>, kind: Kind) {
    response.headers_mut().insert(wire::FAILURE, HeaderValue::from_static(kind.as_str()));
}

/// The answer of a call: plain JSON when the answer comes first, else a stream of events.
pub(crate) async fn call(mut reply: Reply) -> Response<Body> {
    match reply.next().await {
        Some(Delivery { message, failure, last: true, .. }) => {
            let status = failure.map_or(StatusCode::OK, Kind::status);
            let mut response = json(status, message);
            if let Some(kind) = failure {
                mark(&mut response, kind);
            }
            if failure == Some(Kind::Overloaded) {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
        Some(first) => events(reply, Some(first)),
        None => failure(&Failure::new(Kind::Internal, "the stream of this call was taken over"), None, None),
    }
}

/// A stream of events.
pub(crate) fn events(reply: Reply, first: Option<Delivery>) -> Response<Body> {
    let frames = stream::unfold((Some(reply), first), |(reply, first)| async move {
        let mut reply = reply?;
        let next = match first {
            Some(first) => Some(first),
            None => tokio::select! {
                next = reply.next() => Some(next?),
                () = tokio::time::sleep(KEEP_ALIVE) => None,
            },
        };
        let (bytes, last) = next.map_or((Bytes::from_static(sse::KEEP_ALIVE), false), |delivery| {
            (sse::encode(delivery.id.as_deref(), &delivery.message), delivery.last)
        });
        Some((Ok::<_, BodyError>(Frame::data(bytes)), ((!last).then_some(reply), None)))
    });
    let mut response = with_body(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
