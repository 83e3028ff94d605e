//! The wire contract: who is let in, what is answered, how messages travel both ways.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use bytes::Bytes;
use common::{Header, Rig, chunk, python, until};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use portolan_mcp::mac::{self, MacKey};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, ExitCause};
use serde_json::{Value, json};

#[tokio::test]
async fn requests_without_the_servers_mac_are_refused_on_both_ports() {
    let rig = Rig::ready(&[], &python("well")).await;
    let key = SessionKey::generate().unwrap();
    let subject = mac::Subject { method: "POST", path: "/mcp", session: key.as_str(), pod: "" };
    let forged = MacKey::new(&[1; 32]).unwrap().sign(subject, 0);
    let stale = MacKey::new(&[42; 32]).unwrap().sign(subject, 1_000);
    for header in [String::new(), forged, stale] {
        let reply = rig
            .request(Method::POST, rig.data, "/mcp", key.as_str(), Some("{}".into()), &[(mac::HEADER, header.clone())])
            .await;
        assert_eq!((reply.status, reply.failure()), (StatusCode::UNAUTHORIZED, Some("Unauthenticated")), "{header}");
    }
    for (method, path) in [(Method::GET, wire::STATUS), (Method::GET, wire::PROBE), (Method::POST, wire::ABANDON)] {
        let reply = rig.request(method, rig.admin, path, "", None, &[(mac::HEADER, String::new())]).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(rig.admin_get(wire::ABANDON).await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(rig.status().await.counters.refused_mac, 6);
}

#[tokio::test]
async fn a_request_that_is_meant_for_the_pod_that_had_this_address_before_is_refused_on_both_ports() {
    let rig = Rig::ready(&["--pod-uid", "this-pod"], &python("well")).await;
    let key = SessionKey::generate().unwrap();
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }});
    let meant = |pod: &str| [(wire::POD, pod.to_owned())];
    let send = async |pod: &str| {
        let body = Some(initialize.to_string().into());
        rig.request(Method::POST, rig.data, "/mcp", key.as_str(), body, &meant(pod)).await
    };
    let reply = send("earlier-pod").await;
    assert_eq!(reply.failure(), Some("ServerUnreachable"));
    assert_eq!(rig.status().await.sessions.active, 0);
    let reply = rig.request(Method::GET, rig.admin, wire::STATUS, "", None, &meant("earlier-pod")).await;
    assert_eq!(reply.failure(), Some("ServerUnreachable"));
    assert_eq!(send("this-pod").await.status, StatusCode::OK);
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
        .request(Method::POST, rig.data, "/mcp", client.key.as_str(), None, &[(CONTENT_TYPE, "text/plain".into())])
        .await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(rig.status().await.counters.oversized_messages, 1);
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
    let response = client.start(1, "ask", &[]).await;
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
async fn clients_of_a_stateless_server_that_chose_the_same_token_each_hear_of_their_own_progress() {
    let rig = Rig::ready(&["--session-type", "stateless"], &python("well")).await;
    let (one, other) = (rig.open().await, rig.open().await);
    let call = async |client: &common::Client<'_>, tool: &str, name: &str, token: Value| {
        let params =
            json!({"name": tool, "arguments": {"name": name, "message": "x"}, "_meta": {"progressToken": token}});
        client.post(&json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params})).await
    };
    // What comes late for a call that was answered is for nobody, whoever uses its token by then.
    assert_eq!(call(&one, "echo", "answered", json!(0)).await.text(), "x");
    let telling = async {
        for name in ["one", "other", "second"] {
            rig.logged(&format!("waiting {name} as ")).await;
        }
        for method in ["test/progress", "test/release"] {
            one.post(&json!({"jsonrpc": "2.0", "method": method})).await;
        }
    };
    let (first, second, third, ()) = tokio::join!(
        call(&one, "wait", "one", json!(0)),
        call(&other, "wait", "other", json!(0)),
        call(&other, "wait", "second", json!("a\"b")),
        telling
    );
    for (reply, name, token) in
        [(first, "one", json!(0)), (second, "other", json!(0)), (third, "second", json!("a\"b"))]
    {
        let [progress, answer] = &reply.messages[..] else { panic!("{reply:?}") };
        assert_eq!(progress["params"], json!({"progressToken": token, "progress": 1, "message": name}));
        assert_eq!(answer["id"], name);
    }
    assert_eq!(rig.status().await.counters.dropped_messages, 0);
}

#[tokio::test]
async fn a_call_whose_connection_broke_is_answered_on_the_stream_that_resumes_it() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let mut response = client.start(1, "ask", &[]).await;
    let text = chunk(&mut response).await.expect("an event");
    let id = text.strip_prefix("id: ").and_then(|rest| rest.lines().next()).expect("an event id");
    let asked: Value = text.lines().find_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).unwrap();
    drop(response);
    client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"late": 1}})).await;
    let mut resumed = client.listen_after(Some(id)).await;
    let answer = resumed.next().await.expect("the answer");
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"late": 1}"#);
    assert_eq!(resumed.next().await, None, "the stream ends with the answer");
}

/// What a client of the newest revision sends.
fn newest() -> Vec<Header> {
    vec![(VERSION_HEADER, "2025-11-25".to_owned())]
}

#[tokio::test]
async fn a_call_that_takes_a_while_can_be_resumed_before_it_said_anything() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let mut response = client.start(7, "wait", &newest()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let beginning = chunk(&mut response).await.expect("a beginning");
    let id = beginning
        .strip_prefix("retry: 1000\nid: ")
        .and_then(|rest| rest.strip_suffix("\ndata: \n\n"))
        .expect("only an id");
    drop(response);
    client.post(&json!({"jsonrpc": "2.0", "method": "test/release"})).await;
    let mut resumed = client.listen_after(Some(id)).await;
    assert_eq!(resumed.next().await.expect("the answer")["result"]["content"][0]["text"], "released");
    assert_eq!(resumed.next().await, None, "the stream ends with the answer");
}

#[tokio::test]
async fn clients_of_older_revisions_get_a_head_and_messages_only() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    for version in [None, Some("2025-06-18")] {
        let headers: Vec<_> = version.map(|version| (VERSION_HEADER, version.to_owned())).into_iter().collect();
        let mut stream = client.stream(&headers).await;
        let mut response = client.start(1, "ask", &headers).await;
        let asked = chunk(&mut stream).await.expect("the server asks");
        let asked: Value = serde_json::from_str(asked.split_once("data: ").expect("a message").1).expect("JSON");
        client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}})).await;
        let answer = chunk(&mut response).await.expect("the answer");
        assert!(answer.contains("\"result\""), "{version:?}: {answer}");
    }
}

#[tokio::test]
async fn a_standing_stream_begins_with_its_place_and_ends_with_a_time_to_come_back() {
    let mut rig = Rig::ready(&["--drain-timeout", "100ms"], &python("well")).await;
    let mut stream = {
        let client = rig.open().await;
        let mut stream = client.stream(&newest()).await;
        assert_eq!(chunk(&mut stream).await.expect("a beginning"), "retry: 1000\nid: 0-0\ndata: \n\n");
        let mut newer = client.stream(&newest()).await;
        assert_eq!(chunk(&mut newer).await.expect("a beginning"), "retry: 1000\nid: 0-0\ndata: \n\n");
        assert_eq!(chunk(&mut stream).await.expect("a time"), "retry: 1000\n\n", "the newer one took over");
        assert_eq!(chunk(&mut stream).await, None);
        newer
    };
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(chunk(&mut stream).await.expect("a time"), "retry: 1000\n\n", "the bridge goes away");
    assert_eq!(chunk(&mut stream).await, None);
    assert!(rig.until_ended().await.success());
}

#[tokio::test]
async fn what_a_client_of_a_stateless_server_says_reaches_it_and_cancels_only_its_own_call() {
    let rig = Rig::ready(&["--session-type", "stateless"], &python("well")).await;
    let (one, other) = (rig.open().await, rig.open().await);
    let waiting = async |client: &common::Client<'_>, name: &str| {
        let params = json!({"name": "wait", "arguments": {"name": name}});
        client.post(&json!({"jsonrpc": "2.0", "id": "same", "method": "tools/call", "params": params})).await
    };
    let telling = async {
        let id = async |name: &str| {
            let line = rig.logged(&format!("waiting {name} as ")).await;
            let entry: Value = serde_json::from_str(&line).expect("JSON");
            entry["message"].as_str().unwrap().rsplit_once(' ').unwrap().1.to_owned()
        };
        let (of_one, of_other) = (id("one").await, id("other").await);
        let cancel = async |client: &common::Client<'_>, id: Value| {
            let params = json!({"reason": "bored", "requestId": id});
            client.post(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await
        };
        let again = one.post(&json!({"jsonrpc": "2.0", "id": "same", "method": "ping"})).await;
        assert_eq!((again.status, &again.messages[0]["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32600)));
        // Neither a stranger's "same" nor another's number is anyone's here.
        assert_eq!(cancel(&rig.client(), json!("same")).await.status, StatusCode::ACCEPTED);
        assert_eq!(cancel(&one, json!(of_other.parse::<u64>().unwrap())).await.status, StatusCode::ACCEPTED);
        assert_eq!(cancel(&one, json!("same")).await.status, StatusCode::ACCEPTED);
        let released = one.post(&json!({"jsonrpc": "2.0", "method": "test/release"})).await;
        assert_eq!(released.status, StatusCode::ACCEPTED);
        rig.logged("\"released\"").await;
        let log = rig.log.lock().unwrap().clone();
        assert!(log.contains(&format!("cancelled {of_one} because bored")), "{log}");
        assert_eq!(log.matches("\"cancelled ").count(), 1, "{log}");
    };
    let (first, second, ()) = tokio::join!(waiting(&one, "one"), waiting(&other, "other"), telling);
    assert_eq!((first.text(), second.text()), ("released", "released"));
}
