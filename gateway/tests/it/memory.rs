//! The memory that clients can make a gateway take, as the system counts it: a process is killed for that and not for what
//! its own budget says.

use std::sync::LazyLock;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use portolan_gateway::Bounds;
use portolan_tests::process::may_open;
use portolan_tests::replica::Replica;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::aggregate::legacy;
use crate::client::{Client, sized, until};
use crate::crowds::{CONNECTIONS, client, start};
use crate::endpoints::{ENDPOINTS, open};

/// So many megabytes are many times the budget; the variable `BODIES` says otherwise.
static BODIES: LazyLock<usize> = LazyLock::new(|| sized("BODIES", 1000));
/// How many calls nobody reads the answer of, each a megabyte.
const UNREAD: usize = 2000;
/// Descriptors of a process besides those of a crowd.
const OWN: usize = 500;
const LATE: &str = r#"portolan_gateway_bound_hits_total{bound="BodyTimeout"}"#;
const ENTERED: &str = "portolan_gateway_requests_entered";
const HELD: &str = "portolan_gateway_buffered_bytes";

/// The memory that it may have beyond what it has while nothing is held.
fn budget() -> u64 {
    let bytes = Bounds::default().max_buffered_bytes as u64;
    bytes + bytes / 2
}

/// Does `work`, which takes no more memory than that beyond what so many connections take by themselves.
async fn within_budget(replica: &Replica, connections: usize, work: impl Future<Output = ()>) {
    let begin = async |which: usize| client(replica).half_a_body(ENDPOINTS[which % ENDPOINTS.len()].0, 0).await;
    let late = replica.metric(LATE).await;
    let without = replica.peak(async {
        let _begun: Vec<_> = stream::iter(0..connections).map(begin).buffer_unordered(64).collect().await;
        // Before the last of many comes, the first may have been closed.
        let came = async || replica.metric(CONNECTIONS).await + replica.metric(LATE).await - late;
        until("all are connected", async || came().await >= connections as f64).await;
        assert_eq!(replica.metric(HELD).await, 0.0);
    });
    let without = without.await;
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    let grown = replica.peak(work).await.saturating_sub(without);
    println!("{connections} connections: {grown} bytes more than {without}, {} may be", budget());
    assert!(grown <= budget(), "{grown} bytes more than {without}, {} may be", budget());
}

/// Sessions with every endpoint, each of which was called once.
async fn sessions(replica: &Replica) -> Vec<Client> {
    let mut sessions = Vec::new();
    for (path, _) in ENDPOINTS {
        sessions.push(open(&client(replica), path).await);
    }
    go_on(replica, &sessions).await;
    sessions
}

/// Calls are answered, and nothing of the crowd is held any more.
async fn go_on(replica: &Replica, sessions: &[Client]) {
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    assert_eq!(replica.metric(HELD).await, 0.0);
    for (client, (path, tool)) in sessions.iter().zip(ENDPOINTS) {
        let answer = client.post(path, legacy("tools/call", &json!({"name": tool, "arguments": {"n": 7}}))).await;
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"n": 7})), "{answer:?}");
    }
}

#[tokio::test]
async fn thousands_of_megabytes_of_bodies_that_never_end_take_no_more_memory_than_may_be_held() {
    let crowd = *BODIES;
    assert!(may_open() > crowd + OWN, "a descriptor for each");
    let (bridge, _api, mut replica) = start().await;
    let sessions = sessions(&replica).await;
    let reached = bridge.asked().len();
    // They take turns: the more there are, the longer one waits for its own.
    let turn = Duration::from_secs(20 + crowd as u64 / 100);
    let attack = async |which: usize| {
        let (path, _) = ENDPOINTS[which % ENDPOINTS.len()];
        let (mut stream, _written) = client(&replica).half_a_body(path, (1 << 20) - 1).await;
        let mut answer = Vec::new();
        // Whoever goes on sending may be cut off before its answer is read.
        let _cut = timeout(turn, stream.read_to_end(&mut answer)).await.expect("its turn comes");
        String::from_utf8(answer).expect("text")
    };
    // The others wait for a place.
    let connected = crowd.min(Bounds::default().max_connections);
    within_budget(&replica, connected, async {
        let answers: Vec<String> = stream::iter(0..crowd).map(attack).buffer_unordered(crowd).collect().await;
        let told = |status: &str| answers.iter().filter(|answer| answer.starts_with(status)).count();
        let cut = answers.iter().filter(|answer| answer.is_empty()).count();
        assert_eq!(told("HTTP/1.1 503 ") + told("HTTP/1.1 408 ") + cut, crowd, "{answers:?}");
        assert!(told("HTTP/1.1 503 ") > 0, "they were more than may be held");
    })
    .await;
    assert_eq!(bridge.asked().len(), reached, "none of it reached a server");
    go_on(&replica, &sessions).await;
    replica.assert_well().await;
}

#[tokio::test]
async fn thousands_of_answers_that_nobody_reads_take_no_more_memory_than_may_be_held() {
    assert!(may_open() > 2 * UNREAD + OWN, "descriptors for each");
    let (_bridge, _api, mut replica) = start().await;
    let sessions = sessions(&replica).await;
    let call = |which: usize| {
        let (path, echo) = ENDPOINTS[which % ENDPOINTS.len()];
        let huge = echo.replace("echo", "huge");
        let body = legacy("tools/call", &json!({"name": huge, "arguments": {"bytes": 1 << 20, "number": which}}));
        let client = &sessions[which % ENDPOINTS.len()];
        async move { client.unread(path, &body).await }
    };
    let came = async || {
        let metrics = replica.metrics().await;
        metrics.requests(&[]) + metrics.value(ENTERED)
    };
    within_budget(&replica, UNREAD, async {
        let before = came().await;
        let unread: Vec<_> = stream::iter(0..UNREAD).map(call).buffer_unordered(64).collect().await;
        // Those that wait for the server are not answered, those that it has answered are not read.
        until("all came", async || came().await - before >= UNREAD as f64).await;
        assert!(replica.metrics().await.hits("Overloaded") > 0.0, "they were more than may be held");
        drop(unread);
    })
    .await;
    go_on(&replica, &sessions).await;
    replica.assert_well().await;
}
