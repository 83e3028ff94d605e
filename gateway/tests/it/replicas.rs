//! Two gateways as processes, in front of one real bridge: what is lost when one of them is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use portolan_tests::api_server::ApiServer;
use portolan_tests::bridge::Bridge;
use portolan_tests::process::may_open;
use portolan_tests::replica::Replica;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::client::{Client, call, soon, until};
use crate::crowds::{self, crowd};
use crate::endpoints::{ENDPOINTS, open};
use crate::modern::{VERSION, saying};
use crate::real_bridge::{binary, id_of, start};
use crate::world::{ALICE, Objects, ROUTE};

/// How soon a client knows that its replica was killed.
const TOLD: Duration = Duration::from_secs(1);

/// A client of a replica.
fn client(replica: &Replica) -> Client {
    Client::new(replica.address).key(ALICE)
}

/// A session that one replica opened, at both.
async fn session(a: &Replica, b: &Replica) -> (Client, Client) {
    let session = client(a).initialize().await;
    let on_a = client(a).session(&session).with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address);
    (on_a, on_b)
}

/// A bridge and two replicas in front of it.
async fn world() -> (Bridge, ApiServer, Replica, Replica) {
    let bridge = start().await;
    let api = ApiServer::start(Objects::new(&[&bridge]).inputs()).await;
    let portolan = binary("portolan");
    let (a, b) = (Replica::start(&portolan, api.address).await, Replica::start(&portolan, api.address).await);
    (bridge, api, a, b)
}

#[tokio::test]
async fn a_session_opened_at_one_process_is_called_resumed_and_deleted_at_another() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let (on_a, on_b) = session(&a, &b).await;
    assert_eq!(on_b.call("echo", json!({"n": 7})).await.json()["result"]["structuredContent"], json!({"n": 7}));
    let mut broken = on_a.open(Method::GET, ROUTE, "").await;
    assert_eq!(on_b.call("say", json!({})).await.status, 200);
    broken.read_until("second").await;
    let first = id_of(broken.text(), "first").to_owned();
    drop(broken);
    let mut resumed = on_b.clone().with("last-event-id", &first).open(Method::GET, ROUTE, "").await;
    assert_eq!(resumed.status, 200);
    resumed.read_until("second").await;
    assert!(!resumed.text().contains("first"), "what was seen is not sent again: {}", resumed.text());
    assert_eq!(on_b.send(Method::DELETE, ROUTE, "").await.status, 204);
    assert_eq!(on_a.call("echo", json!({})).await.status, 404, "it is gone on every replica");
    a.assert_well().await;
    b.assert_well().await;
}

#[tokio::test]
async fn a_killed_replica_takes_only_the_calls_in_flight_on_it_and_its_peer_serves_its_sessions() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let (on_a, on_b) = session(&a, &b).await;
    let posting = on_a.clone().with("content-type", "application/json");
    let mut lost = posting.open(Method::POST, ROUTE, call("ask", json!({}))).await;
    lost.read_until("elicitation/create").await;
    let other = client(&b).initialize().await;
    let kept = client(&b).session(&other).with("content-type", "application/json");
    let mut kept_call = kept.open(Method::POST, ROUTE, call("ask", json!({}))).await;
    kept_call.read_until("elicitation/create").await;
    a.kill();
    let told = tokio::time::timeout(TOLD, lost.read_to_end()).await.expect("its connection closes at once");
    assert!(!told.1, "an answer that was cut does not look whole: {}", told.0);
    // The lost call still has its id in the session.
    let again = call("echo", json!({"n": 7})).replace(r#""id":2"#, r#""id":3"#);
    let again = on_b.post(ROUTE, again).await;
    assert_eq!((again.status, &again.json()["result"]["structuredContent"]), (200, &json!({"n": 7})));
    let answer = json!({"jsonrpc": "2.0", "id": "question", "result": {"action": "accept"}}).to_string();
    assert_eq!(kept.post(ROUTE, answer).await.status, 202);
    let (text, whole) = kept_call.read_to_end().await;
    assert!(whole && text.contains("accept"), "a call at the peer goes on: {text}");
    b.assert_well().await;
}

#[tokio::test]
async fn what_a_killed_replica_asked_its_client_is_answered_at_its_peer() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let asked = ask(client(&a), json!({})).await;
    let asked = &asked["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    a.kill();
    let names = asked["inputRequests"].as_object().expect("requests").keys();
    let answers: Value = names.map(|name| (name.clone(), json!({"action": "accept"}))).collect();
    let done = ask(client(&b), json!({"requestState": asked["requestState"], "inputResponses": answers})).await;
    assert_eq!(done["result"]["structuredContent"]["action"], "accept", "{done}");
    b.assert_well().await;
}

/// The answer to a call of `ask` without a session, by a client that can be asked.
async fn ask(client: Client, mut params: Value) -> Value {
    params["name"] = "ask".into();
    params["arguments"] = json!({});
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    });
    let request = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}).to_string();
    saying(client, "tools/call", Some("ask")).post(ROUTE, request).await.json()
}

/// A call of the tool `echo`, or of another one, that is like no other call.
fn numbered(echo: &str, tool: &str, number: usize) -> String {
    let params = json!({"name": echo.replace("echo", tool), "arguments": {"number": number}});
    json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).to_string()
}

#[tokio::test]
async fn a_thousand_sessions_of_a_killed_replica_go_on_at_its_peer_and_no_call_is_made_twice() {
    const SESSIONS: usize = 1000;
    assert!(may_open() > SESSIONS, "descriptors for each");
    let (bridge, api, mut a) = crowds::start().await;
    let mut b = Replica::start(&binary("portolan"), api.address).await;
    bridge.keep_sessions();
    let mut sessions = Vec::new();
    for which in 0..SESSIONS {
        // Some of them with many servers, of which each knows nothing of the session until it is called.
        let (path, echo) = if which % 10 == 0 { ENDPOINTS[1 + which / 10 % 2] } else { ENDPOINTS[0] };
        sessions.push((open(&crowds::client(&a), path).await, path, echo));
    }
    let at = |replica: &Replica, which: usize| {
        let (client, path, echo) = &sessions[which];
        (client.clone().at(replica.address), *path, *echo)
    };
    let echoed = async |replica: &Replica, which: usize, number: usize| {
        let (client, path, echo) = at(replica, which);
        let answer = client.post(path, numbered(echo, "echo", number)).await;
        assert_eq!((answer.status, &answer.json()["result"]["number"]), (200, &json!(number)), "{which}: {answer:?}");
    };
    // Half of them are at work before.
    crowd(SESSIONS / 2, |which| echoed(&a, 2 * which, which)).await;
    let mut lost = Vec::new();
    for which in (0..SESSIONS).step_by(6) {
        let (client, path, echo) = at(&a, which);
        lost.push(client.unread(path, &numbered(echo, "slow", SESSIONS + which)).await);
    }
    let (kept, path, echo) = at(&b, 1);
    let kept = tokio::spawn(async move { kept.post(path, numbered(echo, "slow", 2 * SESSIONS)).await });
    let slow = || bridge.asked().iter().filter(|(_, body)| body["params"]["name"] == "slow").count();
    until("they are at the server", async || slow() == lost.len() + 1).await;
    a.kill();
    let ends =
        lost.into_iter().map(|mut call| async move { call.read_to_end(&mut Vec::new()).await.unwrap_or_default() });
    let told = tokio::time::timeout(TOLD, join_all(ends)).await.expect("their connections close at once");
    assert!(told.iter().all(|bytes| *bytes == 0), "nothing looks like an answer");
    crowd(SESSIONS, |which| echoed(&b, which, 3 * SESSIONS + which)).await;
    bridge.release.notify_waiters();
    assert_eq!(soon(kept).await.expect("no panic").status, 200, "a call at the peer goes on");
    assert_eq!((bridge.sessions(), bridge.count("initialize")), (SESSIONS, SESSIONS), "none was opened again");
    let mut made = BTreeMap::new();
    for number in bridge.called() {
        *made.entry(number).or_insert(0) += 1;
    }
    assert_eq!(made.len(), SESSIONS / 2 + SESSIONS.div_ceil(6) + 1 + SESSIONS);
    assert!(made.values().all(|times| *times == 1), "{made:?}");
    b.assert_well().await;
}
