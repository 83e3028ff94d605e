//! The admin port: probes, metrics, and what the operator is told.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use portolan_mcp::mac::{self, MacKey, Subject};
use portolan_snapshot::{Report, report::Kind};
use serde_json::json;

use crate::bridge::Bridge;
use crate::client::{Client, Streaming, initialize, soon, until};
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE, STREAM_KEY, config};

#[tokio::test]
async fn a_replica_without_configuration_is_alive_but_not_ready_and_says_so() {
    let gateway = Gateway::start_with(config(), None).await;
    assert_eq!(gateway.admin().get("/livez").await.status, 200);
    let answer = gateway.admin().get("/readyz").await;
    assert_eq!((answer.status, answer.text().trim_end()), (503, "no configuration has been loaded yet"));
    let answer = gateway.client().post(ROUTE, initialize()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn who_comes_before_the_first_configuration_is_answered_once_it_is_there() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start_with(config(), None).await;
    let early = tokio::spawn({
        let client = gateway.client();
        async move { client.post(ROUTE, initialize()).await }
    });
    until("it is known that there is no configuration", async || gateway.admin().get("/readyz").await.status == 503)
        .await;
    assert!(!early.is_finished());
    gateway.load(Objects::new(&[&bridge]).inputs()).await;
    assert_eq!(soon(early).await.expect("no panic").status, 200);
}

#[tokio::test]
async fn requests_sessions_and_the_snapshot_are_counted_by_labels_from_fixed_sets() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    client.call("echo", json!({})).await;
    client.post(ROUTE, r#"{"jsonrpc":"2.0","id":1,"method":"made/up"}"#).await;
    client.get("/default/made-up/mcp").await;
    let call = |outcome: &str| {
        format!(
            r#"portolan_gateway_requests_total{{method="tools/call",outcome="{outcome}",route="default/everything"}}"#
        )
    };
    assert_eq!(gateway.metric(&call("OK")).await, 1.0);
    client.call("fail", json!({})).await;
    assert_eq!(gateway.metric(&call("ServerExited")).await, 1.0, "the bridge's word for it");
    let opened = r#"portolan_gateway_sessions_opened_total{route="default/everything"}"#;
    assert_eq!(gateway.metric(opened).await, 1.0);
    assert_eq!(gateway.metric("portolan_gateway_config_generation").await, 1.0);
    assert!(gateway.metric("portolan_gateway_overhead_seconds_count").await >= 4.0);
    let text = gateway.admin().get("/metrics").await.text();
    assert!(!text.contains("made/up") && !text.contains("made-up"), "what clients write became a label: {text}");
    assert!(text.contains(r#"method="_OTHER""#));
}

#[tokio::test]
async fn a_route_that_is_gone_leaves_no_series_although_a_call_of_it_is_still_under_way() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let slow = tokio::spawn(async move { client.call("slow", json!({})).await });
    until("it is at the server", async || bridge.seen().len() == 2).await;
    let in_flight = r#"portolan_gateway_requests_in_flight{route="default/everything"}"#;
    assert_eq!(gateway.metric(in_flight).await, 1.0);
    let mut inputs = portolan_snapshot::Inputs::clone(&objects.inputs());
    inputs.servers.retain(|server| server.metadata.name.as_deref() != Some("everything"));
    gateway.load(inputs.into()).await;
    let series = async || gateway.admin().get("/metrics").await.text();
    assert!(!series().await.contains("default/everything"), "dropped with the route");
    bridge.release.notify_one();
    assert_eq!(soon(slow).await.expect("no panic").status, 200, "what was begun goes on");
    let ended = r#"portolan_gateway_requests_total{method="tools/call",outcome="OK",route="_gone"}"#;
    until("it is counted", async || gateway.metric(ended).await == 1.0).await;
    assert!(!series().await.contains("default/everything"), "{}", series().await);
    // A server of that name that comes later begins anew.
    gateway.load(objects.inputs()).await;
    assert_eq!(gateway.metric(in_flight).await, 0.0);
}

#[tokio::test]
async fn the_operator_is_told_everything_once_and_then_what_changed() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    let gateway = Gateway::start(&objects).await;
    let mut stream = signed(&gateway).open(Method::GET, "/v1/stream", "").await;
    assert_eq!(stream.status, 200);
    let mut state = None;
    let first = line(&mut stream, 0).await;
    assert_eq!(first.kind, Kind::Whole);
    Report::apply(&mut state, first).expect("whole");
    let loaded = |state: &Option<Report>| {
        state.as_ref().expect("whole").servers["default/everything"].loaded.clone().expect("loaded")
    };
    assert_eq!(loaded(&state).revision.as_deref(), Some("everything-aaaaaaaa"));
    assert_eq!((loaded(&state).generation, loaded(&state).ready_pods), (1, 1));
    objects.pods.clear();
    let mut inputs = portolan_snapshot::Inputs::clone(&objects.inputs());
    inputs.servers.retain(|server| server.metadata.name.as_deref() != Some("other"));
    inputs.servers[0].metadata.generation = Some(2);
    gateway.load(inputs.clone().into()).await;
    let change = line(&mut stream, 1).await;
    assert_eq!(
        (change.kind, change.servers.len(), &*change.removed),
        (Kind::Change, 1, &["default/other".to_owned()][..])
    );
    Report::apply(&mut state, change).expect("a change");
    assert_eq!((loaded(&state).generation, loaded(&state).ready_pods), (2, 0));
    // A version that cannot be served is not reported as loaded: the one before is.
    inputs.servers[0].metadata.generation = Some(3);
    inputs.secret.remove("server.default.everything");
    gateway.load(inputs.into()).await;
    Report::apply(&mut state, line(&mut stream, 2).await).expect("a change");
    assert_eq!(loaded(&state).generation, 2);
    let problem = state.as_ref().expect("whole").servers["default/everything"].problem.clone().expect("a problem");
    assert!(problem.contains("server.default.everything"), "{problem}");
}

#[tokio::test]
async fn the_stream_is_for_whoever_has_its_key() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    for client in [gateway.admin(), gateway.admin().key(ALICE), sign(gateway.admin(), MAC_KEY)] {
        assert_eq!(client.get("/v1/stream").await.status, 401);
    }
}

pub fn signed(gateway: &Gateway) -> Client {
    sign(gateway.admin(), STREAM_KEY)
}

fn sign(client: Client, key: [u8; 32]) -> Client {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let subject = Subject { method: "GET", path: "/v1/stream", session: "", pod: "" };
    let mac = MacKey::new(&key).expect("a key").sign(subject, now.try_into().expect("fits"));
    client.with(mac::HEADER.as_str(), &mac)
}

/// The line of that number, waiting for it.
pub async fn line(stream: &mut Streaming, number: usize) -> Report {
    let text = stream.read_lines(number + 1).await;
    serde_json::from_str(text.lines().nth(number).expect("a line")).expect("a report")
}
