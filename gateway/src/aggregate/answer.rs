//! A server's answer on its way to a client of all servers: resources in it are named as the endpoint names them, and what
//! the server asks says whose question it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use portolan_mcp::{
    aggregate::{Kind as ListKind, Member, Origin, names_resources, of_member, with_origin},
    envelope::Message,
    failure::{Failure, Kind},
    members::Members,
    sse::{self, Splitter},
};
use tokio_util::task::AbortOnDropHandle;

use crate::budget::Share;
use crate::gateway::Gateway;
use crate::negotiate;
use crate::respond::{Body, BoxError};
use crate::state::Entry;

/// Bytes of one message that is read.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// A message up to this size waits for no room: it is out again as soon as it is in.
const SMALL_MESSAGE: usize = 64 * 1024;

/// Where an answer comes from.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    /// The server.
    pub(super) entry: &'a Entry,
    /// Its part of a client's session, where it is one's.
    pub(super) part: Option<&'a HeaderValue>,
    /// Whether the endpoint is that server's alone, and resources have the names that it has for them.
    pub(super) is_alone: bool,
}

/// `response` to a request of `method`; without one, to whatever was asked when the stream began that goes on here. A message
/// that is held until it is whole waits for room.
///
/// # Errors
/// It is too long, or there was no room for it.
pub(super) async fn renamed(
    gateway: &Arc<Gateway>,
    response: Response<Body>,
    from: From<'_>,
    method: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let From { entry, part, is_alone } = from;
    let part = part.and_then(|part| part.to_str().ok()).unwrap_or_default().to_owned();
    let gateway = Some(Arc::clone(gateway));
    let names = Names { route: entry.route.name.as_str().to_owned(), part, is_alone, gateway };
    renamed_of(response, names, Share::new(entry.budget.clone()), method).await
}

async fn renamed_of(
    mut response: Response<Body>,
    names: Names,
    mut held: Share,
    method: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let reading = if negotiate::is_stream(response.headers()) {
        Reading::Events(Splitter::new(MAX_MESSAGE))
    } else if !names.is_alone && method.is_none_or(names_resources) {
        let length = response.size_hint().exact().map_or(Ok(0), usize::try_from).map_err(|_| too_long())?;
        if length > MAX_MESSAGE {
            return Err(too_long());
        }
        if length > SMALL_MESSAGE {
            held.wait(length).await?;
        }
        Reading::Message(BytesMut::with_capacity(length))
    } else {
        return Ok(response);
    };
    response.headers_mut().remove(header::CONTENT_LENGTH);
    let room = Room::Held(held);
    Ok(response.map(|inner| Renamed { inner, names, reading, room, trailers: None, ended: false }.boxed_unsync()))
}

/// Who answers.
struct Names {
    route: String,
    part: String,
    /// Whether resources have the server's own names.
    is_alone: bool,
    /// Whoever wants to know that lists have changed.
    gateway: Option<Arc<Gateway>>,
}

impl Names {
    /// The server says that a list of its own is another one: clients that ask for it now should get that.
    fn hears_of_change(&self, method: &str) {
        let is_change = ListKind::ALL.into_iter().any(|kind| kind.changed() == method);
        if let Some(gateway) = self.gateway.as_ref().filter(|_| is_change) {
            gateway.catalog.heard(gateway, &self.route);
        }
    }

    fn origin(&self) -> Option<Origin<'_>> {
        Some(Origin { member: Member::of_route(&self.route)?, part: &self.part })
    }

    /// `message` as the client reads it; `None` where there is nothing to change.
    fn applied(&self, message: &[u8]) -> Option<String> {
        let origin = self.origin()?;
        let text = std::str::from_utf8(message).ok()?;
        match Message::parse(message).ok()? {
            Message::Response { is_error: false, payload, .. } if !self.is_alone => {
                let result = of_member(origin.member, payload.get())?;
                let mut message = Members::of(text)?;
                message.set("result", result);
                Some(message.to_string())
            }
            Message::Notification { method, .. } => {
                self.hears_of_change(&method);
                with_origin(text, origin)
            }
            Message::Request(_) => with_origin(text, origin),
            Message::Response { .. } => None,
        }
    }

    /// A whole event as the client reads it. Its id says whose it is too: a client that comes back for what it missed is
    /// sent to the server that has it.
    fn event(&self, event: Bytes) -> Bytes {
        let changed = sse::read_event(&event).and_then(|(id, data)| Some((id, self.applied(&data)?)));
        let event = match changed {
            Some((id, message)) => sse::encode(id.as_deref(), message.as_bytes()),
            None => event,
        };
        let shown = self.origin().map(|origin| origin.marked(""));
        shown.and_then(|shown| with_ids_behind(&event, &shown)).unwrap_or(event)
    }
}

/// `event` with `prefix` before its id, wherever one is written; `None` where it has none. An id of nothing stays so.
fn with_ids_behind(event: &[u8], prefix: &str) -> Option<Bytes> {
    let mut changed = Vec::new();
    let mut has_id = false;
    for line in event.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let value = line.strip_prefix(b"id:").map(|value| value.strip_prefix(b" ").unwrap_or(value));
        match value.filter(|value| !value.iter().all(|byte| matches!(byte, b'\n' | b'\r'))) {
            Some(value) => {
                has_id = true;
                changed.extend_from_slice(b"id: ");
                changed.extend_from_slice(prefix.as_bytes());
                changed.extend_from_slice(value);
            }
            None => changed.extend_from_slice(line),
        }
    }
    has_id.then(|| changed.into())
}

enum Reading {
    Events(Splitter),
    Message(BytesMut),
}

/// What a message takes that is not handed on yet.
enum Room {
    Held(Share),
    /// There is to be more before more is read. A task of its own waits for it: whoever does not read must not keep its turn.
    Wanted(AbortOnDropHandle<Result<Share, Failure>>),
    /// The message broke off.
    None,
}

impl Room {
    /// Holds `bytes` from now on: at once where they are few or no more than before.
    fn hold(&mut self, bytes: usize) {
        *self = match std::mem::replace(self, Self::None) {
            Self::Held(mut share) if bytes <= SMALL_MESSAGE.max(share.bytes()) => {
                share.hold(bytes);
                Self::Held(share)
            }
            Self::Held(mut share) => Self::Wanted(AbortOnDropHandle::new(tokio::spawn(async move {
                share.wait(bytes - share.bytes()).await?;
                Ok(share)
            }))),
            other => other,
        };
    }

    /// Ready when there is what was wanted.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Self::Wanted(wanted) = self {
            let failed = |_| Failure::new(Kind::Internal, "the gateway failed while an answer waited for room");
            *self = Self::Held(ready!(Pin::new(wanted).poll(cx)).map_err(failed)??);
        }
        Poll::Ready(Ok(()))
    }
}

struct Renamed {
    inner: Body,
    names: Names,
    reading: Reading,
    room: Room,
    /// What came behind the body, until the rest of it is out.
    trailers: Option<Frame<Bytes>>,
    ended: bool,
}

impl Renamed {
    /// What the client gets of these bytes now.
    fn take(&mut self, data: &Bytes) -> Result<Bytes, BoxError> {
        match &mut self.reading {
            Reading::Message(whole) => {
                if whole.len() + data.len() > MAX_MESSAGE {
                    return Err(too_long().into());
                }
                whole.extend_from_slice(data);
                self.room.hold(whole.capacity());
                Ok(Bytes::new())
            }
            Reading::Events(splitter) => {
                let events = splitter.push(data).map_err(|_| too_long())?;
                self.room.hold(splitter.held());
                let events: Vec<Bytes> = events.into_iter().map(|event| self.names.event(event)).collect();
                Ok(events.concat().into())
            }
        }
    }

    fn rest(&mut self) -> Bytes {
        let rest = match std::mem::replace(&mut self.reading, Reading::Message(BytesMut::new())) {
            Reading::Message(whole) => self.names.applied(&whole).map_or_else(|| whole.freeze(), Bytes::from),
            Reading::Events(splitter) => splitter.rest(),
        };
        self.room.hold(0);
        rest
    }
}

fn too_long() -> Failure {
    Failure::new(Kind::BadServerReply, format!("the server's answer has a message of more than {MAX_MESSAGE} bytes"))
}

impl HttpBody for Renamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.ended {
            if let Err(failure) = ready!(this.room.poll_held(cx)) {
                (this.ended, this.room) = (true, Room::None);
                return Poll::Ready(Some(Err(failure.into())));
            }
            let data = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.take(&data)?,
                    Err(trailers) => {
                        this.trailers = Some(trailers);
                        this.ended = true;
                        this.rest()
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.ended = true;
                    this.rest()
                }
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(this.trailers.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::metrics::Metrics;
    use futures::FutureExt;
    use http_body_util::StreamBody;

    fn budget() -> Arc<Budget> {
        Budget::new(100, Arc::new(Metrics::new().expect("registers")))
    }

    fn names() -> Names {
        Names { route: "n/s".to_owned(), part: "p".to_owned(), is_alone: false, gateway: None }
    }

    async fn through(kind: &'static str, frames: &'static [&'static str]) -> String {
        let frames = frames.iter().map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes()))));
        let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a value"));
        let renamed = renamed_of(response, names(), Share::new(budget()), Some("tools/call")).await.expect("fits");
        String::from_utf8(renamed.into_body().collect().await.expect("whole").to_bytes().to_vec()).expect("text")
    }

    #[tokio::test]
    async fn what_names_no_resource_keeps_its_bytes_and_what_does_is_renamed() {
        let plain = r#"{"jsonrpc": "2.0","id":1, "result":{"n":1.50}}"#;
        assert_eq!(
            through("application/json", &[r#"{"jsonrpc": "2.0","id":1,"#, r#" "result":{"n":1.50}}"#]).await,
            plain
        );
        let link = &[r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"resource_link","uri":"a:b"}]}}"#];
        assert!(through("application/json", link).await.contains(r#""uri":"s.n+a:b""#));
    }

    #[tokio::test]
    async fn events_pass_one_by_one_and_a_question_says_whose_it_is() {
        let told = through(
            "text/event-stream",
            &[
                ": hi\n\nid: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"met",
                "hod\":\"elicitation/create\"}\n\nid: 1-2\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n",
            ],
        )
        .await;
        let question = r#"{"jsonrpc":"2.0","id":"s.n+p@7","method":"elicitation/create"}"#;
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(told, format!(": hi\n\nid: s.n+p@1-1\ndata: {question}\n\nid: s.n+p@1-2\ndata: {answer}\n\n"));
        let primed = through("text/event-stream", &["retry: 1000\nid: 3-0\ndata: \n\n", "data: id: 7\n\n"]).await;
        assert_eq!(primed, "retry: 1000\nid: s.n+p@3-0\ndata: \n\ndata: id: 7\n\n");
        let written = through("text/event-stream", &["event: message\r\nid:7\r\ndata: x\r\n\r\n", "id:\n\n"]).await;
        assert_eq!(written, "event: message\r\nid: s.n+p@7\r\ndata: x\r\n\r\nid:\n\n", "however an id is written");
    }

    #[tokio::test]
    async fn what_comes_behind_a_message_comes_behind_it_here_too_and_what_is_held_counts() {
        let budget = budget();
        let (sender, frames) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, BoxError>>();
        let send = |frame| sender.unbounded_send(Ok(frame)).expect("is read");
        let response = Response::new(StreamBody::new(frames).boxed_unsync());
        let share = Share::new(budget.clone());
        let mut renamed = renamed_of(response, names(), share, Some("tools/call")).await.expect("fits");
        send(Frame::data(Bytes::from_static(b"{\"n\":")));
        assert!(renamed.body_mut().frame().now_or_never().is_none(), "a message is handed on whole");
        assert!(budget.held() >= 5, "what is held counts, with the room that it takes");
        send(Frame::data(Bytes::from_static(b"1}")));
        send(Frame::trailers(http::HeaderMap::new()));
        let whole = renamed.into_body().collect().await.expect("whole");
        assert!(whole.trailers().is_some());
        assert_eq!((&whole.to_bytes()[..], budget.held()), (&b"{\"n\":1}"[..], 0));
    }

    #[tokio::test]
    async fn a_message_of_unknown_length_waits_for_room_as_it_grows() {
        let budget = Budget::new(4 * SMALL_MESSAGE, Arc::new(Metrics::new().expect("registers")));
        let mut others = Share::new(budget.clone());
        others.hold(4 * SMALL_MESSAGE - 1);
        let (sender, frames) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, BoxError>>();
        let response = Response::new(StreamBody::new(frames).boxed_unsync());
        let share = Share::new(budget.clone());
        let mut renamed = renamed_of(response, names(), share, Some("tools/call")).await.expect("begins");
        for _ in 0..3 {
            let part = Bytes::from(vec![b' '; SMALL_MESSAGE]);
            sender.unbounded_send(Ok(Frame::data(part))).expect("is read");
        }
        drop(sender);
        assert!(renamed.body_mut().frame().now_or_never().is_none(), "there is no room");
        assert!(budget.held() < 4 * SMALL_MESSAGE + 2 * SMALL_MESSAGE, "and no more is read");
        drop(others);
        let whole = renamed.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!((whole.len(), budget.held()), (3 * SMALL_MESSAGE, 0));
    }
}
