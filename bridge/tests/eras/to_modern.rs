//! Clients of sessions in front of a server that knows none.

use http::StatusCode;
use portolan_mcp::modern::VERSION_HEADER;
use serde_json::{Value, json};

use crate::common::{Client, Listener, chunk};
use crate::world::{BOTH, Over, World, told};

/// Nothing is taken back because time ran out.
const LONG: [&str; 2] = ["--request-timeout", "10m"];

async fn ask(client: &Client<'_>, id: u64, method: &str, params: Value) -> Value {
    let reply = client.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    reply.messages.last().expect("an answer").clone()
}

pub(crate) async fn tell(client: &Client<'_>, message: Value) {
    let mut message = message;
    message["jsonrpc"] = "2.0".into();
    assert_eq!(client.post(&message).await.status, StatusCode::ACCEPTED);
}

/// Has the server change while no call is under way, on whose stream its news could come.
async fn change(client: &Client<'_>) {
    tell(client, json!({"method": "notifications/test/change", "params": {"uri": "a:/b"}})).await;
}

/// Begins a call whose stream is of interest.
pub(crate) async fn begin(
    client: &Client<'_>,
    id: u64,
    tool: &str,
    name: &str,
) -> http::Response<hyper::body::Incoming> {
    let params = json!({"name": tool, "arguments": {"name": name}, "_meta": {"progressToken": "t"}});
    let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    let (rig, body) = (client.rig, bytes::Bytes::from(message.to_string()));
    let headers = [(VERSION_HEADER, "2025-11-25".to_owned())];
    rig.send(http::Method::POST, rig.data, portolan_mcp::wire::DATA_PATH, client.key.as_str(), Some(body), &headers)
        .await
}

#[tokio::test]
async fn a_session_is_opened_and_its_calls_are_answered_as_its_revision_has_it() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let client = world.rig.client();
        let opened = client.initialize().await;
        let result = &opened.messages[0]["result"];
        assert_eq!((&result["protocolVersion"], &result["instructions"]), (&json!("2025-11-25"), &json!("be kind")));
        assert_eq!(result["serverInfo"], json!({"name": "modern", "version": "7"}));
        tell(&client, json!({"method": "notifications/initialized"})).await;
        let reply = client.call(1, "echo", json!({"message": "hi"})).await;
        assert_eq!((reply.text(), reply.messages[0]["result"].get("resultType")), ("hi", None), "{over:?}");
        let meta = told(&client.call(2, "meta", json!({})).await);
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "test");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({"sampling": {}, "elicitation": {}}));
        // The server holds headers against bodies, those of marked parameters too.
        assert_eq!(client.call(3, "route", json!({"region": "Königsberg "})).await.text(), "Königsberg ");
        assert_eq!(ask(&client, 4, "ping", json!({})).await["result"], json!({}));
        let listed = ask(&client, 5, "tools/list", json!({})).await;
        assert!(listed["result"]["tools"].as_array().is_some_and(|tools| tools.len() > 10), "{listed}");
        let failed = client.call(6, "fail", json!({"code": -32021})).await;
        assert_eq!((failed.status, &failed.messages[0]["error"]["code"]), (StatusCode::OK, &json!(-32021)));
        assert_eq!(world.rig.status().await.sessions.active, 1);
        assert_eq!(client.delete().await.status, StatusCode::NO_CONTENT);
        assert_eq!(client.call(7, "pid", json!({})).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn sessions_in_front_of_a_command_have_processes_of_their_own_and_one_of_them_was_warm() {
    let world = World::start(Over::Pipes, "modern", &["--warm", "1"]).await;
    crate::common::until("one is warm", async || world.rig.status().await.sessions.warm == 1).await;
    let (one, other) = (world.rig.open().await, world.rig.open().await);
    let pid = one.call(1, "pid", json!({})).await.text().to_owned();
    assert_ne!(other.call(1, "pid", json!({})).await.text(), pid);
    assert_eq!(one.call(2, "pid", json!({})).await.text(), pid);
}

#[tokio::test]
async fn what_a_server_requires_is_asked_on_the_calls_stream_and_its_answer_finishes_the_call() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let client = world.rig.open().await;
        let mut stream = Listener::new(begin(&client, 1, "ask", "").await.into_body());
        let asked = stream.next().await.expect("a question");
        assert_eq!(
            (&asked["method"], &asked["params"]["message"]),
            (&json!("elicitation/create"), &json!("How many?"))
        );
        tell(&client, json!({"id": asked["id"], "result": {"action": "accept", "content": {"n": 3}}})).await;
        let done = stream.next().await.expect("the answer");
        let text: Value = serde_json::from_str(done["result"]["content"][0]["text"].as_str().expect("text")).unwrap();
        assert_eq!(text, json!({"first": {"action": "accept", "content": {"n": 3}}}), "{over:?}");
        assert_eq!((&done["id"], stream.next().await), (&json!(1), None));
    }
}

#[tokio::test]
async fn changes_arrive_on_the_standing_stream() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let client = world.rig.open().await;
        let mut standing = client.listen().await;
        world.said(r#"listens for {"toolsListChanged": true}"#).await;
        change(&client).await;
        let changed = standing.next().await.expect("news");
        assert_eq!(changed["method"], "notifications/tools/list_changed");
        assert_eq!(changed["params"].get("_meta"), None, "a session knows no subscriptions: {changed}");

        let refused = ask(&client, 2, "resources/subscribe", json!({"uri": "refuse:/it"})).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
        let watched = ask(&client, 3, "resources/subscribe", json!({"uri": "a:/b"})).await;
        assert_eq!(watched["result"], json!({}), "one that was refused is not asked for again: {watched}");
        change(&client).await;
        assert_eq!(standing.next().await.expect("news")["method"], "notifications/tools/list_changed");
        let updated = standing.next().await.expect("news");
        assert_eq!(updated["params"], json!({"uri": "a:/b"}), "{over:?}");

        assert_eq!(ask(&client, 5, "resources/unsubscribe", json!({"uri": "a:/b"})).await["result"], json!({}));
        world.said(r#"no longer listens for {"toolsListChanged": true, "resourceSubscriptions": ["a:/b"]}"#).await;
        for _ in 0..2 {
            change(&client).await;
            assert_eq!(standing.next().await.expect("news")["method"], "notifications/tools/list_changed");
        }
    }
}

#[tokio::test]
async fn a_level_that_the_session_sets_is_what_every_request_asks_for() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let client = world.rig.open().await;
        assert_eq!(client.call(1, "log", json!({})).await.text(), "None");
        assert_eq!(ask(&client, 2, "logging/setLevel", json!({"level": "error"})).await["result"], json!({}));
        let reply = client.call(3, "log", json!({})).await;
        assert_eq!((reply.text(), &reply.messages[0]["params"]["level"]), ("error", &json!("error")), "{over:?}");
    }
}

#[tokio::test]
async fn a_call_that_its_client_cancels_is_taken_back_at_the_server() {
    for over in BOTH {
        let world = World::start(over, "modern", &LONG).await;
        let client = world.rig.open().await;
        let _stream = begin(&client, 7, "wait", "one").await;
        world.said("waits for one").await;
        tell(&client, json!({"method": "notifications/cancelled", "params": {"requestId": 7}})).await;
        world.said("took back one").await;
        assert_eq!(client.call(8, "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
    }
}

#[tokio::test]
async fn a_client_that_lost_its_stream_comes_back_to_it_and_its_call_went_on() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let client = world.rig.open().await;
        let mut stream = begin(&client, 7, "wait", "one").await;
        let mut seen = String::new();
        while !seen.contains("notifications/progress") {
            seen += &chunk(&mut stream).await.expect("the stream is open");
        }
        let last = seen.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("an id").to_owned();
        drop(stream);
        client.call(8, "release", json!({})).await;
        let answer = client.listen_after(Some(&last)).await.next().await.expect("the answer");
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(7), &json!("one")), "{over:?}");
        assert_eq!(world.times_said("took back"), 0);
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_taken_back() {
    for over in BOTH {
        let world = World::start(over, "modern", &LONG).await;
        let client = world.rig.open().await;
        let late = client.call_within(1, "wait", json!({"name": "too long"}), Some(300)).await;
        assert_eq!(late.error_type(), "RequestTimeout");
        world.said("took back too long").await;
        assert_eq!(client.call(2, "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
    }
}
