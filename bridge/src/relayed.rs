//! Bodies on their way from an HTTP server to a client: chunk by chunk, with a deadline where a call waits.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::sse;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::relay::{InFlight, head};
use crate::server::{Body, BodyError};

/// A client's request that waits for the server.
#[derive(Debug)]
pub(crate) struct Call {
    /// `None` for notifications and answers.
    pub(crate) id: Option<Id>,
    pub(crate) method: Option<String>,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

impl Call {
    pub(crate) fn timed_out(&self) -> Failure {
        let millis = self.timeout.as_millis();
        let message =
            format!("the server did not answer within {millis} ms; ask again, or raise spec.timeouts.request");
        Failure::new(Kind::RequestTimeout, message)
    }
}

/// A standing stream, relayed until either side or the session ends.
pub(crate) fn stream(response: Response<Incoming>, over: CancellationToken) -> Response<Body> {
    let head = head(&response, ());
    let frames = stream::unfold((response.into_body(), over), |(mut body, over)| async move {
        let frame = tokio::select! {
            frame = body.frame() => frame?,
            () = over.cancelled() => return None,
        };
        Some((frame.map_err(BodyError::from), (body, over)))
    });
    head.map(|()| StreamBody::new(frames).boxed_unsync())
}

/// The answer of a call. One that breaks off or comes too late is completed in the server's stead where that can
/// still be said: in a stream of events, between two events.
pub(crate) fn call(
    response: Response<Incoming>,
    call: Call,
    in_flight: InFlight,
    over: CancellationToken,
    gave_up: impl FnOnce(&Call) + Send + 'static,
) -> Response<Body> {
    let head = head(&response, ());
    let is_events =
        response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let relayed = Relayed {
        body: response.into_body(),
        call,
        over,
        is_events,
        between_events: true,
        last_byte: b'\n',
        gave_up: Some(gave_up),
        _in_flight: in_flight,
    };
    let frames = stream::unfold(Some(relayed), |relayed| async move {
        let mut relayed = relayed?;
        let (frame, goes_on) = relayed.next().await?;
        Some((frame, goes_on.then_some(relayed)))
    });
    head.map(|()| StreamBody::new(frames).boxed_unsync())
}

struct Relayed<F> {
    body: Incoming,
    call: Call,
    over: CancellationToken,
    is_events: bool,
    /// Whether everything so far was whole events.
    between_events: bool,
    last_byte: u8,
    gave_up: Option<F>,
    _in_flight: InFlight,
}

type Next = Option<(Result<Frame<Bytes>, BodyError>, bool)>;

impl<F: FnOnce(&Call)> Relayed<F> {
    /// The next frame, and whether more may come.
    async fn next(&mut self) -> Next {
        let waits = self.call.id.is_some();
        let frame = tokio::select! {
            frame = self.body.frame() => frame?,
            () = tokio::time::sleep_until(self.call.deadline), if waits => {
                if let Some(gave_up) = self.gave_up.take() {
                    gave_up(&self.call);
                }
                return self.complete(&self.call.timed_out());
            }
            () = self.over.cancelled() => {
                return self.complete(&Failure::new(Kind::UnknownSession, "the session ended during the call"));
            }
        };
        match frame {
            Ok(frame) => {
                self.watch(&frame);
                Some((Ok(frame), true))
            }
            Err(error) => {
                let message = format!("the server broke off its answer: {error}");
                self.complete(&Failure::new(Kind::ServerUnreachable, message))
            }
        }
    }

    fn watch(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { return };
        let before = if data.len() > 1 { data.get(data.len() - 2).copied() } else { Some(self.last_byte) };
        self.between_events = data.ends_with(b"\n\r\n") || (data.ends_with(b"\n") && before == Some(b'\n'));
        self.last_byte = data.last().copied().unwrap_or(self.last_byte);
    }

    fn complete(&self, failure: &Failure) -> Next {
        let Some(id) = self.call.id.as_ref().filter(|_| self.is_events && self.between_events) else {
            return Some((Err(BodyError::from(failure.message.clone())), false));
        };
        let answer = failure.answer(Some(id), self.call.method.as_deref());
        Some((Ok(Frame::data(sse::encode(None, &answer))), false))
    }
}
