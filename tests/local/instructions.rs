//! What a call costs the gateway, in instructions: a number that no busy machine changes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use portolan_tests::api_server::ApiServer;
use portolan_tests::mcp::{self, Reply, Session};
use portolan_tests::objects::{ALICE, Objects, Pod};
use portolan_tests::paths;
use portolan_tests::replica::Replica;
use portolan_tests::serve::serve;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Calls that are counted.
const CALLS: u32 = 300;
/// Calls before, which set up what lasts.
const BEFORE: u32 = 50;

/// The most that a call may cost. Whoever lowers a cost lowers its bound; whoever raises one says why.
const IN_A_SESSION: f64 = 135_000.0;
/// The same without sessions.
const WITHOUT_SESSIONS: f64 = 143_000.0;
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
        let session = Session::open(&url, Some(ALICE)).await.expect("a session");
        let costs = Self {
            in_a_session: cost(&gateway, &Client::InSession(session)).await,
            without_sessions: cost(&gateway, &Client::Alone(mcp::http(), url)).await,
        };
        gateway.assert_well().await;
        costs
    }
}

async fn cost(gateway: &Replica, client: &Client) -> f64 {
    client.call(BEFORE).await;
    gateway.instructions(client.call(CALLS)).await / f64::from(CALLS)
}

/// A client of either era.
enum Client {
    InSession(Session),
    Alone(reqwest::Client, String),
}

impl Client {
    async fn call(&self, times: u32) {
        for id in 1..=times {
            let params = json!({"name": "echo", "arguments": {"message": "a text of some words"}});
            let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
            let answer = match self {
                Self::InSession(session) => session.send(&message).await.expect("an answer"),
                Self::Alone(http, url) => mcp::post_alone(http, url, Some(ALICE), message).await.expect("an answer"),
            };
            let reply = Reply::read(answer).await;
            assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.messages);
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
        Self { address, _task: serve(socket, answer) }
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let asked = request.into_body().collect().await.expect("a body").to_bytes();
    let mut response = Response::new(Full::default());
    let asked: Value = serde_json::from_slice(&asked).expect("a message");
    if asked["id"].is_null() {
        *response.status_mut() = StatusCode::ACCEPTED;
        return response;
    }
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a text of some words"}]}}"#;
    *response.body_mut() = Full::from(result);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
