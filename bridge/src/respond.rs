//! Responses: refusals, JSON, and streams of events.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TRAILER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use portolan_mcp::envelope::{Id, Message, scalar_param};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::{modern, sse, wire};

use crate::reply::{Delivery, Reply};
use crate::server::{Body, BodyError};

/// A stream that is silent for so long gets a comment.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a call's head waits for its answer: what most calls take less than, and nobody notices. A call that takes
/// longer is a stream, so that proxies see a head, and a client that loses its connection can resume.
pub(crate) const QUICK: Duration = Duration::from_millis(100);
/// When a client comes back whose stream was closed before what it is for had ended.
pub(crate) const COME_BACK: Duration = Duration::from_secs(1);

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

/// Lines of JSON as they come.
pub(crate) fn lines(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = lines.map(|line| Ok::<_, BodyError>(Frame::data(line)));
    let mut response = with_body(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
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
    mark(&mut response, Kind::InvalidRequest);
    response
}

/// Says that the bridge answered in the server's stead.
fn mark(response: &mut Response<Body>, kind: Kind) {
    response.headers_mut().insert(wire::FAILURE, HeaderValue::from_static(kind.as_str()));
}

/// What a client expects of a stream of events, by the revision that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// An event that only has an id, from which the client resumes if it sees nothing else.
    Primed,
    /// Nothing but events with messages.
    Plain,
    /// The same, of a stream that nobody comes back to: its end is an end (2026-07-28, "Streamable HTTP").
    Final,
}

/// The answer of a call: plain JSON when it is all there is and comes within [`QUICK`], else a stream of events that is
/// open before its first message. The gateway lets no client in that does not take either (see [`wire`]).
pub(crate) async fn call(mut reply: Reply, opening: Opening) -> Response<Body> {
    match tokio::time::timeout(QUICK, reply.next()).await {
        Ok(first) => answer(first, reply, opening),
        Err(_) => call_events(reply, None, opening),
    }
}

/// The answer of `initialize`. Its head names the session, which there is not before the server agreed: it waits.
pub(crate) async fn initialize(mut reply: Reply, opening: Opening) -> Response<Body> {
    let first = reply.next().await;
    answer(first, reply, opening)
}

/// The answer of a request of the sessionless era: an error that comes quickly has the HTTP status that the protocol gives
/// it.
pub(crate) async fn answer_of_era(mut reply: Reply) -> Response<Body> {
    match tokio::time::timeout(QUICK, reply.next()).await {
        Ok(first) => {
            let code = first.as_ref().filter(|first| first.last && first.failure.is_none()).and_then(error_code);
            let mut response = answer(first, reply, Opening::Final);
            if let Some(code) = code {
                *response.status_mut() = modern::status_of(code);
            }
            response
        }
        Err(_) => call_events(reply, None, Opening::Final),
    }
}

fn error_code(answer: &Delivery) -> Option<i64> {
    match Message::parse(&answer.message) {
        Ok(Message::Response { is_error: true, payload, .. }) => {
            scalar_param(payload, "code").and_then(|code| code.as_json().parse().ok())
        }
        _ => None,
    }
}

fn answer(first: Option<Delivery>, reply: Reply, opening: Opening) -> Response<Body> {
    match first {
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
        Some(first) => call_events(reply, Some(first), opening),
        None => failure(&Failure::new(Kind::Internal, "the stream of this call was taken over"), None, None),
    }
}

/// The stream of a call: one that fails says so behind its last event, because its head is long gone.
fn call_events(reply: Reply, first: Option<Delivery>, opening: Opening) -> Response<Body> {
    let mut response = events(reply, first, opening);
    response.headers_mut().insert(TRAILER, HeaderValue::from(wire::FAILURE));
    response
}

/// A stream of events.
pub(crate) fn events(reply: Reply, first: Option<Delivery>, opening: Opening) -> Response<Body> {
    let beginning =
        reply.beginning.as_deref().filter(|_| opening == Opening::Primed).map(|id| sse::prime(id, COME_BACK));
    let comes_back = opening != Opening::Final;
    let events = Events { beginning, first, next: Next::Event(reply), comes_back };
    let frames = stream::unfold(events, |mut events| async move {
        let frame = events.next().await?;
        Some((Ok::<_, BodyError>(frame), events))
    });
    let mut response = with_body(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A reply on its way out as events.
struct Events {
    beginning: Option<Bytes>,
    first: Option<Delivery>,
    next: Next,
    /// Whether a client may come back to what this stream is for.
    comes_back: bool,
}

enum Next {
    Event(Reply),
    Trailer(Kind),
    End,
}

impl Events {
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        if let Some(beginning) = self.beginning.take() {
            return Some(Frame::data(beginning));
        }
        let reply = match &mut self.next {
            Next::Event(reply) => reply,
            Next::Trailer(kind) => {
                let kind = *kind;
                self.next = Next::End;
                return Some(failure_trailer(kind));
            }
            Next::End => return None,
        };
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                next = reply.next() => next,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Frame::data(Bytes::from_static(sse::KEEP_ALIVE))),
            },
        };
        let Some(delivery) = next else {
            // What this stream is for has not ended with it.
            self.next = Next::End;
            return self.comes_back.then(|| Frame::data(sse::retry(COME_BACK)));
        };
        if delivery.last {
            self.next = delivery.failure.map_or(Next::End, Next::Trailer);
        }
        Some(Frame::data(sse::encode(delivery.id.as_deref(), &delivery.message)))
    }
}

/// Says behind a stream's last event that the bridge made it in the server's stead.
pub(crate) fn failure_trailer(kind: Kind) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert(wire::FAILURE, HeaderValue::from_static(kind.as_str()));
    Frame::trailers(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Outlet;

    fn delivery(message: &'static str, last: bool, failure: Option<Kind>) -> Delivery {
        Delivery { id: Some("1-1".to_owned()), message: message.into(), failure, last, permit: None }
    }

    fn reply() -> (Outlet, Reply) {
        let (outlet, reply) = Reply::new();
        (outlet, reply.resumable("1-0".to_owned()))
    }

    fn kind(response: &Response<Body>) -> &str {
        response.headers()[CONTENT_TYPE].to_str().expect("text")
    }

    async fn frame(response: &mut Response<Body>) -> Option<Bytes> {
        response.body_mut().frame().await.map(|frame| frame.expect("whole").into_data().expect("data"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_quickly_is_plain_json() {
        let (outlet, reply) = reply();
        tokio::spawn(async move {
            tokio::time::sleep(QUICK / 2).await;
            outlet.send_now(delivery("{}", true, None));
        });
        let mut response = call(reply, Opening::Primed).await;
        assert_eq!(kind(&response), "application/json");
        assert_eq!(frame(&mut response).await.as_deref(), Some(&b"{}"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_longer_has_a_head_and_a_place_to_resume_from_before_its_first_message() {
        let (outlet, reply) = reply();
        let started = tokio::time::Instant::now();
        let mut response = call(reply, Opening::Primed).await;
        assert_eq!((kind(&response), started.elapsed()), ("text/event-stream", QUICK));
        assert_eq!(frame(&mut response).await.expect("a beginning"), "retry: 1000\nid: 1-0\ndata: \n\n");
        assert_eq!(
            frame(&mut response).await.expect("a comment"),
            sse::KEEP_ALIVE,
            "a silent stream is not a dead one"
        );
        outlet.send_now(delivery("{}", true, None));
        assert_eq!(frame(&mut response).await.expect("the answer"), "id: 1-1\ndata: {}\n\n");
        assert_eq!(frame(&mut response).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_older_revisions_get_no_event_without_a_message() {
        let (outlet, reply) = reply();
        let mut response = call(reply, Opening::Plain).await;
        outlet.send_now(delivery("{}", true, None));
        assert_eq!(frame(&mut response).await.expect("the answer"), "id: 1-1\ndata: {}\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn initialize_has_no_head_before_its_answer() {
        let (outlet, reply) = reply();
        tokio::spawn(async move {
            tokio::time::sleep(QUICK * 20).await;
            outlet.send_now(delivery("{}", true, Some(Kind::NotReady)));
        });
        let response = initialize(reply, Opening::Primed).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_closes_without_its_answer_says_when_to_come_back() {
        let (outlet, reply) = reply();
        let mut response = call(reply, Opening::Plain).await;
        drop(outlet);
        assert_eq!(frame(&mut response).await.expect("a time"), "retry: 1000\n\n");
        assert_eq!(frame(&mut response).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_comes_after_the_head_is_told_behind_the_last_event() {
        let (outlet, reply) = reply();
        let response = call(reply, Opening::Plain).await;
        outlet.send_now(delivery("{}", true, Some(Kind::ServerExited)));
        assert_eq!(response.headers()[TRAILER], wire::FAILURE.as_str());
        let whole = response.into_body().collect().await.expect("whole");
        assert_eq!(whole.trailers().expect("trailers")[wire::FAILURE], "ServerExited");
    }
}
