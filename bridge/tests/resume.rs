//! Streams of a streamable HTTP server that broke off are the server's own to resume: it hears from which event on, and
//! what it sends then is what its client gets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::{Client, Header, PATIENCE, Rig, chunk};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const LAST: HeaderName = HeaderName::from_static("last-event-id");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Ids of events. A server's own are any text without line breaks.
const IDS: [&str; 3] = ["b-1", "0/=;,\"%20 x", "größe-1"];
/// What comes on a stream that is resumed.
const REST: &str = "retry: 1500\nid: b-2\nevent: message\n\
    data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"n\":1e400}}\n\n: a comment\n\n\
    x-unknown:  twice \r\nid: b-3\r\ndata: {\"jsonrpc\" : \"2.0\",\r\ndata:\"id\":7,\"result\":{\"content\":[]}}\r\n\r\n";

/// A request of a client that is answered with a stream.
struct Asked {
    method: Method,
    last: Vec<String>,
    sessions: Vec<String>,
    /// What is sent here comes on that stream, byte for byte. It ends when this is dropped.
    stream: mpsc::Sender<Bytes>,
}

impl Asked {
    async fn send(&self, text: &str) {
        // As long as a chunk of HTTP is not an event.
        for piece in text.as_bytes().chunks(7) {
            self.stream.send(Bytes::copy_from_slice(piece)).await.expect("somebody reads");
        }
    }
}

/// A server with sessions; it ends with the test's runtime.
struct Server {
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (asks, asked) = mpsc::channel(8);
        let sessions = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("a socket");
                let (asks, sessions) = (asks.clone(), Arc::clone(&sessions));
                let service = service_fn(move |request| {
                    let (asks, sessions) = (asks.clone(), Arc::clone(&sessions));
                    async move { Ok::<_, Infallible>(answer(request, &asks, &sessions).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, asked }
    }

    /// A bridge in front of it, which is ready.
    async fn bridged(&self) -> Rig {
        let rig = Rig::http(&["--request-timeout", "60s"], &format!("http://{}/mcp", self.address));
        rig.until_ready().await;
        rig
    }

    /// The next request of a client.
    async fn next(&mut self) -> Asked {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("in time").expect("it runs")
    }

    /// The next one, which has to be a GET of the client whose session is `session`, from `last` on.
    async fn resumed(&mut self, session: &str, last: Option<&str>) -> Asked {
        let asked = self.next().await;
        let (lasts, sessions) = (asked.last.iter().map(String::as_str), asked.sessions.iter().map(String::as_str));
        assert_eq!(asked.method, Method::GET);
        assert_eq!(lasts.collect::<Vec<_>>(), last.into_iter().collect::<Vec<_>>());
        assert_eq!(sessions.collect::<Vec<_>>(), [session]);
        asked
    }
}

/// The name of the session that was the `nth` to be opened by a client.
fn session(nth: usize) -> String {
    format!("client-{nth}~!\"=")
}

async fn answer(request: Request<Incoming>, asks: &mpsc::Sender<Asked>, sessions: &AtomicUsize) -> Response<Body> {
    let (head, body) = request.into_parts();
    let message: Value = serde_json::from_slice(&body.collect().await.expect("a body").to_bytes()).unwrap_or_default();
    let values = |name| {
        let values = head.headers.get_all(name).into_iter();
        values.map(|value| String::from_utf8(value.as_bytes().to_vec()).expect("text")).collect::<Vec<_>>()
    };
    let is_clients = values(SESSION).iter().any(|session| session.starts_with("client"));
    let is_answered_with_a_stream = head.method == Method::GET || message["method"] == "tools/call";
    if is_clients && is_answered_with_a_stream {
        let (stream, frames) = mpsc::channel(64);
        let asked = Asked { method: head.method.clone(), last: values(LAST), sessions: values(SESSION), stream };
        asks.send(asked).await.expect("the test runs");
        let frames = futures::stream::unfold(frames, |mut frames: mpsc::Receiver<Bytes>| async {
            Some((Ok(Frame::data(frames.recv().await?)), frames))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        return response.body(StreamBody::new(frames).boxed_unsync()).expect("a response");
    }
    let mut response = Response::new(Full::default().boxed_unsync());
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "resumes", "version": "1"}}),
        Some("tools/list") => json!({"tools": []}),
        Some(_) if message["id"].is_null() => {
            *response.status_mut() = StatusCode::ACCEPTED;
            return response;
        }
        _ => {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return response;
        }
    };
    if message["method"] == "initialize" {
        let is_clients = message["params"]["clientInfo"]["name"] == "test";
        let name = if is_clients { session(sessions.fetch_add(1, Ordering::Relaxed)) } else { "the-probe".to_owned() };
        response.headers_mut().insert(SESSION, name.parse().expect("a value"));
    }
    response.headers_mut().insert("content-type", "application/json".parse().expect("a type"));
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    *response.body_mut() = Full::from(answer).boxed_unsync();
    response
}

/// Resumes after the event `last`. What the client says of a session of its own is not the server's.
async fn resume(client: &Client<'_>, last: &str) -> Response<Incoming> {
    let headers: [Header; 2] = [(LAST, last.to_owned()), (SESSION, session(99))];
    let response = client.stream(&headers).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response
}

/// Reads until `text` has come.
async fn read(stream: &mut Response<Incoming>, text: &str) {
    let mut came = String::new();
    while came.len() < text.len() {
        came += &chunk(stream).await.unwrap_or_else(|| panic!("the stream ended after {came:?}"));
    }
    assert_eq!(came, text);
}

/// Reads to the end.
async fn rest(stream: &mut Response<Incoming>) -> String {
    let mut came = String::new();
    while let Some(more) = chunk(stream).await {
        came += &more;
    }
    came
}

/// What a server says first on a stream that can be resumed.
fn place(id: &str) -> String {
    format!("retry: 50\nid: {id}\ndata: \n\n")
}

#[tokio::test]
async fn a_call_whose_connection_broke_is_resumed_at_its_server_after_the_very_event_that_its_client_saw_last() {
    let mut server = Server::start().await;
    let rig = server.bridged().await;
    let clients = [rig.open().await, rig.open().await];
    for id in IDS {
        // The one that was opened last goes first: nobody's session is simply the latest.
        for (nth, client) in clients.iter().enumerate().rev() {
            let mut call = client.start(7, "x", &[]).await;
            let asked = server.next().await;
            assert_eq!((asked.method.clone(), asked.last.len()), (Method::POST, 0));
            asked.send(&place(id)).await;
            read(&mut call, &place(id)).await;
            drop(call);
            let left = tokio::time::timeout(PATIENCE, asked.stream.closed()).await;
            assert!(left.is_ok(), "the bridge holds on to a stream that nobody reads");
            let mut resumed = resume(client, id).await;
            let asked = server.resumed(&session(nth), Some(id)).await;
            asked.send(REST).await;
            drop(asked);
            assert_eq!(rest(&mut resumed).await, REST);
        }
    }
}

#[tokio::test]
async fn a_call_whose_stream_its_server_closed_is_left_to_its_client_who_resumes_it_there_as_often_as_it_takes() {
    let mut server = Server::start().await;
    let rig = server.bridged().await;
    let client = rig.open().await;
    let mut stream = client.start(7, "x", &[]).await;
    let mut asked = server.next().await;
    for id in IDS {
        asked.send(&place(id)).await;
        drop(asked);
        assert_eq!(rest(&mut stream).await, place(id), "nobody answers in the server's stead");
        stream = resume(&client, id).await;
        asked = server.resumed(&session(0), Some(id)).await;
    }
    asked.send(REST).await;
    drop(asked);
    assert_eq!(rest(&mut stream).await, REST);
}

#[tokio::test]
async fn a_standing_stream_that_broke_is_resumed_at_its_server_after_the_very_event_that_its_client_saw_last() {
    let mut server = Server::start().await;
    let rig = server.bridged().await;
    let clients = [rig.open().await, rig.open().await];
    for (nth, client) in clients.iter().enumerate().rev() {
        let mut stream = client.stream(&[]).await;
        let mut asked = server.resumed(&session(nth), None).await;
        for id in IDS {
            asked.send(&place(id)).await;
            read(&mut stream, &place(id)).await;
            drop(stream);
            let left = tokio::time::timeout(PATIENCE, asked.stream.closed()).await;
            assert!(left.is_ok(), "the bridge holds on to a stream that nobody reads");
            stream = resume(client, id).await;
            asked = server.resumed(&session(nth), Some(id)).await;
        }
        asked.send(REST).await;
        drop(asked);
        assert_eq!(rest(&mut stream).await, REST);
    }
}
