//! Bounds: time, numbers, and what a client is told when one is reached.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::bridge::Bridge;
use crate::client::{Client, call, soon, until};
use crate::log::Log;
use crate::ports::free_port;
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE, config};

fn slow_calls(client: &Client, count: usize) -> Vec<tokio::task::JoinHandle<crate::client::Answer>> {
    let start = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.call("slow", json!({})).await })
    };
    (0..count).map(start).collect()
}

fn calls(bridge: &Bridge) -> usize {
    bridge.seen().iter().filter(|seen| seen.body.windows(4).any(|window| window == b"slow")).count()
}

#[tokio::test]
async fn past_its_limits_a_server_is_503_with_a_time_to_come_back_at() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 2, "maxPendingRequests": 1});
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let running = slow_calls(&client, 2);
    until("two are at the server", async || calls(&bridge) == 2).await;
    // One more waits, so one of two is refused.
    let mut more = slow_calls(&client, 2);
    let refused = tokio::select! {
        answer = &mut more[0] => answer,
        answer = async { soon(slow_calls(&client, 1).remove(0)).await } => answer,
    };
    let refused = refused.expect("no panic");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["data"]["error_type"], "Overloaded");
    assert_eq!(calls(&bridge), 2, "what waits or is refused is not at the server");
    // What is no request takes no place: it may be what a call at the server waits for.
    let answer = client.post(ROUTE, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(answer.status, 202);
    assert!(gateway.metric(r#"portolan_gateway_bound_hits_total{bound="Overloaded"}"#).await >= 1.0);
    for call in &running {
        assert!(!call.is_finished());
    }
    until("all that was let in is answered", async || {
        bridge.release.notify_waiters();
        running.iter().chain(&more).all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for call in running {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
    bridge.release.notify_one();
    assert_eq!(client.call("slow", json!({})).await.status, 200, "places come back");
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_a_tool_result_that_says_so() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["timeouts"] = json!({"request": "100ms"});
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    let answer = gateway.client().session(&session).call("slow", json!({})).await;
    let json = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(json["result"]["isError"], true);
    assert_eq!(json["result"]["structuredContent"]["error_type"], "RequestTimeout");
    assert_eq!(json["id"], 2);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_at_once_and_the_call_is_not_sent_again() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let answer = client.call("drop", json!({})).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["error_type"], "ServerUnreachable", "{answer:?}");
    assert_eq!(answer.json()["result"]["structuredContent"]["retryable"], true);
    assert_eq!(bridge.seen().len(), 2, "sent once");
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    objects.pods[0].1 = gone;
    gateway.load(objects.inputs()).await;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["error_type"], "ServerUnreachable");
    let answer = client.post(ROUTE, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(answer.status, 502, "a notification has no answer inside the protocol");
    assert_eq!(client.get(ROUTE).await.status, 502);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_call_with_it() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 1, "maxPendingRequests": 0});
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let call = slow_calls(&client, 1).remove(0);
    until("it is at the server", async || calls(&bridge) == 1).await;
    call.abort();
    until("its place is free", async || client.call("echo", json!({})).await.status == 200).await;
    let gone =
        r#"portolan_gateway_requests_total{method="tools/call",outcome="ClientGone",route="default/everything"}"#;
    assert_eq!(gateway.metric(gone).await, 1.0);
}

#[tokio::test]
async fn connections_past_the_bound_are_closed_at_once_and_counted() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.max_connections = 1;
    let gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let held = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    until("it is counted", async || gateway.metric(r#"portolan_gateway_connections{listener="http"}"#).await == 1.0)
        .await;
    let mut refused = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    assert_eq!(soon(refused.read(&mut [0; 1])).await.unwrap_or(0), 0, "closed");
    assert_eq!(gateway.metric(r#"portolan_gateway_bound_hits_total{bound="Connections"}"#).await, 1.0);
    drop(held);
    until("there is room again", async || {
        gateway.metric(r#"portolan_gateway_connections{listener="http"}"#).await == 0.0
    })
    .await;
    gateway.client().initialize().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.idle_timeout = Duration::from_millis(50);
    config.bounds.header_timeout = Duration::from_millis(50);
    let gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let mut silent = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    soon(silent.read_to_end(&mut Vec::new())).await.expect("closed");
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_place() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.unread_timeout = Duration::from_millis(200);
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 1, "maxPendingRequests": 0});
    let gateway = Gateway::start_with(config, Some(objects.inputs())).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let unread = client
        .clone()
        .with("content-type", "application/json")
        .open(Method::POST, ROUTE, call("flood", json!({})))
        .await;
    assert_eq!(client.call("echo", json!({})).await.status, 503, "the place is taken");
    until("the place is free", async || client.call("echo", json!({})).await.status == 200).await;
    assert_eq!(gateway.metric(r#"portolan_gateway_bound_hits_total{bound="Unread"}"#).await, 1.0);
    drop(unread);
}

#[tokio::test]
async fn a_503_says_when_to_come_back_whoever_made_it() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let answer = gateway.client().session(&session).call("down", json!({})).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn bodies_held_at_once_are_bounded_over_all_requests() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.max_buffered_bytes = 4096;
    let gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let answer = client.call("echo", json!({"text": "x".repeat(8192)})).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    for _ in 0..8 {
        assert_eq!(client.call("echo", json!({"text": "x".repeat(2048)})).await.status, 200, "what was held came back");
    }
}

#[tokio::test]
async fn one_request_is_one_line_without_credential_or_argument() {
    let log = Log::capture();
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session).with("content-type", "application/json");
    client.post(&format!("{ROUTE}?token=queried"), call("echo\n\u{1b}[31m", json!({"password": "hunter2"}))).await;
    client.clone().key("ptl_wrong").call("echo", json!({})).await;
    client.post(ROUTE, "nonsense").await;
    client.get("/no%0awhere").await;
    let stream = client.open(Method::GET, ROUTE, "").await;
    drop(stream);
    drop(client);
    until("six lines", async || log.access().len() >= 6).await;
    let lines = log.access();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().expect("text")).collect();
    assert_eq!(outcomes, ["OK", "OK", "Unauthenticated", "Malformed", "UnknownRoute", "ClientGone"]);
    assert_eq!(lines[1]["tool"], "echo\\n\\u{1b}[31m");
    assert_eq!(lines[1]["subject"], "alice");
    assert_eq!(lines[1]["route"], "default/everything");
    assert_eq!(lines[1]["session"].as_str().map(str::len), Some(16));
    assert_eq!(lines[2]["subject"], Value::Null);
    let all = serde_json::to_string(&lines).expect("JSON");
    for secret in [ALICE, "ptl_wrong", "hunter2", "password", "queried", session.as_str(), bridge.seen()[0].session()] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}
