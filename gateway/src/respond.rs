//! Answers that the gateway makes itself.

use std::array;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use portolan_mcp::{
    envelope::Id,
    failure::{Failure, Kind},
};

/// Why a body breaks off.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: bytes as they come.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The methods of an MCP endpoint.
pub(crate) const ALLOWED_METHODS: &str = "GET, POST, DELETE";

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A body that is there already.
pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// JSON in pieces that lie apart.
pub(crate) fn joined(pieces: [Bytes; 3]) -> Response<Body> {
    let mut response = Response::new(Pieces(pieces.into_iter()).map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

struct Pieces(array::IntoIter<Bytes, 3>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_slice().iter().map(|piece| piece.len() as u64).sum())
    }
}

/// The one place where a failure becomes an answer.
pub(crate) fn failure(failure: &Failure, id: Option<&Id>, method: Option<&str>) -> Response<Body> {
    let mut response = full(status(failure.kind, id), "application/json", failure.answer(id, method));
    let headers = response.headers_mut();
    if let Some(seconds) = failure.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    match failure.kind {
        Kind::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Kind::MethodNotAllowed => {
            headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
        }
        // The rest of the body is still on its way: it is not read as the next request.
        Kind::BodyTooLarge | Kind::BodyTimeout => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// An answer inside the protocol answers a request. Where there was none (a notification, an answer, a GET), HTTP has
/// to say it.
fn status(kind: Kind, id: Option<&Id>) -> StatusCode {
    match kind {
        Kind::RequestTimeout if id.is_none() => StatusCode::GATEWAY_TIMEOUT,
        _ if kind.is_in_protocol() && id.is_none() => StatusCode::BAD_GATEWAY,
        _ => kind.status(),
    }
}
