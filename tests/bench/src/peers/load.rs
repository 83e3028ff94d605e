//! Clients that do nothing else: each with a connection and a session of its own, every answer checked.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use portolan_mcp::revision::{self, LATEST_LEGACY};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;

use crate::mcp::{INITIALIZED, initialize, reply};
use crate::stats::percentile;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const MODERN: &str = revision::MODERN[0];
const LISTEN: &str = "subscriptions/listen";
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"portolan-bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
/// Length of a text that is said back.
const TEXT: usize = 64;
/// Longest exchange.
const LIMIT: Duration = Duration::from_secs(30);
/// Of an answer, before it is read: an answer of 1 MiB comes in few pieces.
const BUFFER: usize = 2 * 1024 * 1024;
/// Of what is not read, in bytes.
const NARROW: u32 = 16 * 1024;

/// Where calls go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The server behind it.
    pub(super) server: SocketAddr,
    pub(super) path: &'static str,
    /// Before the name of a tool.
    pub(super) prefix: &'static str,
    pub(super) key: Option<&'static str>,
}

/// How it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) tool: Tool,
    /// Whether answers come as events.
    pub(super) sse: bool,
    /// Whether it is asked in the era without sessions.
    pub(super) modern: bool,
}

impl Work {
    /// A short call in a session, answered as JSON.
    pub(super) const ECHO: Self = Self { tool: Tool::Echo, sse: false, modern: false };
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// A text of [`TEXT`] bytes, said back.
    Echo,
    /// A text of so many bytes.
    Blob(usize),
}

impl Tool {
    /// Of the text that it answers with.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Echo => TEXT,
            Self::Blob(bytes) => bytes,
        }
    }
}

/// One client.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: AbortHandle,
    headers: HeaderMap,
    target: Target,
    next: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    /// Connects, and opens a session where `work` needs one.
    pub(super) async fn open(target: &Target, work: Work) -> anyhow::Result<Self> {
        Self::connect(target).await?.prepared(work).await
    }

    /// The same on a socket that takes little of what is not read.
    pub(super) async fn open_narrow(target: &Target, work: Work) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(NARROW)?;
        Self::on(socket.connect(target.address).await?, target).await?.prepared(work).await
    }

    /// Connects.
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        Self::on(TcpStream::connect(target.address).await?, target).await
    }

    async fn prepared(mut self, work: Work) -> anyhow::Result<Self> {
        if work.modern {
            self.sessionless("tools/call");
            self.headers.insert(NAME, HeaderValue::from_str(&self.tool(work))?);
        } else {
            self.open_session().await?;
        }
        Ok(self)
    }

    /// As the era without sessions says what a request is about.
    fn sessionless(&mut self, method: &'static str) {
        self.headers.insert(VERSION, HeaderValue::from_static(MODERN));
        self.headers.insert(METHOD, HeaderValue::from_static(method));
    }

    async fn on(stream: TcpStream, target: &Target) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            // How it ended shows at the next request.
            let _ = connection.await;
        });
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&target.address.to_string())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(key) = target.key {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))?);
        }
        Ok(Self { sender, connection: connection.abort_handle(), headers, target: target.clone(), next: 1 })
    }

    /// Opens a session, which takes the place of the one before.
    pub(super) async fn open_session(&mut self) -> anyhow::Result<()> {
        self.headers.remove(SESSION);
        self.headers.remove(VERSION);
        let answer = self.exchange(Method::POST, initialize()).await?;
        let text = text_of(&answer)?;
        ensure!(answer.status == StatusCode::OK, "initialize: HTTP {}: {}", answer.status, reply::start(text));
        reply::result(text, "0")?;
        if let Some(name) = answer.headers.get(SESSION) {
            self.headers.insert(SESSION, name.clone());
        }
        self.headers.insert(VERSION, HeaderValue::from_static(LATEST_LEGACY));
        let answer = self.exchange(Method::POST, INITIALIZED.to_owned()).await?;
        ensure!(answer.status.is_success(), "notifications/initialized: HTTP {}", answer.status);
        Ok(())
    }

    /// Opens the session's standing stream and leaves it open.
    pub(super) async fn listen(&mut self) -> anyhow::Result<Incoming> {
        self.start(Method::GET, String::new()).await
    }

    /// Opens a stream of changes and leaves it open.
    pub(super) async fn subscribe(&mut self) -> anyhow::Result<Incoming> {
        self.sessionless(LISTEN);
        self.next += 1;
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"{LISTEN}","params":{{"notifications":{{"toolsListChanged":true}},{META}}}}}"#,
            self.next
        );
        self.start(Method::POST, request).await
    }

    async fn call(&mut self, work: Work, text: &str) -> anyhow::Result<()> {
        let request = self.message(work, text);
        let answer = self.exchange(Method::POST, request).await?;
        let body = text_of(&answer)?;
        ensure!(answer.status == StatusCode::OK, "HTTP {}: {}", answer.status, reply::start(body));
        let result = reply::result(body, &self.next.to_string())?;
        match work.tool {
            Tool::Echo => reply::check_echo(result, text),
            Tool::Blob(bytes) => reply::check_length(result, bytes),
        }
    }

    /// Calls, and leaves unread what is answered.
    pub(super) async fn begin(&mut self, work: Work) -> anyhow::Result<Incoming> {
        let message = self.message(work, "");
        self.start(Method::POST, message).await
    }

    /// Calls, and tells whether that is answered with an error.
    pub(super) async fn fails(&mut self, work: Work) -> anyhow::Result<bool> {
        let request = self.message(work, "");
        let answer = self.exchange(Method::POST, request).await?;
        let said = reply::result(text_of(&answer)?, &self.next.to_string());
        Ok(answer.status != StatusCode::OK || said.and_then(|result| reply::check_echo(result, "")).is_err())
    }

    /// The next call.
    fn message(&mut self, work: Work, text: &str) -> String {
        self.next += 1;
        let id = self.next;
        let name = self.tool(work);
        let sse = if work.sse { r#","sse":true"# } else { "" };
        let arguments = match work.tool {
            Tool::Echo => format!(r#""message":"{text}"{sse}"#),
            Tool::Blob(bytes) => format!(r#""bytes":{bytes}{sse}"#),
        };
        let (comma, meta) = if work.modern { (",", META) } else { ("", "") };
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{{{arguments}}}{comma}{meta}}}}}"#
        )
    }

    fn tool(&self, work: Work) -> String {
        let name = match work.tool {
            Tool::Echo => "echo",
            Tool::Blob(_) => "blob",
        };
        format!("{}{name}", self.target.prefix)
    }

    fn request(&self, method: Method, body: String) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = self.target.path.parse()?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// Until the answer begins.
    async fn start(&mut self, method: Method, body: String) -> anyhow::Result<Incoming> {
        let request = self.request(method, body)?;
        self.sender.ready().await?;
        let answer =
            tokio::time::timeout(LIMIT, self.sender.send_request(request)).await.context("no answer in time")??;
        ensure!(answer.status() == StatusCode::OK, "HTTP {}", answer.status());
        Ok(answer.into_body())
    }

    async fn exchange(&mut self, method: Method, body: String) -> anyhow::Result<Answer> {
        let request = self.request(method, body)?;
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {LIMIT:?}"),
        }
    }
}

fn text_of(answer: &Answer) -> anyhow::Result<&str> {
    std::str::from_utf8(&answer.body).context("the answer is not UTF-8")
}

/// What clients saw.
pub(super) struct Seen {
    /// Of each call.
    pub(super) latencies: Vec<Duration>,
    pub(super) took: Duration,
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    pub(super) fn calls(&self) -> f64 {
        self.latencies.len() as f64
    }

    /// Calls per second.
    pub(super) fn rps(&self) -> f64 {
        self.calls() / self.took.as_secs_f64()
    }

    /// What `share` (0 to 1) of the calls did not exceed, in microseconds.
    pub(super) fn at(&self, share: f64) -> f64 {
        percentile(&self.latencies, share).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// So many clients, each with a session where `work` needs one.
pub(super) async fn clients(target: &Target, work: Work, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Client::open(target, work).await?);
    }
    Ok(clients)
}

/// Calls for so long, each client as soon as its last call was answered. Any call that fails ends it.
pub(super) async fn call(clients: &mut [Client], work: Work, lasting: Duration) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let number = Cell::new(0_u64);
    let workers = clients.iter_mut().map(|client| async {
        let mut latencies = Vec::new();
        while began.elapsed() < lasting {
            number.set(number.get() + 1);
            let text = format!("{:.<TEXT$}", format!("{}-", number.get()));
            let sent = Instant::now();
            client.call(work, &text).await?;
            latencies.push(sent.elapsed());
        }
        anyhow::Ok(latencies)
    });
    let latencies = try_join_all(workers).await?.into_iter().flatten().collect();
    Ok(Seen { latencies, took: began.elapsed() })
}
