//! A streamable HTTP server that does what a test tells it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How `initialize` is answered.
#[derive(Clone)]
pub enum Opens {
    /// With a result.
    Well,
    /// With this type and body.
    With(&'static str, String),
    /// With these events, after which the stream stays open; who holds the other end hears when it does not.
    Staying(String, mpsc::Sender<()>),
    /// With a result, once this says so.
    Once(watch::Receiver<bool>),
    /// Never.
    Never,
}

/// A running fixture; it ends with the test's runtime.
pub struct Fixture {
    pub address: SocketAddr,
    /// What is sent here comes on the stream that was opened last, byte for byte.
    pub events: watch::Receiver<Option<mpsc::UnboundedSender<Bytes>>>,
    /// Lets every call be answered, with what is sent here: status, type and body.
    pub calls: watch::Sender<Option<(StatusCode, &'static str, String)>>,
    /// How `initialize` is answered from now on.
    pub opens: watch::Sender<Opens>,
    /// The most goodbyes that were under way at a time.
    pub goodbyes: watch::Receiver<usize>,
    /// Goodbyes that came, all together.
    pub ended: watch::Receiver<usize>,
    /// Methods of the messages that came.
    pub said: watch::Receiver<Vec<String>>,
}

struct Shared {
    sessions: AtomicUsize,
    events: watch::Sender<Option<mpsc::UnboundedSender<Bytes>>>,
    calls: watch::Receiver<Option<(StatusCode, &'static str, String)>>,
    opens: watch::Receiver<Opens>,
    leaving: AtomicUsize,
    most: watch::Sender<usize>,
    ended: watch::Sender<usize>,
    said: watch::Sender<Vec<String>>,
    /// How many goodbyes must be under way before one is answered.
    together: usize,
}

impl Fixture {
    /// A server that answers no goodbye before `together` of them are under way.
    pub async fn start(together: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (events, most, ended) = (watch::Sender::new(None), watch::Sender::new(0), watch::Sender::new(0));
        let calls = watch::Sender::new(None);
        let opens = watch::Sender::new(Opens::Well);
        let (answers, openings) = (calls.subscribe(), opens.subscribe());
        let (goodbyes, told) = (most.subscribe(), ended.subscribe());
        let said = watch::Sender::new(Vec::new());
        let heard = said.subscribe();
        let fixture = Self { calls, opens, address, events: events.subscribe(), goodbyes, ended: told, said: heard };
        let (sessions, leaving) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            calls: answers,
            opens: openings,
            sessions,
            events,
            leaving,
            most,
            ended,
            said,
            together,
        });
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        fixture
    }

    /// Waits for a stream and what writes to it.
    pub async fn stream(&mut self) -> mpsc::UnboundedSender<Bytes> {
        self.events.wait_for(Option::is_some).await.expect("it runs").clone().expect("opened")
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::GET => {
                #[expect(clippy::disallowed_methods, reason = "a test sends a handful of events")]
                let (sender, receiver) = mpsc::unbounded_channel();
                self.events.send_replace(Some(sender));
                let frames = futures::stream::unfold(receiver, |mut receiver| async {
                    Some((Ok(Frame::data(receiver.recv().await?)), receiver))
                });
                respond("text/event-stream", StreamBody::new(frames).boxed_unsync())
            }
            Method::DELETE => {
                let _leaving = Leaving::new(self);
                self.ended.send_modify(|ended| *ended += 1);
                let mut most = self.most.subscribe();
                let _ = most.wait_for(|most| *most >= self.together).await;
                status(StatusCode::OK)
            }
            _ => {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let message: Value = serde_json::from_slice(&body).expect("JSON");
                let method = message["method"].as_str().unwrap_or_default().to_owned();
                self.said.send_modify(|said| said.push(method));
                if message["method"] == "tools/call" { self.call().await } else { self.post(&message).await }
            }
        }
    }

    async fn call(&self) -> Response<Body> {
        let mut calls = self.calls.clone();
        let (status, kind, body) = calls.wait_for(Option::is_some).await.expect("it runs").clone().expect("told");
        let mut response = respond(kind, Full::from(body).boxed_unsync());
        *response.status_mut() = status;
        response
    }

    async fn post(&self, message: &Value) -> Response<Body> {
        let opens = self.opens.borrow().clone();
        let result = match message["method"].as_str() {
            Some("initialize") => match opens {
                Opens::Well => well(),
                Opens::Once(mut gate) => {
                    gate.wait_for(|open| *open).await.expect("the test runs");
                    well()
                }
                Opens::With(kind, body) => return self.named(respond(kind, Full::from(body).boxed_unsync())),
                Opens::Staying(events, open) => {
                    let events = futures::stream::iter([Ok(Frame::data(Bytes::from(events)))]);
                    let stays = futures::stream::once(async move {
                        let _open = open;
                        std::future::pending().await
                    });
                    let body = StreamBody::new(events.chain(stays)).boxed_unsync();
                    return self.named(respond("text/event-stream", body));
                }
                Opens::Never => std::future::pending().await,
            },
            Some("tools/list") => json!({"tools": []}),
            _ => return status(StatusCode::ACCEPTED),
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        self.named(respond("application/json", Full::from(answer).boxed_unsync()))
    }

    /// Names a session in the head of an answer.
    fn named(&self, mut response: Response<Body>) -> Response<Body> {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        response.headers_mut().insert("mcp-session-id", id.into());
        response
    }
}

/// Counts a goodbye for as long as somebody waits for its answer.
struct Leaving<'s>(&'s Shared);

impl<'s> Leaving<'s> {
    fn new(shared: &'s Shared) -> Self {
        let now = shared.leaving.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most.send_modify(|most| *most = now.max(*most));
        Self(shared)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

fn well() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
        "serverInfo": {"name": "fixture", "version": "1"}})
}

fn respond(kind: &'static str, body: Body) -> Response<Body> {
    Response::builder().header("content-type", kind).body(body).expect("a response")
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Full::default().boxed_unsync()).expect("a response")
}
