//! One conversation with an HTTP+SSE server (2024-11-05): the event stream that it answers on, and what is posted beside it.
//!
//! The stream cannot be resumed in this transport, so its end is the conversation's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use hyper::body::Incoming;
use portolan_mcp::sse::Decoder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::conversation::{Conversation, Heards, Party};
use crate::endpoint;
use crate::link::{Heard, How};
use crate::outbox::Outgoing;
use crate::post::Post;
use crate::state::State;
use crate::upstream::Server;

/// How long the stream may take to open and to name its endpoint.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Messages that are being posted at a time; more wait.
const MAX_POSTS: usize = 256;
const EVENT_STREAM: &str = "text/event-stream";

/// Begins to open the stream at the endpoint of `server`; that it could not be opened is told as its end. Closing the
/// connection is how this transport ends a session.
pub(crate) fn open(state: &Arc<State>, server: &Server, name: &str) -> (Conversation, Heards) {
    let server = server.clone();
    let converse = |party, outgoing| async move { EventStream { party, server }.converse(outgoing).await };
    Conversation::begin(state, name, converse, |_| std::future::ready(()))
}

struct EventStream {
    party: Party,
    server: Server,
}

impl EventStream {
    async fn converse(&self, outgoing: mpsc::Receiver<Outgoing>) -> How {
        let body = match tokio::time::timeout(OPEN_LIMIT, self.open()).await {
            Ok(Ok(body)) => body,
            Ok(Err(how)) => return how,
            Err(_) => return self.not_sse(&format!("did not answer GET within {} s", OPEN_LIMIT.as_secs())),
        };
        let (found, endpoint) = oneshot::channel();
        tokio::select! {
            biased;
            how = self.listen(body, found) => how,
            how = self.speak(endpoint, outgoing) => how,
        }
    }

    async fn open(&self) -> Result<Incoming, How> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        let response = self.server.send(Method::GET, &headers, None, Bytes::new()).await;
        let response = response.map_err(How::Unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let what = format!("answered GET with {status}; is its path another, or its transport StreamableHTTP?");
            return Err(self.not_sse(&what));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no type");
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(EVENT_STREAM) {
            return Err(
                self.not_sse(&format!("answered GET with {essence}, not with an event stream; is its path another?"))
            );
        }
        Ok(response.into_body())
    }

    fn not_sse(&self, what: &str) -> How {
        How::NotSse(format!("the server at {} {what}", self.server.endpoint()))
    }

    /// Hands on what comes until the stream ends; the endpoint that it names goes to `found`.
    async fn listen(&self, mut body: Incoming, found: oneshot::Sender<Uri>) -> How {
        let mut found = Some(found);
        let mut decoder = Decoder::new(self.party.state.config.max_message_bytes);
        loop {
            let frame = match http_body_util::BodyExt::frame(&mut body).await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return How::Disconnected(format!("the server's event stream broke off: {error}")),
                None => return How::Disconnected("the server ended its event stream".to_owned()),
            };
            let Some(data) = frame.data_ref() else { continue };
            let Ok(events) = decoder.push_named(data) else { return self.party.too_long().await };
            for event in events {
                if endpoint::is_endpoint(&event) {
                    // It is named once: another would be for a session that this is not.
                    let Some(found) = found.take() else { continue };
                    match endpoint::resolve(self.server.endpoint(), &event.data) {
                        Ok(endpoint) => drop(found.send(endpoint)),
                        Err(message) => return How::NotSse(message),
                    }
                } else if event.is_message()
                    && self.party.heard.send(Ok(Heard::Message(event.data.into()))).await.is_err()
                {
                    return How::Disconnected("nobody listens to the server any more".to_owned());
                }
            }
        }
    }

    /// Posts what is written, in its order: the next one when the last one was taken.
    async fn speak(&self, endpoint: oneshot::Receiver<Uri>, mut outgoing: mpsc::Receiver<Outgoing>) -> How {
        let Ok(Ok(endpoint)) = tokio::time::timeout(OPEN_LIMIT, endpoint).await else {
            let what = format!("named no endpoint within {} s on its event stream", OPEN_LIMIT.as_secs());
            return self.not_sse(&what);
        };
        let server = self.server.at(endpoint);
        let mut posts = JoinSet::new();
        while let Some(outgoing) = outgoing.recv().await {
            while posts.try_join_next().is_some() {}
            if posts.len() >= MAX_POSTS {
                posts.join_next().await;
            }
            let post = Post::new(&self.party, &server, outgoing);
            let patience = post.patience();
            let (taken, answered) = oneshot::channel::<()>();
            posts.spawn(async move {
                post.send().await;
                drop(taken);
            });
            // Either way the next one follows.
            let _ = tokio::time::timeout(patience, answered).await;
        }
        std::future::pending().await
    }
}
