//! Hands an answer through as it comes: bytes, without a buffer in either direction.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header, response::Parts};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use portolan_mcp::{
    envelope::Id,
    failure::{Failure, Kind},
    modern::meta,
    sse, wire,
};
use portolan_snapshot::snapshot::Pod;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::negotiate;
use crate::pool::Answer;
use crate::respond::{Body, BoxError};
use crate::upstream;

/// Three of the comments that a bridge writes on an idle stream: a call that waits for its user is not a dead one.
const MIN_SILENCE: Duration = Duration::from_secs(15);

/// When a client whose standing stream went with this replica opens it on another.
const COME_BACK: Duration = Duration::from_secs(1);

/// Tells nginx and its kind not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a bridge's answer is for: it decides what to say when it breaks off.
pub(crate) enum For {
    /// The answer of a POST; silence for longer than this is a failure, but never for less than [`MIN_SILENCE`].
    /// The id is that of the request.
    Post { id: Option<Id>, method: Option<Box<str>>, silence: Duration },
    /// A stream of what a server says by itself: it lasts until either side, or this replica, goes.
    Stream {
        /// When its client is to come back: this replica goes, or who speaks there.
        closing: BoxFuture<'static, ()>,
        /// What the client is told then.
        farewell: Bytes,
    },
}

impl For {
    /// A session's standing stream. The session goes on: another replica has it.
    pub(crate) fn standing(closing: WaitForCancellationFutureOwned) -> Self {
        Self::Stream { closing: Box::pin(closing), farewell: standing_farewell() }
    }

    /// The stream of notifications that request `id` opened.
    pub(crate) fn listen(id: &Id, closing: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Stream { closing: Box::pin(closing), farewell: listen_farewell(id) }
    }
}

/// The last of a session's standing stream: when to come back.
pub(crate) fn standing_farewell() -> Bytes {
    sse::retry(COME_BACK)
}

/// The last of the stream of notifications that request `id` opened: it ends as its server would end it (2026-07-28,
/// "SubscriptionsListenResult").
pub(crate) fn listen_farewell(id: &Id) -> Bytes {
    let id = id.as_json();
    let result = format!(r#"{{"resultType":"complete","_meta":{{"{}":{id}}}}}"#, meta::SUBSCRIPTION_ID);
    sse::encode(None, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).as_bytes())
}

/// What every stream of events says of itself to those on its way.
pub(crate) fn set_stream_headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
}

/// The failure that a bridge says it answered in the server's stead.
pub(crate) fn failure_of(headers: &HeaderMap) -> Option<Kind> {
    headers.get(wire::FAILURE)?.to_str().ok().and_then(Kind::parse)
}

/// The client's answer out of the bridge's.
pub(crate) fn answer(response: Response<Answer>, pod: &Pod, purpose: For) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let is_stream = negotiate::is_stream(&parts.headers);
    let mut response = under(&parts, RelayBody::new(body, is_stream, &pod.name, purpose).boxed_unsync());
    if is_stream {
        set_stream_headers(response.headers_mut());
    }
    response
}

/// The client's answer: `body` under what of the head of the bridge's answer is for clients.
pub(crate) fn under(parts: &Parts, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    response.headers_mut().extend(wire::returned(&parts.headers));
    response
}

/// A bridge's body on its way to a client.
struct RelayBody {
    inner: Answer,
    /// Who answers, for people.
    pod: Box<str>,
    purpose: For,
    /// How long nothing came; `None` while nothing had to be waited for.
    silence: Option<Pin<Box<Sleep>>>,
    /// Knows where one of our events can follow. `None` for a body that is no stream of events.
    events: Option<sse::Follower>,
    /// What was said in the server's stead, until whoever records the request has been told by a trailer.
    failed: Option<Kind>,
    ended: bool,
}

impl RelayBody {
    fn new(inner: Answer, is_stream: bool, pod: &str, mut purpose: For) -> Self {
        if let For::Post { silence, .. } = &mut purpose {
            *silence = (*silence).max(MIN_SILENCE);
        }
        Self {
            inner,
            pod: pod.into(),
            purpose,
            silence: None,
            events: is_stream.then(sse::Follower::default),
            failed: None,
            ended: false,
        }
    }

    /// Notes what passes, and that there was no silence.
    fn note(&mut self, data: &[u8]) {
        if let (For::Post { silence, .. }, Some(timer)) = (&self.purpose, &mut self.silence) {
            timer.as_mut().reset(Instant::now() + *silence);
        }
        if let Some(events) = &mut self.events {
            events.push(data);
        }
    }

    fn is_between_events(&self) -> bool {
        self.events.as_ref().is_some_and(sse::Follower::is_between_events)
    }

    /// What to hand over when nothing more will come: the request's answer where it can still be said, else the break.
    fn break_off(&mut self, failure: &Failure) -> Result<Frame<Bytes>, BoxError> {
        self.ended = true;
        match &self.purpose {
            For::Post { id: Some(id), method, .. } if self.is_between_events() => {
                self.failed = Some(failure.kind);
                let answer = failure.answer(Some(id), method.as_deref());
                Ok(Frame::data(sse::encode(None, &answer)))
            }
            _ => Err(failure.clone().into()),
        }
    }
}

impl HttpBody for RelayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(kind) = this.failed.take() {
            let kind = HeaderValue::from_static(kind.as_str());
            return Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::from_iter([(wire::FAILURE, kind)])))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    this.note(frame.data_ref().map_or(&[], |data| data));
                    Some(Ok(frame))
                }
                Some(Err(error)) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(pod = %this.pod, error, "a pod's answer broke off");
                    Some(this.break_off(&upstream::broke_off()))
                }
                None => {
                    this.ended = true;
                    None
                }
            });
        }
        match &mut this.purpose {
            For::Stream { closing, farewell } => {
                ready!(closing.as_mut().poll(cx));
                let farewell = std::mem::take(farewell);
                this.ended = true;
                Poll::Ready(this.is_between_events().then(|| Ok(Frame::data(farewell))))
            }
            For::Post { silence, .. } => {
                let silence = *silence;
                let timer = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Some(this.break_off(&upstream::timed_out(silence))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && (self.ended || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // A stream may end with an answer of ours, or sooner than announced.
        if self.events.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}
