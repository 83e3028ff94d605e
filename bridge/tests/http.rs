//! The bridge as a sidecar in front of a streamable HTTP server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;
#[path = "../../tests/support/ports.rs"]
mod ports;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::fixture::{Fixture, Opens};
use common::{PATIENCE, Rig, chunk, raw, resident_kib, third_party, until};
use futures::stream::{self, StreamExt};
use http::{Method, StatusCode};
use portolan_mcp::wire::{self, ProbeReason, ProbeState};
use ports::free_port;
use serde_json::json;

struct Everything(Child);

impl Everything {
    fn start(port: u16) -> Self {
        let child = Command::new(third_party("mcp-server-everything"))
            .arg("streamableHttp")
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self(child)
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_http_server_is_served_in_full_and_its_end_is_told() {
    let port = free_port();
    let server = Everything::start(port);
    let rig = Rig::http(&[], &format!("http://127.0.0.1:{port}/mcp"));
    rig.until_ready().await;
    let found = rig.status().await.probe.server.expect("found");
    assert_eq!(found.name, "mcp-servers/everything");
    let (one, other) = (rig.open().await, rig.open().await);
    assert_eq!(rig.status().await.sessions.active, 2);
    assert_eq!(one.call(1, "echo", json!({"message": "hi"})).await.text(), "Echo: hi");
    let reply = one.call(2, "echo", json!({"message": "hi"})).await;
    assert!(!reply.headers.contains_key("mcp-session-id"), "the server's own name for the session stays inside");
    let slow = json!({"duration": 5, "steps": 5});
    let late = other.call_within(3, "trigger-long-running-operation", slow, Some(300)).await;
    assert_eq!(late.error_type(), "RequestTimeout", "{late:?}");
    assert_eq!(rig.client().call(1, "echo", json!({"message": "x"})).await.failure(), Some("UnknownSession"));
    assert_eq!(other.delete().await.status, StatusCode::NO_CONTENT);
    assert_eq!(other.call(4, "echo", json!({"message": "x"})).await.status, StatusCode::NOT_FOUND);
    drop(server);
    let reply = one.call(5, "echo", json!({"message": "hi"})).await;
    assert_eq!((reply.status, reply.error_type()), (StatusCode::OK, "ServerUnreachable"));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unreachable_until_somebody_does() {
    let port = free_port();
    let rig = Rig::http(&["--handshake-timeout", "500ms"], &format!("http://127.0.0.1:{port}/mcp"));
    until("there is a verdict", async || rig.status().await.probe.state == ProbeState::Failing).await;
    assert_eq!(rig.status().await.probe.reason, Some(ProbeReason::Unreachable));
    let _server = Everything::start(port);
    rig.until_ready().await;
}

#[tokio::test]
async fn events_on_the_standing_stream_are_use_and_comments_are_not() {
    // Far longer than a step takes on a busy machine.
    const IDLE: Duration = Duration::from_secs(6);
    const STEP: Duration = Duration::from_millis(50);
    let mut fixture = Fixture::start(1).await;
    let rig = Rig::http(&["--idle-timeout", "6s"], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let client = rig.open().await;
    let mut stream = client.stream(&[]).await;
    let server = fixture.stream().await;
    let opened = Instant::now();
    // The events are what passes the time: the session outlives its idle timeout by them alone.
    while opened.elapsed() < IDLE + IDLE / 4 {
        server.send("data: {}\n\n".into()).expect("the stream is open");
        assert_eq!(chunk(&mut stream).await.as_deref(), Some("data: {}\n\n"));
        tokio::time::sleep(STEP).await;
    }
    assert_eq!(rig.status().await.sessions.active, 1);
    let commenting = tokio::spawn(async move {
        while server.send(": still here\n\n".into()).is_ok() {
            tokio::time::sleep(STEP).await;
        }
    });
    let mut rest = String::new();
    while let Some(text) = chunk(&mut stream).await {
        rest += &text;
    }
    assert!(
        rest.contains(": still here\n\n") && rest.ends_with("\n\nretry: 1000\n\n"),
        "a stream that is closed says when to come back: {rest}"
    );
    commenting.await.expect("the bridge left the server's stream");
    assert_eq!(rig.status().await.sessions.active, 0);
}

#[tokio::test]
async fn an_initialize_whose_client_hangs_up_leaves_no_session() {
    let fixture = Fixture::start(1).await;
    let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    fixture.opens.send_replace(Opens::Never);
    let client = rig.client();
    tokio::select! {
        reply = client.initialize() => panic!("nobody answered: {reply:?}"),
        () = until("it is under way", async || rig.status().await.sessions.active == 1) => {}
    }
    until("the session went with its client", async || rig.status().await.sessions.active == 0).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_once_its_initialize_is_answered_has_its_session() {
    let fixture = Fixture::start(1).await;
    let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let (open, mut stays) = tokio::sync::mpsc::channel(1);
    let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"fixture","version":"1"}}}"#;
    fixture.opens.send_replace(Opens::Staying(format!("data: {answer}\n\n"), open));
    let client = rig.client();
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
    let key = client.key.as_str();
    let mut response = rig.send(Method::POST, rig.data, wire::DATA_PATH, key, Some(body.into()), &[]).await;
    assert!(chunk(&mut response).await.expect("the answer").contains("serverInfo"));
    drop(response);
    fixture.opens.send_replace(Opens::Well);
    let over = tokio::time::timeout(PATIENCE, stays.recv()).await.expect("the stream goes with its client");
    assert_eq!((over, rig.status().await.sessions.active), (None, 1));
    fixture.calls.send_replace(Some((
        StatusCode::OK,
        "application/json",
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(),
    )));
    assert_eq!(client.call(1, "x", json!({})).await.failure(), None);
}

#[tokio::test]
async fn an_initialize_that_is_answered_with_an_error_opens_no_session_and_the_server_hears_that_it_is_over() {
    let no = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no such revision"}}"#;
    let (event, told) =
        (format!("data: {no}\n\n"), "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n");
    for (kind, body) in [
        ("application/json", no.to_owned()),
        ("Text/Event-Stream", format!("{told}{event}")),
        ("text/event-stream", told.to_owned()),
    ] {
        let mut fixture = Fixture::start(1).await;
        let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
        rig.until_ready().await;
        let before = *fixture.goodbyes.borrow();
        fixture.opens.send_replace(Opens::With(kind, body));
        let client = rig.client();
        client.initialize().await;
        assert_eq!(rig.status().await.sessions.active, 0, "{kind}");
        assert_eq!(client.call(1, "x", json!({})).await.failure(), Some("UnknownSession"));
        assert_eq!(before, 0, "the goodbye could be the probe's");
        let heard = tokio::time::timeout(PATIENCE, fixture.goodbyes.wait_for(|most| *most == 1)).await;
        assert!(heard.is_ok(), "the server was not told: {kind}");
    }
}

#[tokio::test]
async fn an_initialize_that_is_answered_with_a_result_opens_a_session_whatever_the_form_of_the_answer() {
    let text = "x".repeat(100 * 1024);
    let yes = |instructions: &str| {
        json!({"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-11-25", "capabilities": {},
            "serverInfo": {"name": "fixture", "version": "1"}, "instructions": instructions}})
    };
    for (kind, body) in [
        ("application/json", yes("").to_string()),
        ("application/json", yes(&text).to_string()),
        ("text/event-stream", format!(": hello\n\ndata: {}\n\n", yes(""))),
        ("text/event-stream", format!("data: {}\n\n", yes(&text))),
    ] {
        let fixture = Fixture::start(1).await;
        let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
        rig.until_ready().await;
        let length = body.len();
        fixture.opens.send_replace(Opens::With(kind, body));
        let reply = rig.client().initialize().await;
        assert_eq!(reply.messages[0]["result"]["protocolVersion"], "2025-11-25");
        assert_eq!(rig.status().await.sessions.active, 1, "{kind} of {length} bytes");
    }
}

#[tokio::test]
async fn a_server_cannot_say_in_a_trailer_what_only_the_bridge_says() {
    let server = raw::Raw::start().await;
    let event = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n";
    // The type is in unusual case.
    let head = raw::events("Text/Event-Stream; charset=utf-8");
    let answer = format!("{head}{}0\r\nportolan-failure: Internal\r\n\r\n", raw::chunk(event));
    server.calls.send_replace((answer, raw::End::Close));
    let rig = Rig::http(&[], &server.url());
    rig.until_ready().await;
    let reply = rig.open().await.call(1, "x", json!({})).await;
    assert_eq!((reply.status, reply.messages.len()), (StatusCode::OK, 1), "{reply:?}");
    assert!(reply.trailers.is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_silent_stream_of_a_server_shows_that_it_is_open() {
    let mut fixture = Fixture::start(1).await;
    let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let client = rig.open().await;
    let mut stream = client.stream(&[]).await;
    let server = fixture.stream().await;
    assert_eq!(chunk(&mut stream).await.as_deref(), Some(": keep-alive\n\n"));
    server.send("data: {}\n\n".into()).expect("the stream is open");
    assert_eq!(chunk(&mut stream).await.as_deref(), Some("data: {}\n\n"));
}

#[tokio::test]
async fn goodbyes_of_idle_sessions_do_not_wait_for_each_other() {
    let mut fixture = Fixture::start(3).await;
    let rig = Rig::http(&["--idle-timeout", "300ms"], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let _open = futures::future::join_all((0..3).map(|_| rig.open())).await;
    let all = tokio::time::timeout(PATIENCE, fixture.goodbyes.wait_for(|most| *most == 3)).await;
    assert!(all.is_ok(), "they came one after another");
}

#[tokio::test]
async fn thousands_of_sessions_that_nobody_comes_back_to_are_ended_here_and_at_the_server_and_leave_nothing() {
    const SESSIONS: usize = 1000;
    // Less than a KiB of each session: what stays for ever grows with every crowd, while the most that was in use at
    // once, which an allocator keeps, depends on how busy the machine is.
    const CROWDS: usize = 6;
    const FLAT_KIB: u64 = SESSIONS as u64;
    let mut fixture = Fixture::start(1).await;
    let rig =
        Rig::http(&["--max-sessions", "1000", "--idle-timeout", "2s"], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let mut resident: Vec<u64> = Vec::new();
    for crowd in 1..=CROWDS {
        let opened = stream::iter(0..SESSIONS).map(|_| rig.open()).buffer_unordered(32);
        assert_eq!(opened.count().await, SESSIONS);
        let all = fixture.ended.wait_for(|ended| *ended == crowd * SESSIONS);
        assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "the server heard all goodbyes");
        assert_eq!(rig.status().await.sessions.active, 0);
        resident.push(resident_kib(rig.pid()));
        if resident.windows(2).any(|pair| pair[1].saturating_sub(pair[0]) < FLAT_KIB) {
            return;
        }
    }
    panic!("every crowd left something: {resident:?} KiB");
}

#[tokio::test]
async fn a_server_that_thinks_long_is_answered_for_by_an_open_stream_and_its_json_becomes_an_event() {
    let ok = "{\n \"jsonrpc\": \"2.0\",\r\n \"id\": 1, \"result\": {\"content\": [{\"text\": \"at last\"}]}\n}";
    let no = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;
    let event = "id: 9\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"text\":\"at last\"}]}}\n\n";
    let cases = [
        (StatusCode::OK, "application/json", ok, "at last", None),
        (StatusCode::OK, "text/event-stream", event, "at last", None),
        (StatusCode::BAD_REQUEST, "application/json", no, "no such tool", None),
        (StatusCode::BAD_GATEWAY, "text/html", "<html>", "502", Some("BadServerReply")),
        (StatusCode::NOT_FOUND, "text/plain", "", "open a new one", Some("UnknownSession")),
    ];
    for (status, kind, body, told, failure) in cases {
        let fixture = Fixture::start(1).await;
        let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
        rig.until_ready().await;
        let client = rig.open().await;
        // The head comes before the server has said a word.
        let response = client.start(1, "think", &[]).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"text/event-stream".parse().unwrap())
        );
        fixture.calls.send_replace(Some((status, kind, body.to_owned())));
        let reply = common::Reply::of(response).await;
        assert_eq!((reply.messages.len(), &reply.messages[0]["id"]), (1, &json!(1)), "{reply:?}");
        assert!(reply.messages[0].to_string().contains(told), "{reply:?}");
        assert_eq!(reply.failure(), failure, "{reply:?}");
    }
}
