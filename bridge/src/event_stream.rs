//! One conversation with an HTTP+SSE server (2024-11-05): the event stream that it answers on, and what is posted beside it.
//!
//! The stream cannot be resumed in this transport, so its end is the conversation's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use hyper::body::Incoming;
use portolan_mcp::sse::Decoder;
use portolan_mcp::wire::{ExitCause, SessionExit};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::endpoint;
use crate::lines::LineError;
use crate::link::{End, Heard, How, NotReading};
use crate::outbox::{Outbox, Outgoing};
use crate::post::Post;
use crate::state::{State, lock, unix_millis};
use crate::upstream::Server;

/// How long the stream may take to open and to name its endpoint.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Messages that are being posted at a time; more wait.
const MAX_POSTS: usize = 256;
const EVENT_STREAM: &str = "text/event-stream";

/// A conversation. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct EventStream {
    name: Arc<Mutex<String>>,
    outbox: Outbox,
    cause: Arc<Mutex<Option<ExitCause>>>,
    terminate: CancellationToken,
    end: watch::Receiver<Option<Arc<End>>>,
}

/// What comes from the server.
pub(crate) type Events = mpsc::Receiver<Result<Heard, LineError>>;

impl EventStream {
    /// Begins to open the stream at the endpoint of `server`; what is written meanwhile waits. That it could not be opened is
    /// told as its end.
    pub(crate) fn open(state: &Arc<State>, server: &Server, name: &str) -> (Self, Events) {
        let name = Arc::new(Mutex::new(name.to_owned()));
        let (outbox, outgoing) = Outbox::new(state.config.max_message_bytes);
        // What the session does not take, the server keeps.
        let (heard, events) = mpsc::channel(1);
        let (end_sender, end) = watch::channel(None);
        let cause = Arc::new(Mutex::new(None));
        let terminate = CancellationToken::new();
        let conversation = Conversation {
            state: Arc::clone(state),
            server: server.clone(),
            name: Arc::clone(&name),
            cause: Arc::clone(&cause),
            heard,
        };
        tokio::spawn(conversation.run(outgoing, terminate.clone(), end_sender));
        (Self { name, outbox, cause, terminate, end }, events)
    }

    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        name.clone_into(&mut lock(&self.name));
    }

    /// Queues one message.
    pub(crate) fn write(&self, message: Bytes) -> Result<(), NotReading> {
        self.outbox.push(message)
    }

    /// Closes the connection, without waiting: that is how this transport ends a session. The first cause is the one that is
    /// recorded. Says whether there was anything to end.
    pub(crate) fn terminate(&self, cause: ExitCause) -> bool {
        lock(&self.cause).get_or_insert(cause);
        self.terminate.cancel();
        !self.has_ended()
    }

    /// Waits until the connection is gone.
    pub(crate) async fn ended(&self) -> Arc<End> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or_else(|| {
            let cause = lock(&self.cause).unwrap_or(ExitCause::ServerExited);
            Arc::new(End { cause, how: How::Disconnected("the connection to the server was lost".to_owned()) })
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.terminate(ExitCause::Shutdown);
    }
}

struct Conversation {
    state: Arc<State>,
    server: Server,
    name: Arc<Mutex<String>>,
    cause: Arc<Mutex<Option<ExitCause>>>,
    heard: mpsc::Sender<Result<Heard, LineError>>,
}

impl Conversation {
    async fn run(
        self,
        outgoing: mpsc::Receiver<Outgoing>,
        terminate: CancellationToken,
        end: watch::Sender<Option<Arc<End>>>,
    ) {
        let how = tokio::select! {
            how = self.converse(outgoing) => how,
            () = terminate.cancelled() => How::Disconnected("the bridge closed the connection to the server".to_owned()),
        };
        let cause = lock(&self.cause).unwrap_or(ExitCause::ServerExited);
        let ended = End { cause, how };
        self.record(&ended);
        end.send_replace(Some(Arc::new(ended)));
    }

    fn record(&self, end: &End) {
        let (session, cause) = (lock(&self.name).clone(), end.cause);
        let words = if cause == ExitCause::ServerExited { end.describe() } else { String::new() };
        tracing::info!(session, ?cause, reason = words, "a connection to the server ended");
        let (code, signal, last_stderr) = (None, None, words);
        self.state.exits.push(SessionExit { session, at: unix_millis(), cause, code, signal, last_stderr });
    }

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
        let response = response.map_err(|error| How::Unreachable(error.to_string()))?;
        let status = response.status();
        if status.is_redirection() {
            let what =
                format!("answered GET with {status}, and redirects are not followed: write the path that it leads to");
            return Err(self.not_sse(&what));
        }
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
        let mut decoder = Decoder::new(self.state.config.max_message_bytes);
        loop {
            let frame = match http_body_util::BodyExt::frame(&mut body).await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return How::Disconnected(format!("the server's event stream broke off: {error}")),
                None => return How::Disconnected("the server ended its event stream".to_owned()),
            };
            let Some(data) = frame.data_ref() else { continue };
            let Ok(events) = decoder.push_named(data) else { return self.too_long().await };
            for event in events {
                if endpoint::is_endpoint(&event) {
                    // It is named once: another would be for a session that this is not.
                    let Some(found) = found.take() else { continue };
                    match endpoint::resolve(self.server.endpoint(), &event.data) {
                        Ok(endpoint) => drop(found.send(endpoint)),
                        Err(message) => return How::NotSse(message),
                    }
                } else if event.is_message() && self.heard.send(Ok(Heard::Message(event.data.into()))).await.is_err() {
                    return How::Disconnected("nobody listens to the server any more".to_owned());
                }
            }
        }
    }

    async fn too_long(&self) -> How {
        lock(&self.cause).get_or_insert(ExitCause::MessageTooLong);
        let limit = self.state.config.max_message_bytes;
        // Whoever does not listen any more has ended it.
        let _ = self.heard.send(Err(LineError::TooLong { limit })).await;
        How::Disconnected(format!("the server sent an event of more than {limit} bytes"))
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
            let session = lock(&self.name).clone();
            let post = Post::new(&self.state, &server, session, outgoing, self.heard.clone());
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
