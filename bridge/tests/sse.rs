//! The bridge as a sidecar in front of a server of the older HTTP+SSE transport.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;
#[path = "../../tests/support/ports.rs"]
mod ports;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Client, Rig, chunk, until};
use http::StatusCode;
use portolan_mcp::wire::{ExitCause, ProbeReason, ProbeState};
use ports::free_port;
use serde_json::{Value, json};

/// A server, ended when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(mode: &[&str]) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/sse.py");
        let mut child =
            Command::new("python3").arg(script).args(mode).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        Self { child, port: line.trim().parse().expect("a port") }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ready(flags: &[&str]) -> (Server, Rig) {
    let server = Server::start(&["well"]);
    let rig = Rig::sse(flags, &server.url("/sse"));
    rig.until_ready().await;
    (server, rig)
}

async fn failing(server: &Server, path: &str) -> (ProbeReason, String) {
    let rig = Rig::sse(&[], &server.url(path));
    until("there is a verdict", async || rig.status().await.probe.state == ProbeState::Failing).await;
    let probe = rig.status().await.probe;
    (probe.reason.expect("a reason"), probe.message)
}

#[tokio::test]
async fn an_older_server_is_served_and_its_sessions_do_not_see_each_other() {
    let (_server, rig) = ready(&[]).await;
    let found = rig.status().await.probe.server.expect("found");
    assert_eq!((found.name.as_str(), found.protocol_version.as_str()), ("older", "2024-11-05"));
    let (one, other) = (rig.open().await, rig.open().await);
    assert_eq!((rig.status().await.sessions.active, rig.status().await.sessions.warm), (2, 0));
    assert_eq!(one.call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
    let (first, second) = (one.call(2, "session", json!({})).await, other.call(2, "session", json!({})).await);
    assert_ne!(first.text(), second.text(), "one event stream each");
    assert_eq!(one.call(3, "sessions", json!({})).await.text(), "3", "the probe has its own");
    let mut listener = other.listen().await;
    assert_eq!(one.call(4, "notify", json!({"message": "for one"})).await.messages.len(), 2);
    one.listen().await;
    other.call(5, "echo", json!({"message": "x"})).await;
    // What is on the other's stream is its own, and nothing came before it.
    let (answer, told) = tokio::join!(other.call(6, "ask", json!({})), async {
        let asked = listener.next().await.expect("the server asks");
        let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"model": "m"}});
        assert_eq!(other.post(&reply).await.status, StatusCode::ACCEPTED);
        asked["method"].clone()
    });
    assert_eq!((answer.text(), told), (r#"{"model": "m"}"#, json!("sampling/createMessage")));
    assert_eq!(one.delete().await.status, StatusCode::NO_CONTENT);
    until("the server knows that it is gone", async || other.call(7, "sessions", json!({})).await.text() == "2").await;
    assert_eq!(one.call(8, "session", json!({})).await.status, StatusCode::NOT_FOUND);
    let exit = rig.status().await.exits.into_iter().find(|exit| exit.session == one.key.as_str()).expect("told");
    assert_eq!((exit.cause, exit.last_stderr.as_str()), (ExitCause::Deleted, ""));
}

#[tokio::test]
async fn messages_are_posted_in_the_order_in_which_they_came() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    for n in 0..20 {
        client.post(&json!({"jsonrpc": "2.0", "method": format!("test/{n}")})).await;
    }
    let expected: Vec<String> = ["initialize", "notifications/initialized"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..20).map(|n| format!("test/{n}")))
        .chain(["tools/call".to_owned()])
        .collect();
    let methods: Vec<String> = serde_json::from_str(client.call(1, "methods", json!({})).await.text()).unwrap();
    assert_eq!(methods, expected);
}

#[tokio::test]
async fn a_server_that_answers_posts_late_does_not_hold_up_what_its_call_waits_for() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    let release = async {
        until("another call is answered meanwhile", async || {
            client.call(2, "methods", json!({})).await.text().contains("initialized")
        })
        .await;
        client.post(&json!({"jsonrpc": "2.0", "method": "test/release"})).await;
    };
    let (held, ()) = tokio::join!(client.call(1, "held", json!({})), release);
    assert_eq!(held.text(), "released");
}

#[tokio::test]
async fn progress_comes_before_the_answer_on_the_calls_own_stream() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    let params = json!({"name": "progress", "arguments": {"token": "p"}, "_meta": {"progressToken": "p"}});
    let reply = client.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await;
    let methods: Vec<&Value> = reply.messages.iter().map(|message| &message["method"]).collect();
    assert_eq!(methods, [&json!("notifications/progress"), &Value::Null]);
}

#[tokio::test]
async fn a_call_whose_connection_broke_is_answered_on_the_stream_that_resumes_it() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    let mut response = client.start(1, "ask", &[]).await;
    let text = chunk(&mut response).await.expect("an event");
    let id = text.strip_prefix("id: ").and_then(|rest| rest.lines().next()).expect("an event id");
    let asked: String = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let asked: Value = serde_json::from_str(&asked).expect("JSON");
    drop(response);
    client.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"late": 1}})).await;
    let mut resumed = client.listen_after(Some(id)).await;
    let answer = resumed.next().await.expect("the answer");
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"late": 1}"#);
    assert_eq!(resumed.next().await, None, "the stream ends with the answer");
}

#[tokio::test]
async fn events_of_other_types_comments_and_a_second_endpoint_change_nothing() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    let reply = client.call(1, "other-events", json!({})).await;
    assert_eq!((reply.text(), reply.messages.len()), ("sent", 1), "{reply:?}");
    assert_eq!(rig.status().await.counters.skipped_lines, 1, "what is no message is counted");
    assert_eq!(client.call(2, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn a_post_that_is_not_taken_fails_its_call_alone() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    for (id, tool, kind, words) in [
        (1, "refused", "BadServerReply", "answered POST with 400 Bad Request: this is not to its taste"),
        (2, "moved", "BadServerReply", "307 Temporary Redirect, and redirects are not followed"),
        (3, "unfinished", "ServerUnreachable", "cannot reach the server at http://127.0.0.1"),
    ] {
        let reply = client.call(id, tool, json!({})).await;
        assert_eq!((reply.status, reply.failure(), reply.error_type()), (StatusCode::OK, Some(kind), kind));
        assert!(reply.messages[0].to_string().contains(words), "{reply:?}");
    }
    assert_eq!(rig.status().await.counters.refused_calls, 3);
    // The id is free again: nobody waits for it.
    assert_eq!(client.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn an_event_stream_that_ends_during_a_call_ends_its_session_alone() {
    let (_server, rig) = ready(&[]).await;
    let (client, other) = (rig.open().await, rig.open().await);
    let reply = client.call(1, "close", json!({})).await;
    assert_eq!(
        (reply.status, reply.failure(), reply.error_type()),
        (StatusCode::OK, Some("ServerExited"), "ServerExited")
    );
    assert!(
        reply.messages[0].to_string().contains("the server ended its event stream. Open a new session"),
        "{reply:?}"
    );
    assert_eq!(client.call(2, "echo", json!({"message": "x"})).await.failure(), Some("UnknownSession"));
    assert_eq!(other.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
    let exit = rig.status().await.exits.into_iter().find(|exit| exit.session == client.key.as_str()).expect("told");
    assert_eq!((exit.cause, exit.last_stderr.as_str()), (ExitCause::ServerExited, "the server ended its event stream"));
}

#[tokio::test]
async fn a_server_that_ends_during_a_call_fails_it_and_is_told_by_the_probe() {
    let (_server, rig) = ready(&["--unhealthy-threshold", "1"]).await;
    let client = rig.open().await;
    assert_eq!(client.call(1, "die", json!({})).await.error_type(), "ServerExited");
    until("the probe says so", async || rig.status().await.probe.state == ProbeState::Failing).await;
    let late = rig.client().initialize().await;
    assert_eq!(late.failure(), Some("ServerUnreachable"), "{late:?}");
    until("no session is left", async || rig.status().await.sessions.active == 0).await;
}

#[tokio::test]
async fn the_probe_connects_again_to_a_server_that_comes_back() {
    let port = free_port();
    let rig = Rig::sse(&["--handshake-timeout", "500ms"], &format!("http://127.0.0.1:{port}/sse"));
    until("there is a verdict", async || rig.status().await.probe.state == ProbeState::Failing).await;
    assert_eq!(rig.status().await.probe.reason, Some(ProbeReason::Unreachable));
    let _server = Server::start(&["well", &port.to_string()]);
    rig.until_ready().await;
}

#[tokio::test]
async fn an_endless_event_ends_its_session_alone_and_is_never_held() {
    let (_server, rig) = ready(&["--max-message-bytes", "1048576"]).await;
    let (client, other) = (rig.open().await, rig.open().await);
    let reply = client.call(1, "endless", json!({"bytes": 256u64 << 20})).await;
    assert_eq!(reply.error_type(), "BadServerReply");
    assert!(common::resident_kib(rig.pid()) < 24 * 1024, "{} KiB", common::resident_kib(rig.pid()));
    assert_eq!(client.call(2, "echo", json!({"message": "x"})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
    let status = rig.status().await;
    let exit = status.exits.into_iter().find(|exit| exit.session == client.key.as_str()).expect("told");
    assert_eq!((status.counters.oversized_messages, exit.cause), (1, ExitCause::MessageTooLong));
}

#[tokio::test]
async fn an_endpoint_on_another_origin_is_refused_and_nothing_is_sent_there() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let server = Server::start(&["elsewhere", &format!("http://{}", trap.local_addr().unwrap())]);
    let (reason, message) = failing(&server, "/sse").await;
    assert_eq!(reason, ProbeReason::NotMcp);
    assert!(message.contains("is not on http://127.0.0.1:") && message.contains("let the server send the path alone"));
    let rig = Rig::sse(&[], &server.url("/sse"));
    let reply = rig.client().initialize().await;
    assert_eq!(reply.failure(), Some("BadServerReply"), "{reply:?}");
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody connected");
}

#[tokio::test]
async fn an_absolute_endpoint_of_the_same_origin_is_used() {
    let server = Server::start(&["absolute"]);
    let rig = Rig::sse(&[], &server.url("/sse"));
    rig.until_ready().await;
    assert_eq!(rig.open().await.call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
}

#[tokio::test]
async fn what_is_no_event_stream_is_told_with_what_to_write() {
    let server = Server::start(&["well"]);
    for (path, words) in [
        ("/moved", "answered GET with 302 Found, and redirects are not followed: write the path that it leads to"),
        ("/page", "answered GET with application/json, not with an event stream; is its path another?"),
        ("/nowhere", "answered GET with 404 Not Found; is its path another, or its transport StreamableHTTP?"),
    ] {
        let (reason, message) = failing(&server, path).await;
        assert_eq!(reason, ProbeReason::NotMcp);
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn a_stateless_server_answers_every_client_on_the_one_stream() {
    let (_server, rig) = ready(&["--session-type", "stateless"]).await;
    let (one, other) = (rig.open().await, rig.open().await);
    let ask = async |client: &Client<'_>| client.call(1, "session", json!({})).await.text().to_owned();
    let (first, second) = tokio::join!(ask(&one), ask(&other));
    assert_eq!(first, second, "one stream");
    let refused = other.call(2, "refused", json!({})).await;
    assert_eq!((refused.failure(), refused.error_type()), (Some("BadServerReply"), "BadServerReply"));
    assert_eq!(one.call(3, "close", json!({})).await.error_type(), "ServerExited");
    until("it is back", async || {
        let reply = other.call(4, "session", json!({})).await;
        reply.failure().is_none() && reply.text() != first
    })
    .await;
}

#[tokio::test]
async fn a_call_that_hangs_is_answered_after_the_callers_timeout_and_cancelled() {
    let (_server, rig) = ready(&[]).await;
    let client = rig.open().await;
    let reply = client.call_within(1, "hang", json!({}), Some(300)).await;
    assert_eq!(reply.failure(), Some("RequestTimeout"));
    until("the server was told", async || {
        client.call(2, "methods", json!({})).await.text().contains("notifications/cancelled")
    })
    .await;
}
