//! Thousands of callers who are refused, or who come once and never again: they leave nothing behind in a gateway, which
//! runs as a process here so that its memory is its own.

use futures::stream::{self, StreamExt};
use portolan_tests::api_server::ApiServer;
use portolan_tests::replica::Replica;
use serde_json::json;

use crate::aggregate::legacy;
use crate::bridge::Bridge;
use crate::client::{Client, initialize, until};
use crate::endpoints::{ENDPOINTS, open};
use crate::modern::{request, saying};
use crate::offers::Offers;
use crate::real_bridge::binary;
use crate::world::{ALICE, MAC_KEY, Objects, ROUTE};

const CROWD: usize = 2000;
const AT_ONCE: usize = 32;
/// More than an allocator moves by itself, and two KiB for each of the crowd.
const MOVES_BY_ITSELF_KIB: usize = 4 * 1024;
const CONNECTIONS: &str = r#"portolan_gateway_connections{listener="http"}"#;

async fn start() -> (Bridge, ApiServer, Replica) {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    bridge.offer(Offers::tools(&["echo"]));
    let mut objects = Objects::of(&[("everything", &[&bridge])]);
    objects.toolsets = vec![("mine", json!({"servers": [{"name": "everything"}]}))];
    let api = ApiServer::start(objects.inputs()).await;
    let replica = Replica::start(&binary("portolan"), api.address).await;
    (bridge, api, replica)
}

fn client(replica: &Replica) -> Client {
    Client::new(replica.address).key(ALICE).with("content-type", "application/json")
}

/// Does `one` for each of a crowd.
async fn crowd<F: Future<Output = ()>>(count: usize, one: impl Fn(usize) -> F) {
    stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[tokio::test]
async fn a_crowd_that_is_refused_opens_nothing_and_leaves_nothing() {
    let (bridge, _api, mut replica) = start().await;
    let refused = async |which: usize| {
        let client = client(&replica);
        let (path, _) = ENDPOINTS[which % ENDPOINTS.len()];
        let (client, body) = match which % 8 {
            0 => (client.without("authorization"), initialize()),
            1 => (client.key(&format!("ptl_{which}")), initialize()),
            2 => (client.session(&format!("{which}-unknown")), legacy("ping", &json!({}))),
            3 => (client, "[".repeat(which)),
            4 => (client.with("content-encoding", "gzip"), initialize()),
            5 => (saying(client, "tools/call", Some("other")), request("tools/call", json!({"name": "echo"}))),
            6 => (client.with("host", &format!("{which}.example")), initialize()),
            _ => (client.with("mcp-protocol-version", &format!("{which}")), legacy("ping", &json!({}))),
        };
        let answer = client.post(path, body).await;
        assert!((400..500).contains(&answer.status), "{which}: {answer:?}");
    };
    // What it needs for the first of them it keeps.
    crowd(CROWD / 4, &refused).await;
    let before = replica.resident_kib();
    crowd(CROWD, &refused).await;
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    let grown = replica.resident_kib().saturating_sub(before);
    assert!(grown < MOVES_BY_ITSELF_KIB, "{grown} KiB more than before");
    assert!(bridge.asked().is_empty(), "no server hears of it");
    assert_eq!(client(&replica).post(ROUTE, initialize()).await.status, 200, "whoever may come in does");
    replica.assert_well().await;
}

#[tokio::test]
async fn sessions_that_nobody_comes_back_to_are_nothing_to_a_gateway() {
    let (bridge, _api, mut replica) = start().await;
    bridge.keep_sessions();
    let abandoned = async |which: usize| {
        let (path, echo) = ENDPOINTS[which % ENDPOINTS.len()];
        let client = open(&client(&replica), path).await;
        let answer = client.post(path, legacy("tools/call", &json!({"name": echo, "arguments": {}}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    crowd(CROWD / 4, &abandoned).await;
    let before = replica.resident_kib();
    crowd(CROWD, &abandoned).await;
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    let grown = replica.resident_kib().saturating_sub(before);
    assert!(grown < MOVES_BY_ITSELF_KIB, "{grown} KiB more than before");
    assert_eq!(bridge.sessions(), CROWD / 4 + CROWD, "each was the bridge's to keep, and is its to end");
    replica.assert_well().await;
}
