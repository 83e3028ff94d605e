//! Where the bytes of a relayed answer come from: a body, or an answer that had not begun when its stream was opened.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use memchr::memchr2;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::sse;

/// What is read of an answer under an HTTP status that says no.
const MAX_REFUSAL: usize = 64 * 1024;

/// The media type of a stream of events.
pub(crate) const EVENTS: &str = "text/event-stream";
/// The media type of a single message.
pub(crate) const JSON: &str = "application/json";

/// The head of an answer, some time.
pub(crate) type Pending = BoxFuture<'static, Result<Response<Incoming>, Failure>>;

pub(crate) enum Source {
    /// The body as it comes.
    Body(Incoming),
    /// A stream of events whose head has left; what the server answers to request `Id` becomes events.
    Late(Pending, Id),
    /// An answer under an HTTP status that says no, being read.
    Refused(BoxFuture<'static, Result<Bytes, Failure>>),
    /// A body of JSON that becomes one event, chunk by chunk.
    Json(Incoming),
    End,
}

type Next = Option<Result<Frame<Bytes>, Failure>>;

impl Source {
    /// The next frame; `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match self {
                Self::Body(body) => {
                    return Some(data(body).await?.map(Frame::data).map_err(|error| broke_off(&error)));
                }
                Self::Json(body) => match data(body).await {
                    Some(Ok(data)) => return Some(Ok(Frame::data(on_one_line(data)))),
                    Some(Err(error)) => return Some(Err(broke_off(&error))),
                    None => {
                        *self = Self::End;
                        return Some(Ok(Frame::data(Bytes::from_static(b"\n\n"))));
                    }
                },
                Self::Refused(answer) => {
                    let answer = answer.await;
                    *self = Self::End;
                    return Some(answer.map(|message| Frame::data(sse::encode(None, &message))));
                }
                Self::Late(pending, id) => match pending.await {
                    Ok(response) if response.status().is_success() && is(&response, EVENTS) => {
                        *self = Self::Body(response.into_body());
                    }
                    Ok(response) if response.status().is_success() && is(&response, JSON) => {
                        *self = Self::Json(response.into_body());
                        return Some(Ok(Frame::data(Bytes::from_static(b"data: "))));
                    }
                    // The status has nowhere to go any more: what it was about is told inside the protocol.
                    Ok(response) => *self = Self::Refused(Box::pin(refusal(response, id.clone()))),
                    Err(failure) => {
                        *self = Self::End;
                        return Some(Err(failure));
                    }
                },
                Self::End => return None,
            }
        }
    }
}

/// What the server says of request `id` under a status that says no, or that it said nothing of it.
async fn refusal(response: Response<Incoming>, id: Id) -> Result<Bytes, Failure> {
    let status = response.status();
    if let Ok(body) = Limited::new(response.into_body(), MAX_REFUSAL).collect().await {
        let body = body.to_bytes();
        if matches!(Message::parse(&body), Ok(Message::Response { id: Some(found), .. }) if found == id) {
            return Ok(body);
        }
    }
    Err(Failure::new(Kind::BadServerReply, format!("the server answered the call with HTTP status {status}")))
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
