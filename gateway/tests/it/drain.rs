//! How a replica goes away.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::bridge::Bridge;
use crate::client::{soon, until};
use crate::world::{Gateway, MAC_KEY, Objects, ROUTE, config};

#[tokio::test]
async fn no_call_fails_when_a_replica_goes_away() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.drain.delay = Duration::from_millis(300);
    let mut gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let mut stream = client.open(Method::GET, ROUTE, "").await;
    stream.read_until("keep-alive").await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", json!({})).await }
    });
    until("it is at the server", async || bridge.seen().len() == 3).await;
    gateway.shut_down();
    until("it is not ready", async || gateway.admin().get("/readyz").await.status == 503).await;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(answer.status, 200, "until load balancers have noticed, it serves");
    assert_eq!(answer.header("connection"), Some("close"));
    until("it takes no new connections", async || TcpStream::connect(gateway.address).await.is_err()).await;
    assert!(!slow.is_finished(), "the call in flight goes on");
    // The stream is open for as long as a call may need it.
    bridge.push("still open");
    stream.read_until("still open").await;
    assert_eq!(gateway.admin().get("/livez").await.status, 200, "the admin port is open to the end");
    bridge.release.notify_one();
    assert_eq!(soon(slow).await.expect("no panic").status, 200);
    let (text, whole) = stream.read_to_end().await;
    assert!(text.ends_with("\n\nretry: 1000\n\n"), "it says when to open it on another replica: {text}");
    assert!(whole, "the stream ends, it does not break");
    soon(gateway.ended()).await;
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_keep_a_replica_for_ever() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.drain.timeout = Duration::from_millis(100);
    let mut gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let session = gateway.client().initialize().await;
    let client = gateway.client().session(&session);
    let slow = tokio::spawn(async move { client.call("slow", json!({})).await });
    until("it is at the server", async || bridge.seen().len() == 2).await;
    gateway.shut_down();
    soon(gateway.ended()).await;
    slow.abort();
}
