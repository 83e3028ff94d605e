//! The wire contract: who is let in, what is answered, how messages travel both ways.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use bytes::Bytes;
use common::{Rig, python, until};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use portolan_mcp::mac::{self, MacKey};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, ExitCause};
use serde_json::{Value, json};

#[tokio::test]
async fn requests_without_the_servers_mac_are_refused_on_both_ports() {
    let rig = Rig::ready(&[], &python("well")).await;
    let key = SessionKey::generate().unwrap();
    let subject = mac::Subject { method: "POST", path: "/mcp", session: key.as_str() };
    let forged = MacKey::new(&[1; 32]).unwrap().sign(subject, 0);
    let stale = MacKey::new(&[42; 32]).unwrap().sign(subject, 1_000);
    for header in [String::new(), forged, stale] {
        let reply = rig
            .request(Method::POST, rig.data, "/mcp", key.as_str(), Some("{}".into()), &[(mac::HEADER, header.clone())])
            .await;
        assert_eq!((reply.status, reply.failure()), (StatusCode::UNAUTHORIZED, Some("Unauthenticated")), "{header}");
    }
    let reply = rig.request(Method::GET, rig.admin, wire::STATUS, "", None, &[(mac::HEADER, String::new())]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.status().await.counters.refused_mac, 4);
}

#[tokio::test]
async fn bodies_are_bounded_typed_and_one_message_each() {
    let rig = Rig::ready(&["--max-message-bytes", "4096"], &python("well")).await;
    let client = rig.open().await;
    let send =
        async |body: Bytes| rig.request(Method::POST, rig.data, "/mcp", client.key.as_str(), Some(body), &[]).await;
    let oversized = json!({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"a": "x".repeat(5000)}}).to_string();
    assert_eq!(send(oversized.into()).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(send("nonsense".into()).await.messages[0]["error"]["code"], -32700);
    assert_eq!(send("[]".into()).await.messages[0]["error"]["code"], -32600);
    assert_eq!(send("{}".into()).await.messages[0]["error"]["code"], -32600);
    let reply = rig
        .request(Method::POST, rig.data, "/mcp", client.key.as_str(), None, &[("content-type", "text/plain".into())])
        .await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn sessions_are_made_by_initialize_once_and_end_with_delete() {
    let rig = Rig::ready(&[], &python("well")).await;
    let stranger = rig.client();
    assert_eq!(stranger.call(1, "pid", json!({})).await.failure(), Some("UnknownSession"));
    assert_eq!(stranger.delete().await.status, StatusCode::NOT_FOUND);
    let client = rig.open().await;
    assert_eq!(client.initialize().await.status, StatusCode::CONFLICT);
    assert_eq!(client.delete().await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.call(1, "pid", json!({})).await.status, StatusCode::NOT_FOUND);
    until("the exit is told", async || rig.status().await.exits.iter().any(|exit| exit.cause == ExitCause::Deleted))
        .await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends() {
    let rig = Rig::ready(&["--idle-timeout", "300ms"], &python("well")).await;
    let client = rig.open().await;
    until("it is gone", async || rig.status().await.sessions.active == 0).await;
    assert_eq!(client.call(1, "pid", json!({})).await.failure(), Some("UnknownSession"));
    until("the exit is told", async || rig.status().await.exits.iter().any(|exit| exit.cause == ExitCause::Idle)).await;
}

#[tokio::test]
async fn an_id_in_flight_is_refused_and_the_first_call_goes_on() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let mut listener = client.listen().await;
    let first = client.call(7, "ask", json!({}));
    let second = async {
        let asked = listener.next().await.expect("the server asks");
        let refused = client.call(7, "echo", json!({"message": "x"})).await;
        assert_eq!((refused.status, &refused.messages[0]["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32600)));
        client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"ok": true}})).await;
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.text(), r#"{"ok": true}"#);
}

#[tokio::test]
async fn the_servers_requests_go_to_the_standing_stream_and_are_answered_by_post() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let mut listener = client.listen().await;
    let asking = client.call(1, "ask", json!({}));
    let answering = async {
        let asked = listener.next().await.expect("the server asks");
        assert_eq!(asked["method"], "sampling/createMessage");
        let reply = client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"model": "m"}})).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
    };
    let (reply, ()) = tokio::join!(asking, answering);
    assert_eq!(reply.text(), r#"{"model": "m"}"#);
    assert_eq!(reply.messages.len(), 1, "nothing but the answer is on the call's own stream");
}

#[tokio::test]
async fn without_a_standing_stream_the_servers_requests_come_on_the_call() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask"}});
    let response =
        rig.send(Method::POST, rig.data, "/mcp", client.key.as_str(), Some(call.to_string().into()), &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = common::Listener::new(response.into_body());
    let asked = events.next().await.expect("the server asks");
    client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -1, "message": "no"}})).await;
    let answer = events.next().await.expect("the answer");
    assert_eq!(answer["id"], 1);
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("no"));
    assert_eq!(events.next().await, None, "the stream ends with the answer");
}

#[tokio::test]
async fn progress_comes_before_the_answer_on_the_calls_own_stream() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let params = json!({"name": "progress", "arguments": {"token": "p"}, "_meta": {"progressToken": "p"}});
    let reply = client.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await;
    let methods: Vec<&Value> = reply.messages.iter().map(|message| &message["method"]).collect();
    assert_eq!(methods, [&json!("notifications/progress"), &Value::Null]);
}

#[tokio::test]
async fn stateless_servers_answer_every_client_from_one_process_with_their_own_ids() {
    let rig = Rig::ready(&["--session-type", "stateless"], &python("well")).await;
    let (one, other) = (rig.open().await, rig.open().await);
    let ask = async |client: &common::Client<'_>, id: Value| {
        let params = json!({"name": "pid"});
        client.post(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await
    };
    let (first, second) = tokio::join!(ask(&one, json!("same")), ask(&other, json!("same")));
    assert_eq!((&first.messages[0]["id"], &second.messages[0]["id"]), (&json!("same"), &json!("same")));
    assert_eq!(first.text(), second.text(), "one process");
    let stranger = rig.client();
    assert_eq!(stranger.call(1, "echo", json!({"message": "no session"})).await.text(), "no session");
    let get = rig.request(Method::GET, rig.data, "/mcp", one.key.as_str(), None, &[]).await;
    assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(one.delete().await.status, StatusCode::NO_CONTENT);
    let late = other.call_within(2, "hang", json!({}), Some(200)).await;
    assert_eq!(late.error_type(), "RequestTimeout");
    let dead = other.call(3, "die", json!({"code": 9})).await;
    assert_eq!(dead.error_type(), "ServerExited");
    until("it is back", async || other.call(4, "echo", json!({"message": "x"})).await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_call_whose_connection_broke_is_answered_on_the_stream_that_resumes_it() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask"}});
    let mut response =
        rig.send(Method::POST, rig.data, "/mcp", client.key.as_str(), Some(call.to_string().into()), &[]).await;
    let frame = response.body_mut().frame().await.expect("an event").expect("whole").into_data().expect("data");
    let text = String::from_utf8(frame.to_vec()).expect("text");
    let id = text.strip_prefix("id: ").and_then(|rest| rest.lines().next()).expect("an event id");
    let asked: Value = text.lines().find_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).unwrap();
    drop(response);
    client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"late": 1}})).await;
    let mut resumed = client.listen_after(Some(id)).await;
    let answer = resumed.next().await.expect("the answer");
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"late": 1}"#);
    assert_eq!(resumed.next().await, None, "the stream ends with the answer");
}
