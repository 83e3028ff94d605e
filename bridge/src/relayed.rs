//! Bodies on their way from an HTTP server to a client: chunk by chunk, with a deadline where a call waits.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, TRAILER};
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::{sse, wire};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answered::{Seen, Watch};
use crate::awaited::{self, Content, EVENTS, Pending, Source, is};
use crate::link::timed_out;
use crate::opening::Opening;
use crate::relay::{InFlight, head};
use crate::respond::{COME_BACK, KEEP_ALIVE, failure_trailer};
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
    /// What `message` waits for, at most `timeout` from now.
    pub(crate) fn of(message: &Message<'_>, timeout: Duration) -> Self {
        let id = match message {
            Message::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        Self { id, method: message.method().map(str::to_owned), deadline: Instant::now() + timeout, timeout }
    }

    pub(crate) fn timed_out(&self) -> Failure {
        timed_out(self.timeout)
    }
}

/// A standing stream, relayed until either side or the session ends. Every event tells `used`; what only keeps the
/// connection open does not.
pub(crate) fn stream(
    response: Response<Incoming>,
    over: CancellationToken,
    used: impl Fn() + Send + 'static,
) -> Response<Body> {
    let head = head(&response, ());
    let gap = Gap::of(&response);
    let standing = Standing { body: response.into_body(), over, gap, used };
    let frames = stream::unfold(Some(standing), |standing| async move {
        let mut standing = standing?;
        let (frame, goes_on) = standing.next().await?;
        Some((frame, goes_on.then_some(standing)))
    });
    head.map(|()| StreamBody::new(frames).boxed_unsync())
}

/// The answer of a call. One that breaks off or comes too late is completed in the server's stead where that can
/// still be said: in a stream of events, between two events.
pub(crate) fn call(
    response: Response<Content>,
    call: Call,
    in_flight: InFlight,
    over: CancellationToken,
    gave_up: impl FnOnce(&Call) + Send + 'static,
    opening: Option<Opening>,
) -> Response<Body> {
    let (head, gap) = (head(&response, ()), Gap::of(&response));
    let mut opening = opening.map(|opening| opening.under(response.status()));
    let mut decide = |seen| opening.iter_mut().for_each(|opening| opening.decide(seen));
    let (begun, body) = match response.into_body() {
        Content::Whole(message, seen) => {
            decide(seen);
            return head.map(|()| Full::new(message).map_err(|never| match never {}).boxed_unsync());
        }
        Content::Rest(begun, body) => (begun, body),
    };
    if !gap.is_events {
        // Only a long message is not read as a whole, and that is a result.
        decide(Seen::Result);
    }
    let watch = call.id.clone().filter(|_| gap.is_events).map(Watch::new);
    let (source, gave_up) = (Source::Body(begun, body), Some(gave_up));
    let relayed = Relayed { source, call, over, gap, failed: None, gave_up, watch, opening, _in_flight: in_flight };
    relayed.under(head)
}

/// The answer of a request, which has not begun: a stream of events, open before there are any. It begins without an
/// event of ours, because what could be resumed is the server's to say.
pub(crate) fn late(
    pending: Pending,
    call: Call,
    in_flight: InFlight,
    over: CancellationToken,
    gave_up: impl FnOnce(&Call) + Send + 'static,
) -> Response<Body> {
    let gap = Gap { is_events: true, follower: sse::Follower::default() };
    let (source, gave_up, watch) = (Source::Late(pending), Some(gave_up), call.id.clone().map(Watch::new));
    let relayed =
        Relayed { source, call, over, gap, failed: None, gave_up, watch, opening: None, _in_flight: in_flight };
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    head.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    relayed.under(head)
}

impl<F: FnOnce(&Call) + Send + 'static> Relayed<F> {
    fn under(self, mut head: Response<()>) -> Response<Body> {
        if self.gap.is_events {
            head.headers_mut().insert(TRAILER, HeaderValue::from(wire::FAILURE));
        }
        let frames = stream::unfold(Some(self), |relayed| async move {
            let mut relayed = relayed?;
            let (frame, goes_on) = relayed.next().await?;
            Some((frame, goes_on.then_some(relayed)))
        });
        head.map(|()| StreamBody::new(frames).boxed_unsync())
    }
}

/// Where in a body something of ours may be put.
struct Gap {
    is_events: bool,
    follower: sse::Follower,
}

impl Gap {
    fn of<B>(response: &Response<B>) -> Self {
        Self { is_events: is(response, EVENTS), follower: sse::Follower::default() }
    }

    /// Takes what passed; says whether an event's data began in it.
    fn pass(&mut self, frame: &Frame<Bytes>) -> bool {
        self.is_events && frame.data_ref().is_some_and(|data| self.follower.push(data))
    }

    fn is_here(&self) -> bool {
        self.is_events && self.follower.is_between_events()
    }
}

/// The next frame, and whether more may come.
type Next = Option<(Result<Frame<Bytes>, BodyError>, bool)>;

/// Shows at the latest now whether anyone still reads.
fn keep_alive() -> Next {
    Some((Ok(Frame::data(Bytes::from_static(sse::KEEP_ALIVE))), true))
}

struct Standing<F> {
    body: Incoming,
    over: CancellationToken,
    gap: Gap,
    used: F,
}

impl<F: Fn()> Standing<F> {
    async fn next(&mut self) -> Next {
        let frame = tokio::select! {
            data = awaited::data(&mut self.body) => data?.map(Frame::data),
            () = tokio::time::sleep(KEEP_ALIVE), if self.gap.is_here() => return keep_alive(),
            () = self.over.cancelled() => {
                return self.gap.is_here().then(|| (Ok(Frame::data(sse::retry(COME_BACK))), false));
            }
        };
        if frame.as_ref().is_ok_and(|frame| self.gap.pass(frame)) {
            (self.used)();
        }
        Some((frame.map_err(BodyError::from), true))
    }
}

struct Relayed<F> {
    source: Source,
    call: Call,
    over: CancellationToken,
    gap: Gap,
    /// Why the answer was completed here.
    failed: Option<Kind>,
    gave_up: Option<F>,
    /// Set where events pass that are to answer a request.
    watch: Option<Watch>,
    /// Set where the answer decides whether there is a session.
    opening: Option<Opening>,
    _in_flight: InFlight,
}

impl<F: FnOnce(&Call)> Relayed<F> {
    async fn next(&mut self) -> Next {
        if let Some(kind) = self.failed {
            return Some((Ok(failure_trailer(kind)), false));
        }
        let waits = self.call.id.is_some();
        let frame = tokio::select! {
            frame = self.source.next() => frame,
            () = tokio::time::sleep_until(self.call.deadline), if waits => {
                if let Some(gave_up) = self.gave_up.take() {
                    gave_up(&self.call);
                }
                let failure = self.call.timed_out();
                return self.complete(&failure);
            }
            () = tokio::time::sleep(KEEP_ALIVE), if self.gap.is_here() => return keep_alive(),
            () = self.over.cancelled() => {
                return self.complete(&Failure::new(Kind::UnknownSession, "the session ended during the call"));
            }
        };
        match frame {
            Some(Ok(frame)) => {
                self.gap.pass(&frame);
                if let (Some(watch), Some(data)) = (&mut self.watch, frame.data_ref()) {
                    watch.pass(data);
                    // A client that has its answer may hang up before the stream ends.
                    self.opening.iter_mut().for_each(|opening| opening.decide(watch.seen()));
                }
                Some((Ok(frame), true))
            }
            Some(Err(failure)) => self.complete(&failure),
            None => self.end(),
        }
    }

    /// The server has said all it had to say.
    fn end(&mut self) -> Next {
        let watch = self.watch.as_ref()?;
        // Who can ask for the rest does so (2025-11-25, "Sending Messages to the Server").
        if watch.seen() != Seen::Nothing || watch.is_resumable() {
            return None;
        }
        self.complete(&Failure::new(Kind::BadServerReply, "the server ended its stream without the answer"))
    }

    fn complete(&mut self, failure: &Failure) -> Next {
        let Some(id) = self.call.id.as_ref().filter(|_| self.gap.is_here()) else {
            return Some((Err(BodyError::from(failure.message.clone())), false));
        };
        let answer = failure.answer(Some(id), self.call.method.as_deref());
        self.failed = Some(failure.kind);
        Some((Ok(Frame::data(sse::encode(None, &answer))), true))
    }
}
