//! What a request costs the gateway, in instructions: a number that no busy machine changes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Requests that are counted.
const COUNTED: u32 = 300;
/// Requests before, which set up what lasts.
const BEFORE: u32 = 50;
/// How often to count anew where the gateway was about something else meanwhile.
const ATTEMPTS: u32 = 5;

/// The most that a call may cost. Whoever lowers a cost lowers its bound; whoever raises one says why.
const IN_A_SESSION: f64 = 124_000.0;
/// The same without sessions.
const WITHOUT_SESSIONS: f64 = 135_000.0;
/// The same of calls to all servers, in a session with them and without.
const OF_ALL_IN_A_SESSION: f64 = 161_000.0;
const OF_ALL_WITHOUT_SESSIONS: f64 = 185_000.0;
/// How much more a request may cost among many servers than with one.
const GROWTH: f64 = 1.05;

#[tokio::test]
async fn a_call_costs_the_gateway_no_more_than_it_did_and_no_more_with_a_thousand_servers_than_with_one() {
    let alone = calls(1).await;
    let among_many = calls(1_000).await;
    println!("instructions a call: {alone:?} with one server, {among_many:?} with a thousand");
    for (cost, most) in alone.iter().zip([IN_A_SESSION, WITHOUT_SESSIONS, OF_ALL_IN_A_SESSION, OF_ALL_WITHOUT_SESSIONS])
    {
        assert!(*cost <= most, "{alone:?}");
    }
    assert!(grew_little(&alone, &among_many), "{alone:?} {among_many:?}");
}

/// A list of all servers is put together once. That of a hundred is longer, and whoever asks for it pays for no more.
#[tokio::test]
async fn a_list_of_a_hundred_servers_costs_the_gateway_no_more_than_that_of_one() {
    let alone = lists(1).await;
    let of_many = lists(100).await;
    println!("instructions a list: {alone:?} with one server, {of_many:?} with a hundred");
    assert!(grew_little(&alone, &of_many), "{alone:?} {of_many:?}");
}

fn grew_little(alone: &[f64], among_many: &[f64]) -> bool {
    alone.iter().zip(among_many).all(|(alone, among_many)| *among_many <= GROWTH * alone)
}

/// What a call costs: at a server's own endpoint in a session and without, and the same at that of all servers.
async fn calls(servers: usize) -> Vec<f64> {
    let world = World::start(servers).await;
    let own = world.clients("default/server-0/mcp").await;
    let all = world.clients("mcp").await;
    let call = |name: &str| {
        let params = json!({"name": name, "arguments": {"message": "a text of some words"}});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    };
    let mut costs = Vec::new();
    for (clients, name) in [(own, "echo"), (all, "default__server-0__echo")] {
        for client in clients {
            costs.push(world.cost(&client, &call(name)).await);
        }
    }
    world.end().await;
    costs
}

/// What a list of all servers costs, in a session and without.
async fn lists(servers: usize) -> Vec<f64> {
    let world = World::start(servers).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let mut costs = Vec::new();
    for client in world.clients("mcp").await {
        costs.push(world.cost(&client, &list).await);
        let answer = client.ask(&list).await;
        let tools = answer["result"]["tools"].as_array().expect("a list");
        assert_eq!(tools.len(), servers);
    }
    world.end().await;
    costs
}

/// A gateway whose instructions are counted, and the pod behind all of its servers.
struct World {
    pod: Answering,
    gateway: Replica,
    servers: usize,
    _api: ApiServer,
}

impl World {
    async fn start(servers: usize) -> Self {
        let pod = Answering::start().await;
        let names = (0..servers).map(|number| &*Box::leak(format!("server-{number}").into_boxed_str()));
        let pods: &[&dyn Pod] = &[&pod];
        let objects: Vec<(&'static str, &[&dyn Pod])> = names.map(|name| (name, pods)).collect();
        let api = ApiServer::start(Objects::of(&objects).inputs()).await;
        let gateway = Replica::counted(&paths::binary("portolan"), api.address).await;
        Self { pod, gateway, servers, _api: api }
    }

    /// One in a session and one without, once the gateway knows what its servers have, where that is asked.
    async fn clients(&self, path: &str) -> [Client; 2] {
        let url = format!("http://{}/{path}", self.gateway.address);
        let session = Session::open(&url, Some(ALICE)).await.expect("a session");
        if path == "mcp" {
            until("every server was asked", PATIENCE, || async {
                let asked = self.pod.asked();
                if asked >= self.servers { Ok(()) } else { Err(format!("{asked} were")) }
            })
            .await;
        }
        [Client::InSession(session), Client::Alone(mcp::http(), url)]
    }

    /// Instructions of the gateway for one such request.
    async fn cost(&self, client: &Client, message: &Value) -> f64 {
        for _ in 0..ATTEMPTS {
            client.repeat(message, BEFORE).await;
            let asked = self.pod.asked();
            let counted = self.gateway.instructions(client.repeat(message, COUNTED)).await;
            if self.pod.asked() == asked {
                return counted / f64::from(COUNTED);
            }
        }
        panic!("the gateway asked its servers for their lists all the while");
    }

    async fn end(mut self) {
        self.gateway.assert_well().await;
    }
}

/// A client of either era.
enum Client {
    InSession(Session),
    Alone(reqwest::Client, String),
}

impl Client {
    async fn repeat(&self, message: &Value, times: u32) {
        for _ in 0..times {
            self.ask(message).await;
        }
    }

    async fn ask(&self, message: &Value) -> Value {
        let answer = match self {
            Self::InSession(session) => session.send(message).await.expect("an answer"),
            Self::Alone(http, url) => {
                mcp::post_alone(http, url, Some(ALICE), message.clone()).await.expect("an answer")
            }
        };
        let reply = Reply::read(answer).await;
        assert!(reply.status == StatusCode::OK && reply.answer()["error"].is_null(), "{:?}", reply.messages);
        reply.answer().clone()
    }
}

/// Answers in a bridge's place, always the same.
struct Answering {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
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
        let asked = Arc::<AtomicUsize>::default();
        let task = serve(socket, {
            let asked = asked.clone();
            move |request| answer(request, asked.clone())
        });
        Self { address, asked, _task: task }
    }

    /// How often it was asked for its tools.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(request: Request<Incoming>, asked: Arc<AtomicUsize>) -> Response<Full<Bytes>> {
    let message = request.into_body().collect().await.expect("a body").to_bytes();
    let mut response = Response::new(Full::default());
    let message: Value = serde_json::from_slice(&message).expect("a message");
    if message["id"].is_null() {
        *response.status_mut() = StatusCode::ACCEPTED;
        return response;
    }
    let result = match message["method"].as_str().expect("a request") {
        "server/discover" => json!({"supportedVersions": [mcp::MODERN], "capabilities": {"tools": {}}}),
        "tools/list" => {
            asked.fetch_add(1, Ordering::SeqCst);
            json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
        }
        _ => json!({"content": [{"type": "text", "text": "a text of some words"}]}),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    *response.body_mut() = Full::from(answer.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
