//! A batch: several messages in one POST, which clients of revision 2025-03-26 may send and no others (that revision, "Sending
//! Messages to the Server"). Each message is a request of its own from here on, with its own way, limits, record and answer;
//! the answers come on one stream of events, as each of them is there.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use portolan_mcp::{
    envelope::{Message, batched},
    failure::{Failure, Kind},
    modern::VERSION_HEADER,
    revision, scan,
    session::on_one_line,
    sse::{self, Follower},
};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::body::{Buffered, Incoming};
use crate::gateway::Gateway;
use crate::negotiate;
use crate::record::Record;
use crate::recorded::Held;
use crate::respond::{self, Body, BoxError};
use crate::{metrics, relay, stack};

/// Messages of one batch.
const MAX_MESSAGES: usize = 64;

/// Several messages, each as the bytes that came.
pub(crate) struct Batch {
    messages: Vec<(Bytes, Expects)>,
    _body: Buffered,
}

/// What comes back for a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Answer,
    Nothing,
}

impl Batch {
    /// Takes a batch apart that came under `headers`.
    ///
    /// # Errors
    /// It may not be sent in this revision, is empty or too long, or one of its messages is none or may not be in a batch: then
    /// nothing of it is carried out.
    pub(crate) fn read(headers: &HeaderMap, body: Buffered) -> Result<Self, Failure> {
        let named = headers.get(VERSION_HEADER).map(|value| value.to_str().unwrap_or_default());
        // Clients of that revision do not name it: the header is younger.
        if named.is_some_and(|named| named != revision::BATCHING) {
            let only = revision::BATCHING;
            return Err(invalid(format!("only revision {only} has batches; send one message per request")));
        }
        let items = batched(&body.bytes, MAX_MESSAGES).filter(|items| !items.is_empty());
        let items = items.ok_or_else(|| invalid(format!("a batch has 1 to {MAX_MESSAGES} messages")))?;
        let read = |(position, item): (usize, &RawValue)| {
            let refused = |why: &str| invalid(format!("message {position} of the batch {why}"));
            // As one message, which the array around it is not.
            let scanned = scan::scan(item.get().as_bytes());
            scanned
                .map_err(|error| Failure::new(Kind::Malformed, format!("message {position} of the batch: {error}")))?;
            let message =
                Message::parse(item.get().as_bytes()).map_err(|error| refused(&format!("is none: {error}")))?;
            if message.method() == Some("initialize") {
                return Err(refused("is initialize, which must be sent alone"));
            }
            if message.is_modern() {
                return Err(refused("is of a revision without batches"));
            }
            let expects = if matches!(message, Message::Request(_)) { Expects::Answer } else { Expects::Nothing };
            Ok((body.bytes.slice_ref(item.get().as_bytes()), expects))
        };
        let messages = items.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { messages, _body: body })
    }

    /// Lets every message go its way, and answers with what comes back.
    pub(crate) async fn serve(
        self,
        gateway: &Arc<Gateway>,
        head: &Parts,
        record: &mut Record,
        held: &mut Held,
    ) -> Response<Body> {
        record.set_method(metrics::BATCH);
        // Each of its answers is counted by itself.
        held.answer = None;
        let response = self.answered(gateway, head, record).await;
        record.set_answer(response.status(), None);
        response
    }

    async fn answered(self, gateway: &Arc<Gateway>, head: &Parts, record: &mut Record) -> Response<Body> {
        let peer = record.peer();
        let has_answers = self.messages.iter().any(|(_, expects)| *expects == Expects::Answer);
        // One part at a time: whoever reads slowly is waited for.
        let (events, answers) = mpsc::channel(1);
        let stream = Arc::new(Mutex::new(events));
        let tasks: Vec<_> = self
            .messages
            .iter()
            .map(|(message, expects)| {
                let response = one(gateway.clone(), peer, head, message.clone());
                let (stream, message, expects) = (stream.clone(), message.clone(), *expects);
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let response = response.await;
                    match expects {
                        Expects::Answer => pass_on(response, &message, &stream).await.map(|()| None),
                        Expects::Nothing => Ok(Some(response)),
                    }
                }))
            })
            .collect();
        drop(stream);
        if !has_answers {
            return record.wait(taken(tasks)).await;
        }
        let mut response = Response::new(Answers { answers, _tasks: tasks, _batch: self }.boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        relay::set_stream_headers(headers);
        response
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(Kind::InvalidRequest, message)
}

/// The way of one message. In a box, because it is what led here.
fn one(gateway: Arc<Gateway>, peer: SocketAddr, head: &Parts, message: Bytes) -> BoxFuture<'static, Response<Body>> {
    let mut head = head.clone();
    head.headers.remove(header::CONTENT_LENGTH);
    let request = Request::from_parts(head, Incoming::Whole(message));
    Box::pin(stack::serve(gateway, peer, request))
}

/// What says that a message was taken, or the first that was not.
async fn taken(tasks: Vec<Task>) -> Response<Body> {
    let mut not_taken = None;
    // All of them: what one comes to is no other's matter.
    for task in tasks {
        match task.await {
            Ok(Ok(Some(response))) if !response.status().is_success() => _ = not_taken.get_or_insert(response),
            Ok(_) => {}
            Err(_) => {
                let failure = Failure::new(Kind::Internal, "the gateway failed on this batch");
                not_taken.get_or_insert_with(|| respond::failure(&failure, None, None));
            }
        }
    }
    not_taken.unwrap_or_else(|| respond::empty(StatusCode::ACCEPTED))
}

type Task = AbortOnDropHandle<Result<Option<Response<Body>>, Gone>>;
type Events = mpsc::Sender<Result<Bytes, BoxError>>;

/// The client does not read any more.
struct Gone;

/// Writes an answer to the stream of all. Between its first byte and the end of an event nothing else may come.
async fn pass_on(response: Response<Body>, request: &Bytes, stream: &Mutex<Events>) -> Result<(), Gone> {
    let is_stream = negotiate::is_stream(response.headers());
    let mut body = response.into_body();
    let (mut follower, mut turn) = (Follower::default(), None::<MutexGuard<'_, Events>>);
    while let Some(frame) = body.frame().await {
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) if !data.is_empty() => Ok(data),
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        let begins = turn.is_none();
        let events = match turn.take() {
            Some(events) => events,
            None => stream.lock().await,
        };
        let data = match data {
            Ok(data) if is_stream => data,
            Ok(data) => {
                if begins {
                    send(&events, Ok(Bytes::from_static(b"data: "))).await?;
                }
                on_one_line(data)
            }
            Err(error) if begins => return send(&events, Ok(broken_off(request, &error))).await,
            // The end of an event is missing, and what follows would be taken for that.
            Err(error) => return send(&events, Err(error)).await,
        };
        follower.push(&data);
        send(&events, Ok(data)).await?;
        turn = Some(events).filter(|_| !is_stream || !follower.is_between_events());
    }
    match turn {
        Some(events) => send(&events, Ok(Bytes::from_static(b"\n\n"))).await,
        None => Ok(()),
    }
}

/// The answer to a request whose own broke off between two events, or before there was anything of it.
fn broken_off(request: &Bytes, error: &BoxError) -> Bytes {
    let failure = Failure::new(Kind::BadServerReply, format!("the answer broke off: {error}"));
    let (id, method) = match Message::parse(request) {
        Ok(Message::Request(request)) => (Some(request.id), Some(request.method)),
        _ => (None, None),
    };
    sse::encode(None, &failure.answer(id.as_ref(), method.as_deref()))
}

async fn send(events: &Events, part: Result<Bytes, BoxError>) -> Result<(), Gone> {
    events.send(part).await.map_err(|_| Gone)
}

/// The answers on their way to the client. When that hangs up, what is still under way is let go.
struct Answers {
    answers: mpsc::Receiver<Result<Bytes, BoxError>>,
    _tasks: Vec<Task>,
    _batch: Batch,
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.answers.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
