//! An HTTP client that sends exactly what a test says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::world::ROUTE;

/// Longest wait for anything: a test that would hang fails.
const LIMIT: Duration = Duration::from_secs(20);

/// A number of a test, as it is in every run or as the environment says.
pub fn sized(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number"))
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Awaits `future`, which must not take for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

/// Requests with the headers that an MCP client sends, each changeable.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
    /// Requests sent, by every clone of this client.
    sent: Arc<AtomicUsize>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("text")
    }

    /// The answer: a body of JSON, or the last message of a stream of events.
    pub fn json(&self) -> Value {
        let text = self.text();
        let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).rfind(|data| !data.is_empty());
        let is_events = self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        let json = last.filter(|_| is_events).unwrap_or(&text);
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    _connection: AbortOnDropHandle<()>,
}

impl Streaming {
    /// Reads until the body holds `text`.
    pub async fn read_until(&mut self, text: &str) {
        let read = async {
            while !self.text.contains(text) {
                let frame = self.body.frame().await.expect("more to come").expect("not broken");
                self.text += std::str::from_utf8(&frame.into_data().expect("data")).expect("text");
            }
        };
        let came = tokio::time::timeout(LIMIT, read).await;
        assert!(came.is_ok(), "{text:?} did not come: {:?}", self.text);
    }

    /// What was read so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads until there are that many lines, and returns all that came.
    pub async fn read_lines(&mut self, count: usize) -> String {
        while self.text.matches('\n').count() < count {
            let frame = soon(self.body.frame()).await.expect("more to come").expect("not broken");
            self.text += std::str::from_utf8(&frame.into_data().expect("data")).expect("text");
        }
        self.text.clone()
    }

    /// Reads to the end: what came, and whether it ended as it should.
    pub async fn read_to_end(mut self) -> (String, bool) {
        while let Some(frame) = soon(self.body.frame()).await {
            let Ok(frame) = frame else { return (self.text, false) };
            if let Ok(data) = frame.into_data() {
                self.text += std::str::from_utf8(&data).expect("text");
            }
        }
        (self.text, true)
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let headers = [("host", "localhost"), ("accept", "application/json, text/event-stream")];
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { address, headers, sent: Arc::default() }
    }

    /// Counts what it sends in `sent` too.
    pub fn counted(mut self, sent: &Arc<AtomicUsize>) -> Self {
        self.sent = sent.clone();
        self
    }

    /// Sends `name` as `value` instead of what it was.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends `name` once more.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// What it sends as `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn key(self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    pub fn session(self, session: &str) -> Self {
        self.with("mcp-session-id", session)
    }

    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let client = if self.headers.iter().any(|(name, _)| name == "content-type") {
            self.clone()
        } else {
            self.clone().with("content-type", "application/json")
        };
        client.send(Method::POST, path, body).await
    }

    /// Opens a session and returns its id.
    pub async fn initialize(&self) -> String {
        let answer = self.post(ROUTE, initialize()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("mcp-session-id").expect("a session").into()
    }

    /// Calls a tool in the session that this client names.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.post(ROUTE, call(tool, arguments)).await
    }

    /// Sends a POST with the first `sent` bytes of a body of a megabyte, as far as they are taken.
    pub async fn half_a_body(&self, path: &str, sent: usize) -> (TcpStream, io::Result<()>) {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let written = self.write(&mut stream, path, 1 << 20, &vec![b' '; sent]).await;
        (stream, written)
    }

    /// Sends a POST and reads nothing of its answer. The client's own buffers are small.
    pub async fn unread(&self, path: &str, body: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("is set");
        let mut stream = socket.connect(self.address).await.expect("connects");
        self.write(&mut stream, path, body.len(), body.as_bytes()).await.expect("is open");
        stream
    }

    async fn write(&self, stream: &mut TcpStream, path: &str, length: usize, body: &[u8]) -> io::Result<()> {
        let mut head = format!("POST {path} HTTP/1.1\r\ncontent-length: {length}\r\n");
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        // In one piece: on a busy machine the second of two comes later than a body may.
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let Streaming { status, headers, body, _connection, .. } = self.open(method, path, body).await;
        let body = soon(body.collect()).await.expect("a whole body").to_bytes();
        Answer { status, headers, body }
    }

    /// Sends a request and returns with the answer's head.
    pub async fn open(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Streaming {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("speaks HTTP");
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // A connection that breaks shows in the answer.
            let _ended = connection.await;
        }));
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let response = soon(sender.send_request(request)).await.expect("an answer");
        let (parts, body) = response.into_parts();
        Streaming {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            text: String::new(),
            _connection: connection,
        }
    }
}

pub fn initialize() -> String {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
    })
    .to_string()
}

#[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
pub fn call(tool: &str, arguments: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
        .to_string()
}
