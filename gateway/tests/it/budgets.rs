//! Budgets: requests under way and bytes held, of one server and of all, and what callers are told past them.

use std::time::Duration;

use http::Method;
use portolan_gateway::{Bounds, Config};
use serde_json::json;
use socket2::SockRef;

use crate::bridge::Bridge;
use crate::client::{Answer, call, soon, until};
use crate::log::Log;
use crate::world::{Gateway, MAC_KEY, OTHER_ROUTE, Objects, ROUTE, config};

const BYTES: &str = "portolan_gateway_buffered_bytes";

async fn start(bridge: &Bridge, change: impl FnOnce(&mut Bounds)) -> Gateway {
    let mut config: Config = config();
    change(&mut config.bounds);
    Gateway::start_with(config, Some(Objects::new(&[bridge]).inputs())).await
}

async fn hits(gateway: &Gateway, bound: &str) -> f64 {
    gateway.metric(&format!(r#"portolan_gateway_bound_hits_total{{bound="{bound}"}}"#)).await
}

fn assert_comes_back(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(answer.json()["error"]["data"]["error_type"], "Overloaded");
    assert_eq!(answer.json()["error"]["data"]["retryable"], true);
}

#[tokio::test]
async fn past_the_requests_of_a_process_a_caller_is_told_to_come_back() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = start(&bridge, |bounds| bounds.max_requests = 2).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let mut stream = client.open(Method::GET, ROUTE, "").await;
    stream.read_until("keep-alive").await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", json!({})).await }
    });
    until("it is at the server", async || bridge.seen().len() == 3).await;
    assert_eq!(gateway.metric("portolan_gateway_requests_entered").await, 2.0);
    assert_comes_back(&client.call("echo", json!({})).await);
    // A stranger learns no more than that.
    assert_comes_back(&gateway.client().without("authorization").call("echo", json!({})).await);
    assert_eq!(hits(&gateway, "Requests").await, 2.0);
    assert_eq!(gateway.admin().get("/livez").await.status, 200, "the admin port is none of it");
    drop(stream);
    until("there is room again", async || client.call("echo", json!({})).await.status == 200).await;
    bridge.release.notify_one();
    assert_eq!(soon(slow).await.expect("no panic").status, 200);
    until("all are over", async || gateway.metric("portolan_gateway_requests_entered").await == 0.0).await;
}

#[tokio::test]
async fn a_crowd_of_bodies_for_one_server_leaves_room_for_the_other() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = start(&bridge, |bounds| {
        bounds.max_buffered_bytes = 8 << 20;
        bounds.max_buffered_bytes_per_server = 4 << 20;
    })
    .await;
    let client = gateway.client().with("content-type", "application/json");
    let mut crowd = Vec::new();
    for _ in 0..7 {
        crowd.push(client.half_a_body(ROUTE, 600_000).await);
    }
    until("the server's share is used up", async || hits(&gateway, "ServerBytes").await >= 1.0).await;
    let held = gateway.metric(BYTES).await;
    assert!(held <= f64::from(4 << 20), "{held}");
    assert_comes_back(&gateway.client().post(ROUTE, vec![b' '; 1 << 20]).await);
    assert_eq!(gateway.client().post(OTHER_ROUTE, vec![b' '; 1 << 20]).await.status, 400, "it is read, and is no JSON");
    assert_eq!(hits(&gateway, "Bytes").await, 0.0);
    drop(crowd);
    until("it is given back", async || gateway.metric(BYTES).await == 0.0).await;
    assert_eq!(gateway.client().post(ROUTE, vec![b' '; 1 << 20]).await.status, 400);
}

#[tokio::test]
async fn the_largest_body_fits_whatever_the_share_of_a_server() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = start(&bridge, |bounds| bounds.max_buffered_bytes_per_server = 1024).await;
    let session = gateway.client().initialize().await;
    let answer = gateway.client().session(&session).call("echo", json!({"text": "x".repeat(1 << 20)})).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn answers_that_nobody_reads_count_and_new_callers_are_told_to_come_back() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.max_buffered_bytes = 1 << 20;
    config.bounds.max_buffered_bytes_per_server = 1 << 20;
    let mut objects = Objects::new(&[&bridge]);
    objects.gateway["http"] = json!({"maxBodyBytes": 65_536});
    let gateway = Gateway::start_with(config, Some(objects.inputs())).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let flooded = client.clone().with("content-type", "application/json");
    let mut unreads = Vec::new();
    until("the budget is used up", async || {
        unreads.push(flooded.unread(ROUTE, &call("flood", json!({}))).await);
        client.call("echo", json!({})).await.status == 503
    })
    .await;
    let refused = client.call("echo", json!({})).await;
    assert_comes_back(&refused);
    // Whatever went over before it was used up is a part of an answer for each, and no more.
    let held = gateway.metric(BYTES).await;
    let parts = f64::from(u32::try_from(unreads.len()).expect("few")) * f64::from(64 * 1024);
    assert!(held >= f64::from(1 << 20) && held <= f64::from(1 << 20) + parts, "{held} of {}", unreads.len());
    drop(unreads);
    until("it is given back", async || gateway.metric(BYTES).await == 0.0).await;
    assert_eq!(client.call("huge", json!({})).await.status, 200);
}

#[tokio::test]
async fn an_answer_goes_on_with_the_budget_used_up() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.gateway["http"] = json!({"maxBodyBytes": 1024});
    let mut config = config();
    config.bounds.max_buffered_bytes = 8 * 1024;
    config.bounds.max_buffered_bytes_per_server = 8 * 1024;
    let gateway = Gateway::start_with(config, Some(objects.inputs())).await;
    let session = gateway.client().initialize().await;
    let answer = gateway.client().session(&session).call("huge", json!({})).await;
    assert_eq!(answer.json()["result"]["text"].as_str().map(str::len), Some(1 << 20), "part by part");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_written_ahead_for() {
    let log = Log::capture();
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = start(&bridge, |bounds| bounds.unread_timeout = Duration::from_millis(300)).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session).with("content-type", "application/json");
    let stream = client.unread(ROUTE, &call("flood", json!({}))).await;
    until("it is cut", async || log.access().len() == 2).await;
    let line = log.access().pop().expect("a line");
    let bytes = line["bytes_out"].as_u64().expect("a number");
    assert!(bytes > 0 && bytes <= 384 * 1024, "{line}");
    assert!(SockRef::from(&stream).recv_buffer_size().expect("known") < 64 * 1024, "what the client takes is little");
}
