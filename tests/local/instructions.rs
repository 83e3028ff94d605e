//! What a call costs the gateway, in instructions: a number that no busy machine changes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_tests::api_server::ApiServer;
use portolan_tests::objects::{ALICE, Objects, Pod};
use portolan_tests::paths;
use portolan_tests::replica::Replica;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Calls that are counted.
const CALLS: u32 = 300;
/// Calls before, which set up what lasts.
const BEFORE: u32 = 50;

/// The most that a call may cost. Whoever lowers a cost lowers its bound; whoever raises one says why.
const IN_A_SESSION: f64 = 152_000.0;
/// The same without sessions.
const WITHOUT_SESSIONS: f64 = 158_000.0;
/// How much more it may be with a thousand servers than with one.
const GROWTH: f64 = 1.05;

#[tokio::test]
async fn a_call_costs_the_gateway_no_more_than_it_did_and_no_more_with_a_thousand_servers_than_with_one() {
    let pod = Answering::start().await;
    let alone = Costs::with_servers(&pod, 1).await;
    let among_many = Costs::with_servers(&pod, 1_000).await;
    println!("instructions a call: {alone:?} with one server, {among_many:?} with a thousand");
    assert!(alone.in_a_session <= IN_A_SESSION, "{} in a session", alone.in_a_session);
    assert!(alone.without_sessions <= WITHOUT_SESSIONS, "{} without sessions", alone.without_sessions);
    assert!(among_many.in_a_session <= GROWTH * alone.in_a_session, "{alone:?} {among_many:?}");
    assert!(among_many.without_sessions <= GROWTH * alone.without_sessions, "{alone:?} {among_many:?}");
}

/// Instructions of the gateway for one call.
#[derive(Debug)]
struct Costs {
    in_a_session: f64,
    without_sessions: f64,
}

impl Costs {
    async fn with_servers(pod: &Answering, count: usize) -> Self {
        let names = (0..count).map(|number| &*Box::leak(format!("server-{number}").into_boxed_str()));
        let pod: &dyn Pod = pod;
        let servers: Vec<(&'static str, &[&dyn Pod])> = names.map(|name| (name, std::slice::from_ref(&pod))).collect();
        let api = ApiServer::start(Objects::of(&servers).inputs()).await;
        let mut gateway = Replica::counted(&paths::binary("portolan"), api.address).await;
        let url = format!("http://{}/default/server-0/mcp", gateway.address);
        let costs = Self {
            in_a_session: cost(&gateway, &Client::with_session(&url).await).await,
            without_sessions: cost(&gateway, &Client::without_sessions(&url)).await,
        };
        gateway.assert_well().await;
        costs
    }
}

async fn cost(gateway: &Replica, client: &Client) -> f64 {
    client.call(BEFORE).await;
    gateway.instructions(client.call(CALLS)).await / f64::from(CALLS)
}

struct Client {
    http: reqwest::Client,
    url: String,
    headers: HeaderMap,
    meta: Value,
}

impl Client {
    fn new(url: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {ALICE}")).expect("a value"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        Self { http: reqwest::Client::new(), url: url.to_owned(), headers, meta: json!({}) }
    }

    async fn with_session(url: &str) -> Self {
        let mut client = Self::new(url);
        let params =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let answer = client.post("initialize", params).await;
        let session = answer.headers().get("mcp-session-id").expect("a session").clone();
        client.headers.insert("mcp-session-id", session);
        client.headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
        client
    }

    fn without_sessions(url: &str) -> Self {
        let mut client = Self::new(url);
        client.headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        client.headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        client.headers.insert("mcp-name", HeaderValue::from_static("echo"));
        client.meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        client
    }

    async fn post(&self, method: &str, params: Value) -> reqwest::Response {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = self.http.post(&self.url).headers(self.headers.clone()).body(message);
        request.send().await.expect("an answer")
    }

    async fn call(&self, times: u32) {
        for _ in 0..times {
            let params = json!({"name": "echo", "arguments": {"message": "a text of some words"}, "_meta": self.meta});
            let answer = self.post("tools/call", params).await;
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
            answer.bytes().await.expect("whole");
        }
    }
}

/// Answers in a bridge's place, always the same.
struct Answering {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Pod for Answering {
    fn uid(&self) -> &str {
        "uid-1"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Answering {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.expect("accepts");
                // A gateway lets go of its connections when it likes.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    request.into_body().collect().await.expect("a body");
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a text of some words"}]}}"#;
    let mut response = Response::new(Full::new(Bytes::from_static(result.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
