//! Thousands of clients that take their time, in front of a gateway with the bounds that it has by itself.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use portolan_gateway::Bounds;
use portolan_tests::process::may_open;
use portolan_tests::replica::Replica;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::aggregate::legacy;
use crate::client::until;
use crate::crowds::{CONNECTIONS, client, start};
use crate::endpoints::{ENDPOINTS, open};
use crate::world::ALICE;

const CROWD: usize = 5000;
/// How long each of them waits before it sends a little more.
const DRIP: Duration = Duration::from_secs(1);
/// How often others call.
const PACE: Duration = Duration::from_millis(25);
/// What a busy machine may add until a client sees the end of its connection.
const BUSY: Duration = Duration::from_secs(15);

/// Sends `first`, and then `drip` again and again: what it was told in the end, and when that was.
async fn dripping(address: SocketAddr, first: String, drip: &[u8]) -> (String, Duration) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(first.as_bytes()).await.expect("is open");
    let began = Instant::now();
    let mut told = Vec::new();
    loop {
        match timeout(DRIP, stream.read_buf(&mut told)).await {
            // One that was closed with bytes under way is reset.
            Ok(Ok(0) | Err(_)) => return (String::from_utf8(told).expect("text"), began.elapsed()),
            Ok(Ok(_)) => {}
            // One that was closed meanwhile says so when it is read.
            Err(_) => drop(stream.write_all(drip).await),
        }
    }
}

/// A crowd that begins with `first` at every endpoint is rid of within `bound`, and others are answered all the while. What
/// each of the crowd was told.
async fn is_rid_of(replica: &Replica, bound: Duration, first: impl Fn(&str) -> String, drip: &[u8]) -> Vec<String> {
    assert!(may_open() > CROWD + CROWD / 2, "a descriptor for each");
    let (path, echo) = ENDPOINTS[0];
    let good = open(&client(replica), path).await;
    let slow = |which: usize| dripping(replica.address, first(ENDPOINTS[which % ENDPOINTS.len()].0), drip);
    let mut attack = pin!(stream::iter(0..CROWD).map(slow).buffer_unordered(CROWD).collect::<Vec<_>>());
    let mut pace = interval(PACE);
    let calls = async {
        loop {
            pace.tick().await;
            let answer = good.post(path, legacy("tools/call", &json!({"name": echo, "arguments": {}}))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    let ended = tokio::select! {
        ended = &mut attack => ended,
        never = calls => never,
    };
    let latest = ended.iter().map(|(_, after)| *after).max().expect("a crowd");
    assert!(latest <= bound + BUSY, "the last one was served for {latest:?}");
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    ended.into_iter().map(|(told, _)| told).collect()
}

async fn hits(replica: &Replica, bound: &str) -> f64 {
    replica.metric(&format!(r#"portolan_gateway_bound_hits_total{{bound="{bound}"}}"#)).await
}

#[tokio::test]
async fn thousands_of_heads_that_never_end_are_closed_in_time_and_others_are_answered() {
    let (_bridge, _api, mut replica) = start().await;
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    let told = is_rid_of(&replica, Bounds::default().header_timeout, head, b"x: y\r\n").await;
    assert!(told.iter().all(String::is_empty), "there is no request to answer");
    assert_eq!(hits(&replica, "HeadTimeout").await, CROWD as f64);
    replica.assert_well().await;
}

#[tokio::test]
async fn thousands_of_bodies_that_never_end_are_answered_in_time_and_others_too() {
    let (_bridge, _api, mut replica) = start().await;
    let begun = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\naccept: application/json, \
             text/event-stream\r\ncontent-type: application/json\r\ncontent-length: 65536\r\n\r\n"
        )
    };
    let told = is_rid_of(&replica, Bounds::default().body_timeout, begun, b" ").await;
    let late = told.iter().filter(|told| told.starts_with("HTTP/1.1 408 ")).count();
    assert_eq!((late, hits(&replica, "BodyTimeout").await), (CROWD, CROWD as f64));
    replica.assert_well().await;
}
