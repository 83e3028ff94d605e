//! Thousands of sessions and streams on which nothing happens: what a gateway has for each of them, and what it does all
//! the while.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use http::Method;
use portolan_tests::process::may_open;
use portolan_tests::replica::Replica;
use serde_json::json;

use crate::aggregate::ALL;
use crate::client::{Client, Streaming};
use crate::crowds::{client, start};
use crate::endpoints::{ENDPOINTS, open};
use crate::modern::{request, saying};

const KIB: u64 = 1024;
const SESSIONS: usize = 4000;
const STREAMS: usize = 2000;
const AT_ONCE: usize = 32;
/// What a gateway may do for all of them together while each stream gets its comment once.
const BUSY: Duration = Duration::from_millis(1500);

async fn session(replica: &Replica, which: usize) -> Client {
    open(&client(replica), ENDPOINTS[which % ENDPOINTS.len()].0).await
}

/// A stream of either era at any endpoint, once it is open.
async fn open_stream(replica: &Replica, sessions: &[Client], which: usize) -> Streaming {
    let (path, _) = ENDPOINTS[which % ENDPOINTS.len()];
    let stream = if which.is_multiple_of(2) {
        sessions[which].open(Method::GET, path, "").await
    } else {
        let body = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
        saying(client(replica), "subscriptions/listen", None).open(Method::POST, path, body).await
    };
    assert_eq!(stream.status, 200, "{path}");
    stream
}

#[tokio::test]
async fn a_session_takes_two_kib_at_most_and_a_stream_thirty_two_and_none_of_them_any_work() {
    assert!(may_open() > 3 * STREAMS, "descriptors for each");
    let (_bridge, _api, mut replica) = start().await;
    let some: Vec<_> =
        stream::iter(0..SESSIONS / 4).map(|which| session(&replica, which)).buffered(AT_ONCE).collect().await;
    // What it needs for the first of them it keeps.
    let before = replica.resident();
    let sessions: Vec<_> =
        stream::iter(0..SESSIONS).map(|which| session(&replica, which)).buffered(AT_ONCE).collect().await;
    let of_sessions = replica.resident().saturating_sub(before);
    assert!(of_sessions <= SESSIONS as u64 * 2 * KIB, "{of_sessions} bytes for {SESSIONS} sessions");
    drop(some);
    let before = replica.resident();
    let open = |which| open_stream(&replica, &sessions, which);
    let mut streams: Vec<_> = stream::iter(0..STREAMS).map(open).buffered(AT_ONCE).collect().await;
    let of_streams = replica.resident().saturating_sub(before);
    assert!(of_streams <= STREAMS as u64 * 32 * KIB, "{of_streams} bytes for {STREAMS} streams");
    // The last one at the endpoint of all servers: no other one gets its comment later.
    let last = (0..STREAMS).rfind(|which| ENDPOINTS[which % ENDPOINTS.len()].0 == ALL).expect("some are");
    comment(&mut streams[last]).await;
    let busy = replica.busy(comment(&mut streams[last])).await;
    assert!(busy <= BUSY, "{busy:?} between two comments");
    replica.assert_well().await;
}

/// Waits for the next comment, which comes when nothing else did.
async fn comment(stream: &mut Streaming) {
    let lines = stream.text().matches('\n').count();
    stream.read_lines(lines + 1).await;
}
