//! HTTP/2 on the port of HTTP/1.1: the same answers, on one connection.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::bridge::Bridge;
use crate::client::{soon, until};
use crate::client_http2::{Connection, read_until};
use crate::world::{Gateway, MAC_KEY, Objects, ROUTE, config};

#[tokio::test]
async fn sessions_and_calls_are_served_on_one_connection_of_either_version() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let connection = Connection::open(gateway.address).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let answer = client.call("echo", json!({"text": "hi"})).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(2)), "{answer:?}");
    assert_eq!(answer.header("connection"), None);
    assert_eq!(
        client.call("huge", json!({})).await.body.len(),
        gateway.client().session(&session).call("huge", json!({})).await.body.len()
    );
    // More than any window lets in at once.
    let large = json!({"text": "x".repeat(1024 * 1024)});
    assert_eq!(client.call("echo", large).await.status, 200);
    assert_eq!(client.call("notify", json!({})).await.json()["id"], 2);
    // The bridge's trailer says what the answer says already.
    let answer = client.call("cut", json!({})).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["error_type"], "ServerUnreachable", "{answer:?}");
    assert_eq!(
        gateway.client().session(&session).call("echo", json!({})).await.status,
        200,
        "HTTP/1.1 on the same port"
    );
    let refused = client.clone().with("authorization", "Bearer ptl_nobody").call("echo", json!({})).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let answer = client.send(Method::DELETE, ROUTE, Bytes::new()).await.expect("an answer");
    assert!(answer.status < 300, "{answer:?}");
    assert_eq!(gateway.metric(r#"portolan_gateway_connections{listener="http"}"#).await, 1.0);
}

#[tokio::test]
async fn streams_and_calls_do_not_wait_for_each_other() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let connection = Connection::open(gateway.address).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let mut stream = soon(client.begin(Method::GET, ROUTE, Bytes::new()).await).await.expect("a stream").into_body();
    read_until(&mut stream, "keep-alive").await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", json!({})).await }
    });
    until("it is at the server", async || bridge.seen().len() == 3).await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    bridge.push("over one connection");
    read_until(&mut stream, "over one connection").await;
    assert!(!slow.is_finished());
    bridge.release.notify_one();
    assert_eq!(soon(slow).await.expect("no panic").status, 200);
}

fn slow_calls(bridge: &Bridge) -> usize {
    bridge.seen().iter().filter(|seen| seen.body.windows(4).any(|window| window == b"slow")).count()
}

#[tokio::test]
async fn a_client_that_takes_its_call_back_or_goes_away_takes_it_with_it() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 1, "maxPendingRequests": 0});
    let gateway = Gateway::start(&objects).await;
    let connection = Connection::open(gateway.address).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let other = gateway.client().session(&session);
    let call = client.begin(Method::POST, ROUTE, crate::client::call("slow", json!({}))).await;
    until("it is at the server", async || slow_calls(&bridge) == 1).await;
    assert_eq!(client.call("echo", json!({})).await.status, 503, "the place is taken");
    drop(call);
    until("its place is free", async || client.call("echo", json!({})).await.status == 200).await;
    let _call = client.begin(Method::POST, ROUTE, crate::client::call("slow", json!({}))).await;
    until("it is at the server too", async || slow_calls(&bridge) == 2).await;
    assert_eq!(other.call("echo", json!({})).await.status, 503, "the place is taken again");
    drop(connection);
    until("its place is free again", async || other.call("echo", json!({})).await.status == 200).await;
}

#[tokio::test]
async fn the_authority_stands_for_host_and_no_other_host_beside_it() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let connection = Connection::open(gateway.address).await;
    let client = connection.client();
    assert_eq!(client.clone().with("host", "localhost").post(ROUTE, "nonsense").await.status, 400, "the same host");
    for (authority, host) in [
        ("evil.example", None),
        ("localhost", Some("evil.example")),
        ("evil.example", Some("localhost")),
        ("localhost", Some("127.0.0.1")),
    ] {
        let mut client = client.clone().authority(authority);
        if let Some(host) = host {
            client = client.with("host", host);
        }
        let answer = client.post(ROUTE, "nonsense").await;
        assert_eq!(answer.status, 421, "{authority} {host:?}");
        assert_eq!(answer.json()["error"]["data"]["error_type"], "HostNotAllowed");
    }
    assert!(bridge.seen().is_empty());
}

#[tokio::test]
async fn a_replica_that_goes_away_says_so_and_answers_what_is_under_way() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.drain.delay = Duration::from_secs(1);
    let mut gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let (connection, idle) = (Connection::open(gateway.address).await, Connection::open(gateway.address).await);
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let mut stream = soon(client.begin(Method::GET, ROUTE, Bytes::new()).await).await.expect("a stream").into_body();
    read_until(&mut stream, "keep-alive").await;
    let slow = client.begin(Method::POST, ROUTE, crate::client::call("slow", json!({}))).await;
    until("it is at the server", async || bridge.seen().len() == 3).await;
    gateway.shut_down();
    until("it is not ready", async || gateway.admin().get("/readyz").await.status == 503).await;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, None),
        "it serves until load balancers have noticed"
    );
    until("the client is told to go", async || client.requests.clone().ready().await.is_err()).await;
    // Whoever was answered is told at once, whoever was idle only when the port closes.
    assert!(TcpStream::connect(gateway.address).await.is_ok(), "the port is open");
    assert!(idle.client().requests.ready().await.is_ok());
    bridge.push("still open");
    read_until(&mut stream, "still open").await;
    bridge.release.notify_one();
    assert_eq!(soon(slow).await.expect("an answer").status(), 200);
    read_until(&mut stream, "retry: 1000").await;
    for mut connection in [connection, idle] {
        soon(&mut connection.driver).await.expect("no panic").expect("is let go, not cut");
    }
    soon(gateway.ended()).await;
}
