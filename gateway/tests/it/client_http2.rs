//! An HTTP/2 client that sends exactly what a test says, on one connection.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::client::{Answer, call, initialize, soon};
use crate::world::{ALICE, ROUTE};

/// One connection.
pub struct Connection {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A request's headers, each changeable.
#[derive(Clone)]
pub struct Client {
    pub requests: SendRequest<Bytes>,
    authority: String,
    headers: HeaderMap,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &Builder::new()).await
    }

    pub async fn open_with(address: SocketAddr, builder: &Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        let (requests, connection) = soon(builder.handshake(stream)).await.expect("speaks HTTP/2");
        Self { requests, driver: tokio::spawn(connection) }
    }

    /// A client with Alice's key.
    pub fn client(&self) -> Client {
        let client =
            Client { requests: self.requests.clone(), authority: "localhost".into(), headers: HeaderMap::new() };
        client
            .with("authorization", &format!("Bearer {ALICE}"))
            .with("accept", "application/json, text/event-stream")
            .with("content-type", "application/json")
            .with("te", "trailers")
    }
}

impl Client {
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("a value"));
        self
    }

    pub fn and(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("a value"));
        self
    }

    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    pub fn session(self, session: &str) -> Self {
        self.with("mcp-session-id", session)
    }

    /// Sends a request; the answer is there when its head is.
    pub async fn begin(&self, method: Method, path: &str, body: impl Into<Bytes>) -> ResponseFuture {
        let body: Bytes = body.into();
        let (answer, mut stream) = self.begin_body(method, path).await;
        stream.send_data(body, true).expect("is sent");
        answer
    }

    /// Sends a request's head.
    pub async fn begin_body(&self, method: Method, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = soon(self.requests.clone().ready()).await.expect("the connection is open");
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri).body(()).expect("a request");
        *request.headers_mut() = self.headers.clone();
        requests.send_request(request, false).expect("is sent")
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer, h2::Error> {
        let (parts, mut body) = soon(self.begin(method, path, body).await).await?.into_parts();
        let bytes = read_to_end(&mut body).await?;
        assert_eq!(soon(body.trailers()).await?, None, "what is between gateway and bridge stays there");
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, body).await.expect("an answer")
    }

    pub async fn initialize(&self) -> String {
        let answer = self.post(ROUTE, initialize()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("mcp-session-id").expect("a session").into()
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.post(ROUTE, call(tool, arguments)).await
    }
}

async fn read_to_end(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = soon(body.data()).await {
        let data = data?;
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(bytes.into())
}

/// Reads until the body holds `text`.
pub async fn read_until(body: &mut RecvStream, text: &str) {
    let mut read = String::new();
    while !read.contains(text) {
        let data = soon(body.data()).await.expect("more to come").expect("not broken");
        read += std::str::from_utf8(&data).expect("text");
        body.flow_control().release_capacity(data.len()).expect("was taken");
    }
}

/// Why a stream broke off.
pub async fn broke(body: &mut RecvStream) -> Option<Reason> {
    loop {
        match soon(body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.reason(),
            None => return None,
        }
    }
}
