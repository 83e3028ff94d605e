//! What a gateway refuses: the protocol's status and error, and nothing of it reaches a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use portolan_gateway::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bridge::Bridge;
use crate::client::{Answer, Client, call, initialize, soon, until};
use crate::log::Log;
use crate::world::{ALICE, BOB, Gateway, MAC_KEY, OTHER_ROUTE, Objects, ROUTE, config};

struct Fixture {
    bridge: Bridge,
    gateway: Gateway,
    log: Log,
    sent: Arc<AtomicUsize>,
    /// Connections to the server that opening sessions took.
    connections: AtomicUsize,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(config(), |_| {}).await
    }

    async fn with(config: Config, change: impl FnOnce(&mut Objects)) -> Self {
        let log = Log::capture();
        let bridge = Bridge::start("uid-1", MAC_KEY).await;
        let mut objects = Objects::new(&[&bridge]);
        change(&mut objects);
        let gateway = Gateway::start_with(config, Some(objects.inputs())).await;
        Self { bridge, gateway, log, sent: Arc::default(), connections: AtomicUsize::new(0) }
    }

    fn client(&self) -> Client {
        self.gateway.client().counted(&self.sent)
    }

    /// Opens a session, which reaches the server.
    async fn initialize(&self) -> String {
        let session = self.client().initialize().await;
        self.connections.store(self.bridge.connections(), Ordering::Relaxed);
        session
    }

    /// The refusal has this status, code and kind and left one line in the access log, and nothing has reached the
    /// server: no request, and no connection.
    async fn refused(&self, answer: &Answer, status: u16, code: i64, kind: &str) {
        let json = answer.json();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(json["error"]["code"], code, "{json}");
        assert_eq!(json["error"]["data"]["error_type"], kind, "{json}");
        assert_eq!(json["jsonrpc"], "2.0");
        assert!(json["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{json}");
        self.left_one_line(status, kind).await;
    }

    /// As many lines as requests, the last of them about this refusal.
    async fn left_one_line(&self, status: u16, kind: &str) {
        let sent = self.sent.load(Ordering::Relaxed);
        until("each request leaves a line", async || self.log.access().len() >= sent).await;
        let lines = self.log.access();
        assert_eq!(lines.len(), sent, "{lines:#?}");
        let last = lines.last().expect("a line");
        assert_eq!((&last["status"], &last["outcome"]), (&json!(status), &json!(kind)), "{last}");
        assert_eq!(self.reached(), Vec::<String>::new());
        assert_eq!(self.bridge.forged(), 0);
        assert_eq!(self.bridge.connections(), self.connections.load(Ordering::Relaxed), "the server was connected to");
    }

    /// What reached the server besides opening sessions.
    fn reached(&self) -> Vec<String> {
        let bodies = self.bridge.seen().into_iter().map(|seen| format!("{} {:?}", seen.method, seen.body));
        bodies.filter(|body| !body.contains("initialize")).collect()
    }

    /// Sends bytes and returns the head of the answer.
    async fn raw(&self, request: &str) -> String {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut stream = tokio::net::TcpStream::connect(self.gateway.address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = soon(stream.read_buf(&mut head)).await.expect("reads");
            assert_ne!(read, 0, "closed without an answer");
        }
        String::from_utf8_lossy(&head).into_owned()
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400_with_a_parse_error() {
    let fixture = Fixture::start().await;
    for body in ["", "{", "hello", "{\"jsonrpc\":\"2.0\"} x", "\u{feff}{}"] {
        let answer = fixture.client().post(ROUTE, body.to_owned()).await;
        fixture.refused(&answer, 400, -32700, "Malformed").await;
        assert_eq!(answer.json()["id"], Value::Null);
    }
}

#[tokio::test]
async fn json_that_is_not_one_json_rpc_message_is_400() {
    let fixture = Fixture::start().await;
    for body in [
        "[]",
        "{}",
        r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
    ] {
        let answer = fixture.client().post(ROUTE, body).await;
        fixture.refused(&answer, 400, -32600, "InvalidRequest").await;
    }
}

#[tokio::test]
async fn json_that_two_parsers_would_read_differently_is_400_whatever_it_asks_for() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    for params in
        [r#"{"name":"echo","name":"other"}"#, r#"{"name":"echo","Name":"other"}"#, r#"{"name":"\ud800"}"#, &deep]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let answer = fixture.client().session(&session).post(ROUTE, body).await;
        fixture.refused(&answer, 400, -32700, "Malformed").await;
    }
}

#[tokio::test]
async fn an_oversized_body_is_413_whether_its_length_is_declared_or_not() {
    let cap = |objects: &mut Objects| objects.gateway["http"] = json!({"maxBodyBytes": 2048});
    let fixture = Fixture::with(config(), cap).await;
    let answer = fixture.client().post(ROUTE, call("echo", json!({"text": "x".repeat(3000)}))).await;
    fixture.refused(&answer, 413, -32600, "BodyTooLarge").await;
    assert_eq!(answer.header("connection"), Some("close"));
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunks = format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(4);
    let status = fixture.raw(&format!("{head}{chunks}")).await;
    assert!(status.starts_with("HTTP/1.1 413 "), "{status}");
    fixture.left_one_line(413, "BodyTooLarge").await;
    assert!(fixture.gateway.metric(r#"portolan_gateway_bound_hits_total{bound="BodyTooLarge"}"#).await >= 2.0);
    let session = fixture.initialize().await;
    let fits = call("echo", json!({"text": "x".repeat(1900)}));
    assert_eq!(fixture.client().session(&session).post(ROUTE, fits).await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_ends_is_408() {
    let mut config = config();
    config.bounds.body_timeout = std::time::Duration::from_millis(100);
    let fixture = Fixture::with(config, |_| {}).await;
    let request = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    let status = fixture.raw(&request).await;
    assert!(status.starts_with("HTTP/1.1 408 "), "{status}");
    fixture.left_one_line(408, "BodyTimeout").await;
}

#[tokio::test]
async fn a_head_that_is_no_http_or_too_long_is_400_or_431_and_leaves_a_line_too() {
    let fixture = Fixture::start().await;
    let status = fixture.raw("nonsense\r\n\r\n").await;
    assert!(status.starts_with("HTTP/1.1 400 "), "{status}");
    fixture.left_one_line(400, "BadHead").await;
    let long = format!("GET {ROUTE} HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n", "x".repeat(40 * 1024));
    let status = fixture.raw(&long).await;
    assert!(status.starts_with("HTTP/1.1 431 "), "{status}");
    fixture.left_one_line(431, "BadHead").await;
    assert_eq!(fixture.gateway.metric(r#"portolan_gateway_bound_hits_total{bound="Head"}"#).await, 1.0);
}

#[tokio::test]
async fn a_head_that_gets_no_answer_leaves_a_line_without_a_status_and_an_idle_connection_leaves_none() {
    let mut config = config();
    config.bounds.header_timeout = std::time::Duration::from_millis(100);
    config.bounds.idle_timeout = std::time::Duration::from_millis(500);
    let fixture = Fixture::with(config, |_| {}).await;
    for sent in ["PRI * HTTP/2.0", "GET / HTTP/1.1\r\nhost: "] {
        let before = fixture.log.access().len();
        let mut stream = tokio::net::TcpStream::connect(fixture.gateway.address).await.expect("connects");
        stream.write_all(sent.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        // What was sent and not read may turn the end into a reset.
        let _ended = soon(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{answer:?}");
        until("it leaves a line", async || fixture.log.access().len() > before).await;
        let line = fixture.log.access().pop().expect("a line");
        assert_eq!((&line["status"], &line["outcome"]), (&Value::Null, &json!("HeadTimeout")), "{line}");
    }
    let counted = r#"portolan_gateway_bound_hits_total{bound="HeadTimeout"}"#;
    assert_eq!(fixture.gateway.metric(counted).await, 2.0);
    let open = r#"portolan_gateway_connections{listener="http"}"#;
    let mut idle = tokio::net::TcpStream::connect(fixture.gateway.address).await.expect("connects");
    soon(idle.read_to_end(&mut Vec::new())).await.expect("closed");
    until("it is over", async || fixture.gateway.metric(open).await == 0.0).await;
    assert_eq!((fixture.log.access().len(), fixture.gateway.metric(counted).await), (2, 2.0));
}

#[tokio::test]
async fn another_content_type_or_an_encoded_body_is_415() {
    let fixture = Fixture::start().await;
    for client in [
        fixture.client().with("content-type", "text/plain"),
        fixture.client().with("content-type", "application/json").and("content-type", "text/plain"),
        fixture.client().with("content-encoding", "gzip"),
    ] {
        let answer = client.post(ROUTE, initialize()).await;
        fixture.refused(&answer, 415, -32600, "UnsupportedMediaType").await;
    }
}

#[tokio::test]
async fn an_accept_header_that_leaves_no_way_to_answer_is_406() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    for accept in ["application/json", "text/event-stream", "text/html"] {
        let answer = fixture.client().with("accept", accept).post(ROUTE, initialize()).await;
        fixture.refused(&answer, 406, -32600, "NotAcceptable").await;
    }
    let answer = fixture.client().session(&session).with("accept", "application/json").get(ROUTE).await;
    fixture.refused(&answer, 406, -32600, "NotAcceptable").await;
}

#[tokio::test]
async fn an_unauthenticated_caller_is_401_alike_for_every_path() {
    let fixture = Fixture::start().await;
    let unknown_key = fixture.client().key("ptl_unknown");
    let token = fixture.client().key("eyJhbGciOiJSUzI1NiJ9.e30.c2ln");
    let basic = fixture.client().with("authorization", "Basic dTpw");
    let twice = fixture.client().and("authorization", &format!("Bearer {ALICE}"));
    let none = fixture.client().without("authorization");
    for client in [unknown_key, token, basic, twice, none] {
        let mut bodies = Vec::new();
        for path in [ROUTE, "/default/unknown/mcp", "/nowhere"] {
            let answer = client.post(path, initialize()).await;
            fixture.refused(&answer, 401, -32002, "Unauthenticated").await;
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            bodies.push(answer.body);
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "the answers tell routes apart");
    }
    assert!(fixture.bridge.seen().is_empty());
}

#[tokio::test]
async fn a_wrong_path_is_404() {
    let fixture = Fixture::start().await;
    for path in
        ["/", "/default/everything", "/default/unknown/mcp", "/default/everything/mcp/", "/default/%65verything/mcp"]
    {
        for method in [Method::POST, Method::GET, Method::DELETE, Method::PUT] {
            let answer =
                fixture.client().with("content-type", "application/json").send(method, path, initialize()).await;
            fixture.refused(&answer, 404, -32003, "UnknownRoute").await;
        }
    }
    assert!(fixture.bridge.seen().is_empty());
}

#[tokio::test]
async fn another_method_is_405_and_says_which_are_allowed() {
    let fixture = Fixture::start().await;
    for method in [Method::PUT, Method::PATCH, Method::OPTIONS] {
        let answer = fixture.client().send(method, ROUTE, "").await;
        fixture.refused(&answer, 405, -32003, "MethodNotAllowed").await;
        assert_eq!(answer.header("allow"), Some("GET, POST, DELETE"));
    }
}

#[tokio::test]
async fn a_wrong_host_is_421_and_says_nothing_about_callers() {
    let fixture = Fixture::start().await;
    for client in [fixture.client(), fixture.client().without("authorization")] {
        for client in [
            client.clone().with("host", "evil.example"),
            client.clone().with("host", "10.0.0.1:8080"),
            client.clone().without("host"),
            client.clone().and("host", "localhost"),
        ] {
            let answer = client.post(ROUTE, initialize()).await;
            fixture.refused(&answer, 421, -32002, "HostNotAllowed").await;
        }
    }
    let absolute = fixture.client().post(&format!("http://evil.example{ROUTE}"), initialize()).await;
    fixture.refused(&absolute, 421, -32002, "HostNotAllowed").await;
    let own = fixture.client().with("host", "portolan-gateway-default.portolan.svc:80");
    assert_eq!(own.post(ROUTE, initialize()).await.status, 200);
}

#[tokio::test]
async fn a_wrong_origin_is_403_and_an_allowed_one_can_read_the_answer() {
    let allow = |objects: &mut Objects| {
        objects.gateway["http"] =
            json!({"allowedOrigins": ["https://app.example.com"], "allowedHosts": ["mcp.example.com"]});
    };
    let fixture = Fixture::with(config(), allow).await;
    let twice = fixture.client().with("origin", "https://app.example.com").and("origin", "https://app.example.com");
    fixture.refused(&twice.post(ROUTE, initialize()).await, 403, -32002, "OriginNotAllowed").await;
    for origin in ["https://evil.example", "null", "http://app.example.com", "http://localhost:1"] {
        let answer = fixture.client().with("origin", origin).post(ROUTE, initialize()).await;
        fixture.refused(&answer, 403, -32002, "OriginNotAllowed").await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let page = fixture.client().with("origin", "https://app.example.com").with("host", "mcp.example.com");
    let answer = page.post(ROUTE, initialize()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert!(answer.header("access-control-expose-headers").expect("exposed").contains("mcp-session-id"));
    let preflight = page.without("authorization").with("access-control-request-method", "POST");
    let answer = preflight.send(Method::OPTIONS, ROUTE, "").await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("access-control-allow-headers").expect("allowed").contains("authorization"));
}

#[tokio::test]
async fn a_message_without_a_session_is_400() {
    let fixture = Fixture::start().await;
    let ping = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}).to_string();
    let answer = fixture.client().post(ROUTE, ping.clone()).await;
    fixture.refused(&answer, 400, -32000, "MissingSession").await;
    assert_eq!(answer.json()["id"], 7);
    let answer = fixture.client().get(ROUTE).await;
    fixture.refused(&answer, 400, -32000, "MissingSession").await;
    let answer = fixture.client().send(Method::DELETE, ROUTE, "").await;
    fixture.refused(&answer, 400, -32000, "MissingSession").await;
    // Which of two counts would be a matter of who reads them.
    let session = fixture.initialize().await;
    let answer = fixture.client().session(&session).and("mcp-session-id", &session).post(ROUTE, ping).await;
    fixture.refused(&answer, 400, -32000, "MissingSession").await;
}

#[tokio::test]
async fn an_unknown_or_forged_session_is_404() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let mut forged = session.clone().into_bytes();
    let last = forged.len() - 3;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    for id in [forged.as_str(), "", "AAAA", "not base64 at all!", &"A".repeat(5000)] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let client = fixture.client().session(id).with("content-type", "application/json");
            let answer = client.send(method, ROUTE, call("echo", json!({}))).await;
            fixture.refused(&answer, 404, -32001, "UnknownSession").await;
        }
    }
}

#[tokio::test]
async fn another_callers_session_is_404() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let answer = fixture.client().key(BOB).session(&session).call("echo", json!({})).await;
    fixture.refused(&answer, 404, -32001, "UnknownSession").await;
    assert_eq!(fixture.client().session(&session).call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_session_of_another_route_is_404() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let answer = fixture.client().session(&session).post(OTHER_ROUTE, call("echo", json!({}))).await;
    fixture.refused(&answer, 404, -32001, "UnknownSession").await;
}

#[tokio::test]
async fn an_unsupported_protocol_version_is_400() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let client = fixture.client().session(&session);
    let answer = client.clone().with("mcp-protocol-version", "1999-01-01").call("echo", json!({})).await;
    fixture.refused(&answer, 400, -32022, "UnsupportedVersion").await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let answer = client.clone().with("mcp-protocol-version", version).call("echo", json!({})).await;
        assert_eq!(answer.status, 200, "{version}");
    }
}

#[tokio::test]
async fn a_key_that_was_taken_back_opens_nothing_any_more() {
    let fixture = Fixture::start().await;
    let session = fixture.initialize().await;
    let objects = Objects::new(&[&fixture.bridge]);
    let mut inputs = portolan_snapshot::Inputs::clone(&objects.inputs());
    inputs.secret.remove("apikeys.ci.alice");
    fixture.gateway.load(inputs.into()).await;
    let answer = fixture.client().session(&session).call("echo", json!({})).await;
    fixture.refused(&answer, 401, -32002, "Unauthenticated").await;
}
