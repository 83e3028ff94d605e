//! Sessions: whose they are, where they live, and what passes through them.

use std::net::SocketAddr;

use http::Method;
use serde_json::json;

use crate::bridge::Bridge;
use crate::client::{Client, call, initialize, soon, until};
use crate::log::Log;
use crate::ports::free_port;
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE};

#[tokio::test]
async fn a_call_reaches_the_server_as_it_was_written_and_its_answer_comes_back_untouched() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let body = r#"{ "params":{"name":"echo","x-unknown":1e2,"arguments":{"n":12345678901234567890123}},"id":2,"method":"tools/call","jsonrpc":"2.0"}"#;
    let answer = gateway.client().session(&session).post(ROUTE, body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let seen = bridge.seen();
    assert_eq!(seen[1].body, body);
    assert_eq!(seen[0].session(), seen[1].session(), "one session at the bridge");
    assert_ne!(seen[0].session(), session, "the client's name for it is another");
    let timeout: u64 = seen[1].headers["portolan-timeout-ms"].to_str().unwrap().parse().unwrap();
    assert!((1_000..=30_000).contains(&timeout), "{timeout}");
}

#[tokio::test]
async fn an_initialize_that_the_server_refuses_is_answered_by_it_and_names_no_session() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let opened = || gateway.metric(r#"portolan_gateway_sessions_opened_total{route="default/everything"}"#);
    let wrong = initialize().replace(r#""capabilities":{}"#, r#""capabilities":3"#);
    let answer = gateway.client().post(ROUTE, wrong).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["error"]["message"], "capabilities are an object");
    assert_eq!(answer.header("mcp-session-id"), None);
    assert_eq!(opened().await, 0.0);
    gateway.client().initialize().await;
    assert_eq!(opened().await, 1.0);
}

#[tokio::test]
async fn a_credential_never_travels_upstream_and_ours_never_come_down() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client =
        gateway.client().session(&session).with("cookie", "c=1").with("x-custom", "x").with("portolan-mac", "mine");
    let call = client.clone().with("mcp-protocol-version", "2025-11-25").call("echo", json!({})).await;
    let mut stream = client.with("last-event-id", "0-7").open(Method::GET, ROUTE, "").await;
    stream.read_until("keep-alive").await;
    for seen in bridge.seen() {
        let names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        for name in &names {
            let known = [
                "host",
                "content-length",
                "content-type",
                "accept",
                "mcp-protocol-version",
                "last-event-id",
                "portolan-session",
                "portolan-mac",
                "portolan-caller",
                "portolan-pod",
                "portolan-timeout-ms",
                "te",
            ];
            assert!(known.contains(name), "{name} travelled upstream");
        }
        assert!(!format!("{seen:?}").contains(ALICE));
    }
    assert_eq!(bridge.forged(), 0, "the client's header of that name does not take our MAC's place");
    assert_eq!(bridge.seen()[2].headers["last-event-id"], "0-7");
    for headers in [&call.headers, &stream.headers] {
        assert!(!headers.keys().any(|name| name.as_str().starts_with("portolan-")), "{headers:?}");
    }
    assert_eq!(stream.headers["x-accel-buffering"], "no");
}

#[tokio::test]
async fn what_a_client_accepts_may_be_written_in_two_headers() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let client = gateway.client().with("accept", "application/json").and("accept", "text/event-stream");
    assert_eq!(client.post(ROUTE, initialize()).await.status, 200);
    let seen = bridge.seen();
    let accepted: Vec<_> = seen[0].headers.get_all("accept").iter().collect();
    assert_eq!(accepted, ["application/json", "text/event-stream"]);
}

#[tokio::test]
async fn notifications_answers_and_delete_pass_through() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let answer = client.post(ROUTE, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    let answer = client.send(Method::DELETE, ROUTE, "").await;
    assert_eq!(answer.status, 204);
    let methods: Vec<_> = bridge.seen().iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["POST", "POST", "DELETE"]);
}

#[tokio::test]
async fn events_are_handed_over_one_by_one_and_a_stream_that_breaks_off_ends_with_an_answer() {
    let log = Log::capture();
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session).with("content-type", "application/json");
    let stream = client.open(Method::POST, ROUTE, call("notify", json!({}))).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let (text, whole) = stream.read_to_end().await;
    assert!(whole && text.matches("data: ").count() == 2, "{text}");
    let (text, whole) = client.open(Method::POST, ROUTE, call("cut", json!({}))).await.read_to_end().await;
    assert!(whole, "the break is told inside the stream");
    assert!(text.contains("notifications/progress") && text.contains("ServerUnreachable"), "{text}");
    assert!(text.contains(r#""id":2"#) && text.ends_with("\n\n"), "{text}");
    let counted = r#"portolan_gateway_requests_total{method="tools/call",outcome="ServerUnreachable",route="default/everything"}"#;
    until("both calls are recorded", async || log.access().len() >= 3).await;
    assert_eq!(gateway.metric(counted).await, 1.0, "what the client was told is what is recorded");
    let outcomes: Vec<_> = log.access().iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["OK", "OK", "ServerUnreachable"]);
    let told = log.lines().into_iter().find(|line| line["message"] == "a pod's answer broke off");
    let told = told.expect("the cause is logged");
    assert_eq!(told["pod"], "uid-1");
    assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{told}");
}

#[tokio::test]
async fn a_break_is_told_wherever_the_last_event_is_whole_however_it_came_and_its_type_is_written() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session).with("content-type", "application/json");
    for (kind, frames, is_told) in [
        ("text/event-stream", json!(["data: 1\n", "\n"]), true),
        ("text/event-stream", json!(["data: 1\r\n\r", "\n"]), true),
        ("Text/Event-Stream; charset=utf-8", json!(["data: 1\n\n"]), true),
        ("text/event-stream", json!(["data: 1\n"]), false),
        ("text/event-streams", json!(["data: 1\n\n"]), false),
    ] {
        let arguments = json!({"type": kind, "frames": frames});
        let stream = client.open(Method::POST, ROUTE, call("cut", arguments)).await;
        assert_eq!(stream.headers.contains_key("x-accel-buffering"), kind != "text/event-streams", "{kind}");
        let (text, whole) = stream.read_to_end().await;
        assert_eq!((whole, text.contains("ServerUnreachable")), (is_told, is_told), "{kind} {frames}: {text}");
    }
}

#[tokio::test]
async fn any_replica_serves_any_session() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let session = a.client().initialize().await;
    let client = a.client().session(&session).with("content-type", "application/json");
    let mut stream = client.clone().at(b.address).open(Method::GET, ROUTE, "").await;
    stream.read_until("keep-alive").await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.call("ask", json!({})).await }
    });
    stream.read_until("elicitation/create").await;
    let answer = json!({"jsonrpc": "2.0", "id": "question", "result": {"action": "accept"}}).to_string();
    let posted = client.at(a.address).post(ROUTE, answer).await;
    assert_eq!(posted.status, 202);
    let asked = soon(asking).await.expect("no panic");
    assert_eq!(asked.json()["result"]["action"], "accept");
}

#[tokio::test]
async fn a_replica_with_other_keys_knows_nothing_of_a_session() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let objects = Objects::new(&[&bridge]);
    let a = Gateway::start(&objects).await;
    let mut inputs = portolan_snapshot::Inputs::clone(&objects.inputs());
    inputs.secret.insert("session.0".into(), k8s_openapi::ByteString(vec![2; 32]));
    let b = Gateway::start(&objects).await;
    b.load(inputs.clone().into()).await;
    let session = a.client().initialize().await;
    assert_eq!(b.client().session(&session).call("echo", json!({})).await.status, 404);
    // Rotation: the new key in front, the old one behind it.
    inputs.secret.insert("session.1".into(), k8s_openapi::ByteString(vec![1; 32]));
    b.load(inputs.into()).await;
    assert_eq!(b.client().session(&session).call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_replica_that_has_not_heard_of_a_sessions_pod_yet_asks_for_patience_and_not_for_another_session() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let (informed, late) = (Objects::new(&[&bridge]), Objects::new(&[]));
    let (a, b) = (Gateway::start(&informed).await, Gateway::start(&late).await);
    let session = a.client().initialize().await;
    let answer = b.client().session(&session).call("echo", json!({})).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    b.load(informed.inputs()).await;
    assert_eq!(b.client().session(&session).call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn an_address_that_another_pod_got_is_404_and_that_pod_is_not_asked() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    objects.pods[0].0 = "uid-2".into();
    gateway.load(objects.inputs()).await;
    let reached = bridge.seen().len();
    let answer = gateway.client().session(&session).call("echo", json!({})).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_i64()), (404, Some(-32001)));
    assert_eq!(bridge.seen().len(), reached);
    assert_eq!(gateway.metric(r#"portolan_gateway_sessions_refused_total{reason="UnknownSession"}"#).await, 1.0);
}

#[tokio::test]
async fn a_draining_revision_keeps_its_sessions_and_new_ones_go_to_the_serving_one() {
    let (old, new) = (Bridge::start("uid-old", MAC_KEY).await, Bridge::start("uid-new", MAC_KEY).await);
    let mut objects = Objects::new(&[&old]);
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    objects.pods.push((new.uid.clone(), new.address, "everything-bbbbbbbb".into(), true, true, false));
    // Its pods are ready, but it does not serve yet.
    let revision = |name: &str, state: &str| json!({"name": name, "state": state, "weight": 0, "generation": 1});
    objects.revisions = json!([revision("everything-aaaaaaaa", "Serving"), revision("everything-bbbbbbbb", "Pending")]);
    gateway.load(objects.inputs()).await;
    gateway.client().initialize().await;
    assert_eq!((old.seen().len(), new.seen().len()), (2, 0));
    objects.revisions =
        json!([revision("everything-aaaaaaaa", "Draining"), revision("everything-bbbbbbbb", "Serving")]);
    gateway.load(objects.inputs()).await;
    let fresh = gateway.client().initialize().await;
    assert_eq!((old.seen().len(), new.seen().len()), (2, 1));
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 200);
    assert_eq!(gateway.client().session(&fresh).call("echo", json!({})).await.status, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (3, 2));
}

#[tokio::test]
async fn a_terminating_pod_keeps_its_sessions_and_gets_no_new_ones() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    objects.pods[0].3 = false;
    objects.pods[0].5 = true;
    gateway.load(objects.inputs()).await;
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 200);
    let answer = gateway.client().post(ROUTE, initialize()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    assert_eq!(answer.json()["error"]["data"]["error_type"], "NotReady");
    objects.pods[0].4 = false;
    gateway.load(objects.inputs()).await;
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 503);
}

#[tokio::test]
async fn new_sessions_go_to_another_pod_when_one_is_full_or_gone() {
    let (full, free) = (Bridge::start("uid-full", MAC_KEY).await, Bridge::start("uid-free", MAC_KEY).await);
    full.set_full(true);
    let mut objects = Objects::new(&[&full, &free]);
    let gateway = Gateway::start(&objects).await;
    until("the full pod was tried", async || {
        gateway.client().initialize().await;
        full.seen().len() > 2
    })
    .await;
    let attempts = full.seen().len() + free.seen().len();
    let names: std::collections::HashSet<_> =
        full.seen().iter().chain(&free.seen()).map(|seen| seen.session().to_owned()).collect();
    assert_eq!(names.len(), attempts, "each attempt has a name of its own");
    // Nobody listens there any more.
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    objects.pods[0].1 = gone;
    gateway.load(objects.inputs()).await;
    for _ in 0..8 {
        gateway.client().initialize().await;
    }
    free.set_full(true);
    let answer = gateway.client().post(ROUTE, initialize()).await;
    assert_eq!(answer.header("mcp-session-id"), None, "no session without an answer");
}

#[tokio::test]
async fn a_session_of_a_stateless_server_is_served_by_any_ready_pod() {
    let (one, two) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
    let mut objects = Objects::new(&[&one]);
    objects.server["sessions"] = json!({"type": "Stateless"});
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    objects.pods = Objects::new(&[&two]).pods;
    gateway.load(objects.inputs()).await;
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 200);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_bridge_that_does_not_take_our_mac_is_no_401_for_the_client() {
    let bridge = Bridge::start("uid-1", [9; 32]).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let answer = gateway.client().post(ROUTE, initialize()).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_i64()), (200, Some(-32005)), "{answer:?}");
    assert_eq!((bridge.seen().len(), bridge.forged()), (0, 1));
}

#[tokio::test]
async fn anonymous_callers_are_let_in_only_where_it_is_spelled_out_and_share_their_sessions() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.gateway["authentication"]["anonymous"] = json!({});
    let gateway = Gateway::start(&objects).await;
    let nobody = Client::new(gateway.address);
    let session = nobody.initialize().await;
    assert_eq!(nobody.clone().session(&session).call("echo", json!({})).await.status, 200);
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 404);
    assert_eq!(nobody.key("ptl_wrong").session(&session).call("echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn a_server_that_the_gateway_does_not_select_is_404() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.gateway["servers"] = json!({"selector": {"matchLabels": {"expose": "yes"}}});
    let gateway = Gateway::start(&objects).await;
    let unselected = gateway.client().post(ROUTE, initialize()).await;
    let unknown = gateway.client().post("/default/unknown/mcp", initialize()).await;
    assert_eq!((unselected.status, unknown.status), (404, 404));
    assert_eq!(unselected.body, unknown.body, "the answers tell a server that is there from one that is not");
    assert!(bridge.seen().is_empty());
}
