//! Requests of the sessionless era: any replica answers any of them, and none needs a session.

use std::time::Instant;

use http::Method;
use portolan_mcp::{
    mac::MacKey,
    parked::{Parked, ParkingKey},
    token::SessionKey,
};
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Answer, Client, soon, until};
use crate::world::{ALICE, BOB, Gateway, MAC_KEY, OTHER_ROUTE, Objects, ROUTE, config};

pub const VERSION: &str = "2026-07-28";

pub fn request(method: &str, mut params: Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params}).to_string()
}

/// A client that repeats in its headers what its body says.
pub fn saying(client: Client, method: &str, name: Option<&str>) -> Client {
    let client = client.with("content-type", "application/json");
    let client = client.with("mcp-protocol-version", VERSION).with("mcp-method", method);
    match name {
        Some(name) => client.with("mcp-name", name),
        None => client,
    }
}

pub async fn call(client: Client, tool: &str, params: Value) -> Answer {
    let mut params = params;
    params["name"] = tool.into();
    saying(client, "tools/call", Some(tool)).post(ROUTE, request("tools/call", params)).await
}

/// The name of a caller at a server's bridges.
fn caller(bridge: &Bridge) -> SessionKey {
    let seen = bridge.seen();
    SessionKey::parse(seen.last().expect("a request").session()).expect("a key")
}

#[tokio::test]
async fn a_request_is_answered_without_a_session_and_its_headers_pass() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let client = gateway.client().with("mcp-param-region", "us").with("traceparent", "00-a-b-01").session("forged");
    let answer = call(client.with("cookie", "secret"), "echo", json!({"arguments": {"x": 1}})).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"x": 1})));
    assert_eq!(answer.header("mcp-session-id"), None);
    let seen = bridge.seen().pop().expect("it arrived");
    for (name, value) in [
        ("mcp-protocol-version", VERSION),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("mcp-param-region", "us"),
        ("traceparent", "00-a-b-01"),
    ] {
        assert_eq!(seen.headers.get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
    }
    for name in ["mcp-session-id", "authorization", "cookie"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_caller_has_one_name_at_a_server_on_every_replica_and_no_two_callers_the_same() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let objects = Objects::new(&[&bridge]);
    let (gateway, peer) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    call(gateway.client().key(ALICE), "echo", json!({})).await;
    let alice = caller(&bridge);
    call(peer.client().key(ALICE), "echo", json!({})).await;
    assert_eq!(caller(&bridge), alice);
    call(gateway.client().key(BOB), "echo", json!({})).await;
    assert_ne!(caller(&bridge), alice);
    let list = request("tools/list", json!({}));
    saying(gateway.client().key(ALICE), "tools/list", None).post(OTHER_ROUTE, list).await;
    assert_ne!(caller(&bridge), alice, "another server's name for her is another");
}

#[tokio::test]
async fn a_request_that_lacks_something_or_contradicts_itself_reaches_no_server() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let client = || saying(gateway.client(), "tools/call", Some("echo"));
    let body = request("tools/call", json!({"name": "echo"}));
    let without = |what: &str| body.replace(what, "x");
    let other = body.replace(VERSION, "2031-01-01");
    for (client, body, status, code) in [
        (client().with("mcp-name", "other"), &body, 400, -32020),
        (client().without("mcp-method"), &body, 400, -32020),
        (client().with("mcp-protocol-version", "2025-11-25"), &body, 400, -32020),
        (client().without("mcp-protocol-version"), &body, 400, -32020),
        (client(), &without("io.modelcontextprotocol/protocolVersion"), 400, -32602),
        (client(), &without("io.modelcontextprotocol/clientCapabilities"), 400, -32602),
        (client().with("mcp-protocol-version", "2031-01-01"), &other, 400, -32022),
    ] {
        let answer = client.post(ROUTE, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(code)), "{answer:?}");
    }
    for method in [Method::GET, Method::DELETE] {
        let answer = client().send(method, ROUTE, "").await;
        assert_eq!(answer.status, 405, "{answer:?}");
    }
    let response = client().post(ROUTE, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    assert_eq!(response.status, 405, "{response:?}");
    assert!(bridge.seen().is_empty());
}

#[tokio::test]
async fn a_half_done_call_is_found_from_every_replica_by_its_caller_and_nobody_else() {
    let bridges = [Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await];
    let mut objects = Objects::new(&[&bridges[0], &bridges[1]]);
    let (gateway, peer) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    call(gateway.client().key(ALICE), "echo", json!({})).await;
    let first = usize::from(bridges[0].seen().is_empty());
    let alice = caller(&bridges[first]);
    // It waits where requests of hers do not go by themselves.
    let waits = 1 - first;
    let key = MacKey::new(&MAC_KEY).as_ref().and_then(ParkingKey::of).expect("a key");
    let parked = |pod: &str| Parked { pod: pod.into(), call: "1".into() };
    let state = key.seal(&parked(&bridges[waits].uid), &alice).expect("sealed");
    for replica in [&gateway, &peer] {
        let before = bridges[waits].seen().len();
        let answer = call(replica.client().key(ALICE), "echo", json!({"requestState": state})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(bridges[waits].seen().len(), before + 1, "it went where the call waits");
    }
    let reached = || bridges.iter().map(|bridge| bridge.seen().len()).sum::<usize>();
    let before = reached();
    for (who, state) in [(BOB, state.clone()), (ALICE, key.seal(&parked("uid-gone"), &alice).expect("sealed"))] {
        let answer = call(gateway.client().key(who), "echo", json!({"requestState": state})).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32602)), "{answer:?}");
    }
    assert_eq!(reached(), before);
    // What a server made itself is the server's.
    assert_eq!(call(gateway.client().key(ALICE), "echo", json!({"requestState": "theirs"})).await.status, 200);
    objects.pods.remove(waits);
    gateway.load(objects.inputs()).await;
    let answer = call(gateway.client().key(ALICE), "echo", json!({"requestState": state})).await;
    assert_eq!(answer.status, 400, "its pod is gone: {answer:?}");
}

#[tokio::test]
async fn a_pod_that_cannot_have_begun_is_passed_over_and_one_that_may_have_is_not_asked_twice() {
    let (lost, bridge) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
    let gateway = Gateway::start(&Objects::new(&[&lost, &bridge])).await;
    drop(lost);
    for key in [ALICE, BOB] {
        let answer = call(gateway.client().key(key), "echo", json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let one = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&one, &bridge])).await;
    let before = one.seen().len() + bridge.seen().len();
    let answer = call(gateway.client(), "drop", json!({})).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["error_type"], "ServerUnreachable");
    assert_eq!(one.seen().len() + bridge.seen().len(), before + 1);
    let answer = call(gateway.client(), "down", json!({})).await;
    assert_eq!(answer.status, 503, "both turned it away: {answer:?}");
    assert_eq!(one.seen().len() + bridge.seen().len(), before + 3);
}

#[tokio::test]
async fn a_client_that_closes_its_request_closes_it_at_the_server() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let flood = saying(gateway.client(), "tools/call", Some("flood"));
    let body = request("tools/call", json!({"name": "flood"}));
    let mut streaming = flood.open(Method::POST, ROUTE, body).await;
    streaming.read_until("xxx").await;
    assert_eq!(bridge.open_connections(), 1);
    drop(streaming);
    until("the server's connection is closed", async || bridge.open_connections() == 0).await;
}

#[tokio::test]
async fn a_stream_of_notifications_takes_no_place_and_ends_with_its_replica_as_a_server_ends_it() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 1, "maxPendingRequests": 0});
    objects.server["timeouts"] = json!({"request": "100ms"});
    let mut gateway = Gateway::start_with(config(), Some(objects.inputs())).await;
    let body = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut stream = saying(gateway.client(), "subscriptions/listen", None).open(Method::POST, ROUTE, body).await;
    stream.read_until("keep-alive").await;
    assert_eq!(call(gateway.client(), "echo", json!({})).await.status, 200, "the one place is free");
    bridge.push(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    stream.read_until("list_changed").await;
    let began = Instant::now();
    gateway.shut_down();
    let (text, whole) = soon(stream.read_to_end()).await;
    assert!(began.elapsed() < config().drain.timeout / 2, "a replica does not wait for it as for a call");
    let last = text.trim_end().rsplit("data: ").next().expect("an event");
    let result: Value = serde_json::from_str(last).expect("JSON");
    assert!(whole);
    assert_eq!((&result["id"], &result["result"]["resultType"]), (&json!(2), &json!("complete")), "{text}");
    assert_eq!(result["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 2);
}

#[tokio::test]
async fn who_listens_at_a_pod_that_takes_nobody_any_more_is_told_to_come_back_and_listens_at_another() {
    let (first, second) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
    let mut objects = Objects::new(&[&first, &second]);
    objects.pods[1].3 = false;
    let gateway = Gateway::start(&objects).await;
    let listen = async || {
        let body = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
        saying(gateway.client(), "subscriptions/listen", None).open(Method::POST, ROUTE, body).await
    };
    let mut listening = listen().await;
    until("it is there", async || first.count("subscriptions/listen") == 1).await;
    first.push(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    listening.read_until("list_changed").await;
    // Where there is no other, the last one is listened to on.
    objects.pods[0].3 = false;
    gateway.load(objects.inputs()).await;
    first.push(r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#);
    listening.read_until("prompts/list_changed").await;
    objects.pods[1].3 = true;
    gateway.load(objects.inputs()).await;
    let (text, whole) = listening.read_to_end().await;
    assert!(whole && text.contains(r#""id":2,"result":{"resultType":"complete""#), "{text}");
    let _listening = listen().await;
    until("it listens at the other", async || second.count("subscriptions/listen") == 1).await;
}
