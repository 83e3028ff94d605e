//! The same promises in front of the real bridge and a real process behind it.

use std::path::{Path, PathBuf};

use http::Method;
use portolan_tests::bridge::Bridge;
use serde_json::json;

use crate::aggregate::{ALL, legacy, open};
use crate::client::{call, initialize, soon, until};
use crate::endpoints::open as open_at;
use crate::modern::{request, saying};
use crate::world::{BOB, Gateway, Objects, ROUTE};

/// The real bridge in front of the fixture server.
pub async fn start() -> Bridge {
    start_with(&[]).await
}

/// The same, told more.
pub async fn start_with(flags: &[&str]) -> Bridge {
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/server.py");
    let behind = [flags, &["--", "python3", server.to_str().expect("text")]].concat();
    Bridge::start(&binary("portolan-bridge"), "stdio", &behind).await
}

/// A binary of the workspace. Testing the workspace builds it before any test runs.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let binary = test.ancestors().nth(2).expect("target/<profile>").join(name);
    assert!(binary.exists(), "there is no {}: run `cargo build --bin {name}` first", binary.display());
    binary
}

#[tokio::test]
async fn two_replicas_serve_one_session_of_the_real_bridge() {
    let bridge = start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let session = a.client().initialize().await;
    let on_a = a.client().session(&session).with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address);
    assert_eq!(on_b.post(ROUTE, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.status, 202);
    let echoed = on_b.call("echo", json!({"n": 7})).await;
    assert!(echoed.text().contains(r#""n": 7"#) || echoed.text().contains(r#""n":7"#), "{echoed:?}");
    // The server asks on the stream at B while a call is under way at A.
    let posting = on_a.clone().with("content-type", "application/json");
    let mut get = on_b.open(Method::GET, ROUTE, "").await;
    assert_eq!(get.status, 200);
    let mut asking = tokio::spawn(async move {
        let mut answer = posting.open(Method::POST, ROUTE, call("ask", json!({}))).await;
        answer.read_until("accept").await;
    });
    get.read_until("elicitation/create").await;
    let answer = json!({"jsonrpc": "2.0", "id": "question", "result": {"action": "accept"}}).to_string();
    assert_eq!(on_a.post(ROUTE, answer).await.status, 202, "the answer is posted to the other replica");
    soon(&mut asking).await.expect("the call got its answer");
    assert_eq!(on_b.send(Method::DELETE, ROUTE, "").await.status, 204);
    assert_eq!(on_a.call("echo", json!({})).await.status, 404, "it is gone on every replica");
}

/// The id of the event that holds `text`.
pub fn id_of<'a>(events: &'a str, text: &str) -> &'a str {
    let event = events.split("\n\n").find(|event| event.contains(text)).expect("the event is there");
    event.lines().find_map(|line| line.strip_prefix("id:")).expect("it has an id").trim()
}

#[tokio::test]
async fn a_stream_that_broke_at_one_replica_is_resumed_at_another() {
    let bridge = start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let session = a.client().initialize().await;
    let on_a = a.client().session(&session).with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address);
    assert_eq!(on_b.post(ROUTE, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.status, 202);
    let mut broken = on_b.open(Method::GET, ROUTE, "").await;
    assert_eq!(on_a.call("say", json!({})).await.status, 200);
    broken.read_until("second").await;
    let first = id_of(broken.text(), "first").to_owned();
    // What came after the first message counts as lost with the connection.
    drop(broken);
    let mut resumed = on_a.with("last-event-id", &first).open(Method::GET, ROUTE, "").await;
    assert_eq!(resumed.status, 200);
    resumed.read_until("second").await;
    assert!(!resumed.text().contains("first"), "what was seen is not sent again: {}", resumed.text());
    assert_eq!(resumed.text().matches("second").count(), 1);
}

#[tokio::test]
async fn a_call_whose_connection_broke_at_one_replica_is_answered_at_another() {
    let bridge = start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let session = a.client().initialize().await;
    let on_a = a.client().session(&session).with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address).with("content-type", "application/json");
    let mut broken = on_b.open(Method::POST, ROUTE, call("ask", json!({}))).await;
    broken.read_until("elicitation/create").await;
    let question = id_of(broken.text(), "elicitation/create").to_owned();
    drop(broken);
    let answer = json!({"jsonrpc": "2.0", "id": "question", "result": {"action": "accept"}}).to_string();
    assert_eq!(on_a.post(ROUTE, answer).await.status, 202);
    let resumed = on_a.with("last-event-id", &question).open(Method::GET, ROUTE, "").await;
    assert_eq!(resumed.status, 200);
    let (text, whole) = resumed.read_to_end().await;
    assert!(whole && text.contains("accept") && !text.contains("elicitation/create"), "{text}");
}

/// The id of the question that came on a stream.
pub fn question_in(events: &str) -> String {
    let messages = events.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let asked = messages.into_iter().find(|message: &serde_json::Value| message["method"] == "elicitation/create");
    asked.expect("a question")["id"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn what_a_server_asks_in_a_call_to_all_is_answered_and_resumed_at_another_replica() {
    let bridge = start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let on_a = open(&a.client()).await.with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address).with("content-type", "application/json");
    let ask = legacy("tools/call", &json!({"name": "default__everything__ask", "arguments": {}}));
    for breaks in [false, true] {
        let mut asking = on_b.open(Method::POST, ALL, ask.clone()).await;
        asking.read_until("elicitation/create").await;
        let event = id_of(asking.text(), "elicitation/create").to_owned();
        assert!(event.starts_with("everything.default+"), "{event}");
        let id = question_in(asking.text());
        let (whose, own) = id.split_once('@').expect("a part is named");
        assert!(whose.len() > "everything.default+".len(), "it says which session of the server is meant: {id}");
        assert_eq!((&whose[..19], own), ("everything.default+", r#""question""#), "the question says whose it is");
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"action": "accept"}}).to_string();
        let stream = if breaks {
            drop(asking);
            assert_eq!(on_a.post(ALL, answer).await.status, 202);
            on_a.clone().with("last-event-id", &event).open(Method::GET, ALL, "").await
        } else {
            assert_eq!(on_a.post(ALL, answer).await.status, 202);
            asking
        };
        let (text, whole) = stream.read_to_end().await;
        assert!(whole && text.contains("accept"), "{text}");
        assert_eq!(text.contains("elicitation/create"), !breaks, "what was seen is not sent again: {text}");
    }
    let forged = json!({"jsonrpc": "2.0", "id": "other.default+7", "result": {}}).to_string();
    assert_ne!(on_a.post(ALL, forged).await.status, 202, "nobody asked that");
    let counted = r#"portolan_gateway_sessions_opened_total{route="default/everything"}"#;
    assert_eq!(a.metric(counted).await + b.metric(counted).await, 1.0);
}

#[tokio::test]
async fn what_a_server_asks_one_caller_is_neither_seen_nor_answered_in_anothers_session() {
    let bridge = start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    for (path, tool) in [(ROUTE, "ask"), (ALL, "default__everything__ask")] {
        let alice = open_at(&gateway.client(), path).await.with("content-type", "application/json");
        let bob = open_at(&gateway.client().key(BOB), path).await;
        let ask = legacy("tools/call", &json!({"name": tool, "arguments": {}}));
        let mut asking = alice.open(Method::POST, path, ask.clone()).await;
        asking.read_until("elicitation/create").await;
        // One of his own is open too: his session is at the same server, and has a question of the same name.
        let mut his = bob.clone().with("content-type", "application/json").open(Method::POST, path, ask).await;
        his.read_until("elicitation/create").await;
        let event = id_of(asking.text(), "elicitation/create").to_owned();
        let (hers, own) = (question_in(asking.text()), question_in(his.text()));
        let answer =
            |id: &str, action: &str| json!({"jsonrpc": "2.0", "id": id, "result": {"action": action}}).to_string();
        assert_eq!(hers == own, path == ROUTE, "at one server ids are the server's own");
        if hers != own {
            assert_eq!(bob.post(path, answer(&hers, "decline")).await.status, 400, "nobody asked him that");
        }
        assert_eq!(bob.post(path, answer(&own, "decline")).await.status, 202);
        let (text, whole) = his.read_to_end().await;
        assert!(whole && text.contains("decline"), "his answer is to his question: {text}");
        assert_eq!(alice.post(path, answer(&hers, "accept")).await.status, 202);
        let stolen = bob.clone().with("last-event-id", &event).open(Method::GET, path, "").await;
        assert!(stolen.status == 200 || stolen.status == 400, "{}", stolen.status);
        asking.read_until("accept").await;
        assert!(asking.text().contains("accept") && !asking.text().contains("decline"), "{}", asking.text());
        assert_eq!(bob.send(Method::DELETE, path, "").await.status, 204);
        let (text, _ended) = stolen.read_to_end().await;
        assert!(!text.contains("accept"), "nothing of hers is on it: {text}");
    }
}

#[tokio::test]
async fn all_servers_are_listed_and_called_in_both_eras_in_front_of_the_real_bridge() {
    let bridge = start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let client = open(&gateway.client()).await;
    let tool = |name| format!("default__everything__{name}");
    let expected = ["echo", "say", "ask", "die", "sleep"].map(|name| json!(tool(name)));
    // A list does not wait long for a server of which nothing is known yet, and this machine may be busy.
    until("the server is listed first", async || {
        let listed = client.post(ALL, legacy("tools/list", &json!({}))).await;
        let tools = &listed.json()["result"]["tools"];
        tools.as_array().expect("a list").iter().map(|tool| &tool["name"]).take(5).eq(&expected)
    })
    .await;
    let call = json!({"name": tool("echo"), "arguments": {"n": 7}});
    let answer = client.post(ALL, legacy("tools/call", &call)).await;
    assert_eq!(answer.json()["result"]["structuredContent"], json!({"n": 7}));
    let answer =
        saying(gateway.client(), "tools/call", Some(&tool("echo"))).post(ALL, request("tools/call", call)).await;
    assert_eq!(answer.json()["result"]["structuredContent"], json!({"n": 7}));
}

#[tokio::test]
async fn who_holds_all_sessions_that_one_caller_may_is_told_so_at_either_endpoint_and_another_gets_one() {
    let bridge = start_with(&["--max-sessions", "4", "--max-sessions-per-caller", "1"]).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let held = gateway.client().initialize().await;
    let refused = gateway.client().post(ROUTE, initialize()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.text().contains("maxPerCaller"), "{refused:?}");
    let of_all = open(&gateway.client()).await;
    let call = legacy("tools/call", &json!({"name": "default__everything__echo", "arguments": {}}));
    let refused = of_all.post(ALL, call.clone()).await;
    assert!(refused.text().contains("maxPerCaller"), "{refused:?}");
    gateway.client().key(BOB).initialize().await;
    assert_eq!(gateway.client().session(&held).send(Method::DELETE, ROUTE, "").await.status, 204);
    until("its place is free", async || of_all.post(ALL, call.clone()).await.text().contains("structuredContent"))
        .await;
}

#[tokio::test]
async fn a_server_process_that_dies_in_a_call_is_told_at_once_and_other_sessions_go_on() {
    let bridge = start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let (one, other) = (gateway.client().initialize().await, gateway.client().initialize().await);
    let answer = gateway.client().session(&one).call("die", json!({})).await;
    let failure = &answer.json()["result"]["structuredContent"];
    assert_eq!((&failure["error_type"], &failure["retryable"]), (&json!("ServerExited"), &json!(true)), "{answer:?}");
    assert_eq!(gateway.client().session(&one).call("echo", json!({})).await.status, 404);
    assert_eq!(gateway.client().session(&other).call("echo", json!({})).await.status, 200);
    let counted =
        r#"portolan_gateway_requests_total{method="tools/call",outcome="ServerExited",route="default/everything"}"#;
    assert_eq!(gateway.metric(counted).await, 1.0);
}

#[tokio::test]
async fn the_real_bridge_keeps_the_request_timeout_of_the_gateway() {
    let bridge = start().await;
    let mut objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    // Opening a session starts a process, which may take longer.
    let session = gateway.client().initialize().await;
    objects.server["timeouts"] = json!({"request": "300ms"});
    gateway.load(objects.inputs()).await;
    let answer = gateway.client().session(&session).call("sleep", json!({})).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["error_type"], "RequestTimeout", "{answer:?}");
    assert!(answer.text().contains(" ms; ask again"), "the bridge's words: {answer:?}");
    assert!(!answer.headers.contains_key("trailer"), "what the bridge says behind an answer is for the gateway");
    let counted =
        r#"portolan_gateway_requests_total{method="tools/call",outcome="RequestTimeout",route="default/everything"}"#;
    until("it is counted, although the head left before it was known", async || gateway.metric(counted).await == 1.0)
        .await;
}
