//! Thousands of callers who are refused, or who come once and never again: they leave nothing behind in a gateway, which
//! runs as a process here so that its memory is its own.

use std::sync::LazyLock;

use futures::stream::{self, StreamExt};
use http::Method;
use portolan_tests::api_server::ApiServer;
use portolan_tests::bridge as real;
use portolan_tests::objects::Pod;
use portolan_tests::replica::Replica;
use serde_json::json;

use crate::aggregate::legacy;
use crate::bridge::Bridge;
use crate::client::{Client, initialize, sized, until};
use crate::endpoints::{ENDPOINTS, open};
use crate::modern::{request, saying};
use crate::offers::Offers;
use crate::real_bridge::binary;
use crate::world::{ALICE, MAC_KEY, Objects, ROUTE};

/// How many come; the variable `CROWD` says otherwise.
static CROWD: LazyLock<usize> = LazyLock::new(|| sized("CROWD", 2000));
const AT_ONCE: usize = 32;
/// More bytes than an allocator moves by itself, and two KiB for each of the crowd.
const MOVES_BY_ITSELF: u64 = 4 * 1024 * 1024;
/// Where a session's parts are is remembered for a while, in less than this of each.
const KEPT: u64 = 1024;
/// The series of connections that are open.
pub const CONNECTIONS: &str = r#"portolan_gateway_connections{listener="http"}"#;

/// A server that any endpoint shows and that takes as many requests at once as anybody makes, and a gateway in front.
pub async fn start() -> (Bridge, ApiServer, Replica) {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    bridge.offer(Offers::tools(&["echo", "slow", "huge"]));
    let (api, replica) = in_front_of(&bridge).await;
    (bridge, api, replica)
}

async fn in_front_of(bridge: &dyn Pod) -> (ApiServer, Replica) {
    let mut objects = Objects::of(&[("everything", &[bridge])]);
    objects.toolsets = vec![("mine", json!({"servers": [{"name": "everything"}]}))];
    objects.server["limits"] = json!({"maxParallelRequests": 10_000});
    let api = ApiServer::start(objects.inputs()).await;
    let replica = Replica::start(&binary("portolan"), api.address).await;
    (api, replica)
}

/// A client of a replica.
pub fn client(replica: &Replica) -> Client {
    Client::new(replica.address).key(ALICE).with("content-type", "application/json")
}

/// Does `one` for each of a crowd.
pub async fn crowd<F: Future<Output = ()>>(count: usize, one: impl Fn(usize) -> F) {
    stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Does `one` for each of a crowd, after which the gateway holds no connection for any of them, and no more than so many
/// bytes for each.
async fn leaves<F: Future<Output = ()>>(each: u64, replica: &Replica, one: impl Fn(usize) -> F) {
    // What it needs for the first of them it keeps.
    crowd(*CROWD / 4, &one).await;
    let before = replica.resident();
    crowd(*CROWD, &one).await;
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    let grown = replica.resident().saturating_sub(before);
    assert!(grown < MOVES_BY_ITSELF + each * *CROWD as u64, "{grown} bytes more than before");
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
    leaves(0, &replica, refused).await;
    assert!(bridge.asked().is_empty(), "no server hears of it");
    assert_eq!(client(&replica).post(ROUTE, initialize()).await.status, 200, "whoever may come in does");
    replica.assert_well().await;
}

#[tokio::test]
async fn sessions_that_nobody_comes_back_to_are_next_to_nothing_to_a_gateway() {
    let (bridge, _api, mut replica) = start().await;
    bridge.keep_sessions();
    let abandoned = async |which: usize| {
        let (path, echo) = ENDPOINTS[which % ENDPOINTS.len()];
        let client = open(&client(&replica), path).await;
        let answer = client.post(path, legacy("tools/call", &json!({"name": echo, "arguments": {}}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    leaves(KEPT, &replica, abandoned).await;
    assert_eq!(bridge.sessions(), *CROWD / 4 + *CROWD, "each was the bridge's to keep, and is its to end");
    replica.assert_well().await;
}

/// Messages of both eras, changed at a few places by what `seed` says.
fn damaged(seed: usize, tool: &str) -> Vec<u8> {
    let params = json!({"name": tool, "arguments": {"a": [1, "\u{e9}", null], "b": {"c": true}}});
    let whole = [
        legacy("tools/call", &params),
        request("tools/call", params),
        request("tools/list", json!({"cursor": "MQ"})),
        request("subscriptions/listen", json!({"notifications": {"toolsListChanged": false}})),
        initialize(),
        json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}}).to_string(),
    ];
    let mut body = whole[seed % whole.len()].clone().into_bytes();
    let mut state = seed as u64;
    let mut next = |below: usize| {
        // Knuth's MMIX generator; its upper bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    const PIECES: [&[u8]; 12] =
        [b"\"", b"{", b"}", b"[", b"]", b",", b":", b"null", b"\\u0000", b"\xff", b"1e999", b"\"id\":1,"];
    for _ in 0..=next(3) {
        let at = next(body.len());
        match next(4) {
            0 => body[at] = u8::try_from(next(256)).expect("a byte"),
            1 => drop(body.drain(at..(at + 1 + next(8)).min(body.len()))),
            2 => drop(body.splice(at..at, PIECES[next(PIECES.len())].iter().copied())),
            _ => {
                let end = (at + next(40)).min(body.len());
                let again = body[at..end].to_vec();
                drop(body.splice(end..end, again));
            }
        }
        if body.is_empty() {
            break;
        }
    }
    body
}

/// Sends damaged messages to every endpoint, none of which breaks anything.
async fn damage(replica: &Replica) {
    let count = *CROWD;
    let sessions: Vec<Client> =
        stream::iter(ENDPOINTS).then(|(path, _)| open_owned(client(replica), path)).collect().await;
    let sent = async |seed: usize| {
        let which = seed / 7 % ENDPOINTS.len();
        let (path, tool) = ENDPOINTS[which];
        let client = match seed % 2 {
            0 => sessions[which].clone(),
            _ => saying(client(replica), "tools/call", Some(tool)),
        };
        let body = damaged(seed, tool);
        let answer = client.open(Method::POST, path, body.clone()).await;
        assert!(answer.status < 500, "{seed} {:?}: {}", String::from_utf8_lossy(&body), answer.status);
        // A session is a process of a real server's.
        if let Some(opened) = answer.headers.get("mcp-session-id") {
            let opened = client.session(opened.to_str().expect("text"));
            assert!(opened.send(Method::DELETE, path, "").await.status < 300, "{seed}");
        }
    };
    crowd(count, &sent).await;
    until("every connection is closed", async || replica.metric(CONNECTIONS).await == 0.0).await;
    assert_eq!(client(replica).post(ROUTE, initialize()).await.status, 200);
}

#[tokio::test]
async fn a_crowd_of_damaged_messages_is_refused_or_passed_on_and_nothing_breaks() {
    let (bridge, _api, mut replica) = start().await;
    damage(&replica).await;
    assert!(!bridge.asked().is_empty(), "some of them are not damaged after all");
    replica.assert_well().await;
}

#[tokio::test]
async fn a_crowd_of_damaged_messages_breaks_nothing_in_front_of_the_real_bridge_either() {
    let portolan = binary("portolan");
    let server = ["--", portolan.to_str().expect("text"), "demo-server"];
    let bridge = real::Bridge::start(&binary("portolan-bridge"), "stdio", &server).await;
    let (_api, mut replica) = in_front_of(&bridge).await;
    damage(&replica).await;
    replica.assert_well().await;
}

async fn open_owned(client: Client, path: &'static str) -> Client {
    open(&client, path).await
}
