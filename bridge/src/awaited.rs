//! Where the bytes of a relayed answer come from: a body, or an answer that had not begun when its stream was opened.

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memchr2;
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::sse;

use crate::answered::{MAX_LOOKED_AT, Seen};
use crate::rpc::quote;

/// The media type of a stream of events.
pub(crate) const EVENTS: &str = "text/event-stream";
/// The media type of a single message.
pub(crate) const JSON: &str = "application/json";

/// An answer that has begun, some time.
pub(crate) type Pending = BoxFuture<'static, Result<Response<Content>, Failure>>;

/// What there is of an answer that has begun.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it: one message, which answers its request.
    Whole(Bytes, Seen),
    /// What was looked at, and the rest.
    Rest(Bytes, Incoming),
}

/// Takes the answer of a POST of request `id`; `None` where something else was posted. One message is read before its head
/// goes on, so that what is no answer to the request can still be told; only the beginning of a long one is.
pub(crate) async fn begin(response: Response<Incoming>, id: Option<&Id>) -> Result<Response<Content>, Failure> {
    let Some(id) = id else { return Ok(response.map(|body| Content::Rest(Bytes::new(), body))) };
    let (is_message, is_long) = (is(&response, JSON), response.body().size_hint().lower() > MAX_LOOKED_AT as u64);
    if is(&response, EVENTS) || (is_message && is_long) {
        return Ok(response.map(|body| Content::Rest(Bytes::new(), body)));
    }
    let (head, mut body) = response.into_parts();
    if !is_message {
        // The page of some proxy, or nothing, whatever its status.
        return Err(no_answer(head.status, "no message"));
    }
    let mut begun = BytesMut::new();
    while let Some(more) = data(&mut body).await {
        begun.extend_from_slice(&more.map_err(|error| broke_off(&error))?);
        if begun.len() > MAX_LOOKED_AT {
            return Ok(Response::from_parts(head, Content::Rest(begun.freeze(), body)));
        }
    }
    let begun = begun.freeze();
    match Seen::of(id, &begun) {
        Seen::Nothing => {
            Err(no_answer(head.status, &format!("no answer to it: {}", quote(&String::from_utf8_lossy(&begun)))))
        }
        seen => Ok(Response::from_parts(head, Content::Whole(begun, seen))),
    }
}

fn no_answer(status: StatusCode, what: &str) -> Failure {
    Failure::new(Kind::BadServerReply, format!("the server answered POST with HTTP status {status} and {what}"))
}

pub(crate) enum Source {
    /// What was read already, and the body as it comes.
    Body(Bytes, Incoming),
    /// A stream of events whose head has left; what the server answers becomes events.
    Late(Pending),
    /// A body of JSON that becomes one event, chunk by chunk.
    Json(Bytes, Incoming),
    End,
}

type Next = Option<Result<Frame<Bytes>, Failure>>;

impl Source {
    /// The next frame; `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match self {
                Self::Body(begun, body) => {
                    return Some(next(begun, body).await?.map(Frame::data).map_err(|error| broke_off(&error)));
                }
                Self::Json(begun, body) => match next(begun, body).await {
                    Some(Ok(data)) => return Some(Ok(Frame::data(on_one_line(data)))),
                    Some(Err(error)) => return Some(Err(broke_off(&error))),
                    None => {
                        *self = Self::End;
                        return Some(Ok(Frame::data(Bytes::from_static(b"\n\n"))));
                    }
                },
                Self::Late(pending) => {
                    let (source, first) = match pending.await {
                        Ok(response) => begun_late(response),
                        Err(failure) => (Self::End, Some(Err(failure))),
                    };
                    *self = source;
                    if first.is_some() {
                        return first;
                    }
                }
                Self::End => return None,
            }
        }
    }
}

/// What an answer is whose stream is open already, and the first of it. Its status has nowhere to go any more: what that
/// was about is told inside the protocol.
fn begun_late(response: Response<Content>) -> (Source, Next) {
    let (status, is_events) = (response.status(), is(&response, EVENTS));
    match response.into_body() {
        Content::Whole(message, _) => (Source::End, Some(Ok(Frame::data(sse::encode(None, &message))))),
        Content::Rest(..) if !status.is_success() => (Source::End, Some(Err(no_answer(status, "no message")))),
        Content::Rest(begun, body) if is_events => (Source::Body(begun, body), None),
        Content::Rest(begun, body) => (Source::Json(begun, body), Some(Ok(Frame::data(Bytes::from_static(b"data: "))))),
    }
}

/// What was read already, then what comes.
async fn next(begun: &mut Bytes, body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    if begun.is_empty() { data(body).await } else { Some(Ok(std::mem::take(begun))) }
}

/// JSON holds raw line breaks only between tokens, where a space means the same.
fn on_one_line(data: Bytes) -> Bytes {
    if memchr2(b'\n', b'\r', &data).is_none() {
        return data;
    }
    data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// The next bytes of a server's body. Its trailers go no further: what stands behind an answer is the bridge's to say.
pub(crate) async fn data(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Whether what comes is of the media type `kind`, whatever its parameters (RFC 9110, section 8.3.1).
pub(crate) fn is<B>(response: &Response<B>, kind: &str) -> bool {
    let named = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = named.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(kind.as_bytes())
}

fn broke_off(error: &hyper::Error) -> Failure {
    Failure::new(Kind::ServerUnreachable, format!("the server broke off its answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_their_parameters_and_in_any_case() {
        let of = |kind: &'static str| Response::builder().header(CONTENT_TYPE, kind).body(()).expect("a response");
        for kind in
            ["text/event-stream", "Text/Event-Stream", "text/event-stream;charset=utf-8", "TEXT/EVENT-STREAM ; x=y"]
        {
            assert!(is(&of(kind), EVENTS), "{kind}");
        }
        for kind in ["text/event-streams", "application/json", "", "x; text/event-stream"] {
            assert!(!is(&of(kind), EVENTS), "{kind}");
        }
        assert!(!is(&Response::new(()), EVENTS));
    }
}
