//! Clients of every revision that is served, in front of servers of either era: at a server's own endpoint, at that of
//! all servers and at a toolset's.

use std::path::{Path, PathBuf};

use http::Method;
use portolan_tests::bridge::Bridge;
use serde_json::{Value, json};

use crate::aggregate::{ALL, legacy};
use crate::client::{Answer, Client};
use crate::endpoints::{ENDPOINTS, World};
use crate::modern::{VERSION, request, saying};
use crate::offers::Offers;
use crate::real_bridge::{binary, id_of, question_in};
use crate::world::{ALICE, BOB, Gateway, Objects, ROUTE};

/// Revisions with sessions that a client can arrive in.
const REVISIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
const NEWEST: &str = "2025-11-25";
/// What the tools of the server `everything` have before their names.
const PLACES: [(&str, &str); 2] = [(ROUTE, ""), (ALL, "default__everything__")];

/// What stands behind the real bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// The fixture: of its revisions with sessions it knows the newest only, and says so.
    Legacy,
    /// The same, but it agrees to whatever revision it is asked for.
    Agreeable,
    /// One that knows no sessions.
    Modern,
}

impl Server {
    async fn start(self) -> Bridge {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        let fixture = folder.join("tests/data/server.py");
        let command = match self {
            Self::Legacy => vec![text(fixture)],
            Self::Agreeable => {
                let stubborn = std::fs::read_to_string(fixture).expect("the fixture");
                let agreeable = stubborn
                    .replace(r#""protocolVersion": "2025-11-25""#, r#""protocolVersion": params["protocolVersion"]"#);
                assert_ne!(agreeable, stubborn, "it says what it speaks");
                vec!["-c".to_owned(), agreeable]
            }
            Self::Modern => vec![text(folder.join("../bridge/tests/servers/modern.py"))],
        };
        let behind: Vec<&str> = ["--", "python3"].into_iter().chain(command.iter().map(String::as_str)).collect();
        Bridge::start(&binary("portolan-bridge"), "stdio", &behind).await
    }
}

/// Opens a session as a client of `revision` that can be asked, and says from then on what was agreed upon.
async fn open(client: &Client, path: &str, revision: &str) -> (Client, String) {
    let info = json!({"name": "c", "version": "1"});
    let params = json!({"protocolVersion": revision, "capabilities": {"elicitation": {}}, "clientInfo": info});
    let opened = client.post(path, legacy("initialize", &params)).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    let agreed = opened.json()["result"]["protocolVersion"].as_str().expect("a revision").to_owned();
    let client = client.clone().session(opened.header("mcp-session-id").expect("a session"));
    let client = client.with("content-type", "application/json");
    // The oldest of them had no such header yet.
    let client = if agreed == REVISIONS[0] { client } else { client.with("mcp-protocol-version", &agreed) };
    let begun = client.post(path, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    (client, agreed)
}

fn call(tool: &str, arguments: &Value) -> String {
    legacy("tools/call", &json!({"name": tool, "arguments": arguments}))
}

/// An answer to the question `id` that says `what`.
fn accepted(id: &str, what: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": {"action": "accept", "content": {"said": what}}}).to_string()
}

/// The last message of a stream of events.
fn last_in(events: &str) -> Value {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: ")).rfind(|data| !data.is_empty());
    serde_json::from_str(data.expect("a message")).expect("JSON")
}

/// Whether an event holds no message, which a client that knows nothing of such events may take for a broken one.
fn has_empty_event(events: &str) -> bool {
    events.lines().any(|line| line.trim_end() == "data:")
}

#[tokio::test]
async fn a_client_of_every_revision_of_sessions_is_served_in_it_in_front_of_a_server_of_either_era() {
    for server in [Server::Legacy, Server::Agreeable, Server::Modern] {
        let bridge = server.start().await;
        let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
        for (path, prefix) in PLACES {
            for revision in REVISIONS {
                let what = format!("{server:?} {path} {revision}");
                let (client, agreed) = open(&gateway.client(), path, revision).await;
                // At its own endpoint a server of sessions says itself what it speaks.
                let expected = if (server, path) == (Server::Legacy, ROUTE) { NEWEST } else { revision };
                assert_eq!(agreed, expected, "{what}");
                let echo = call(&format!("{prefix}echo"), &json!({"message": what}));
                let echoed = client.post(path, echo).await;
                assert_eq!((echoed.status, &echoed.json()["id"]), (200, &json!(2)), "{what}: {echoed:?}");
                assert!(echoed.json()["result"].to_string().contains(&what), "{echoed:?}");
                assert!(!echoed.text().contains("resultType"), "sessions know of no kinds of results: {echoed:?}");
                let ask = call(&format!("{prefix}ask"), &json!({}));
                let mut asking = client.open(Method::POST, path, ask).await;
                asking.read_until("elicitation/create").await;
                let answered = client.post(path, accepted(&question_in(asking.text()), &what)).await;
                assert_eq!(answered.status, 202, "{what}: {answered:?}");
                let (events, whole) = asking.read_to_end().await;
                let last = last_in(&events);
                assert!(whole && last["id"] == 2 && last["result"].to_string().contains(&what), "{what}: {events}");
                assert_eq!(has_empty_event(&events), agreed == NEWEST, "{what}: {events}");
                assert_eq!(client.send(Method::DELETE, path, "").await.status, 204, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_lasts_or_is_resumed_holds_nothing_but_messages_for_clients_that_expect_nothing_else() {
    let bridge = Server::Agreeable.start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    for (path, prefix) in PLACES {
        for revision in REVISIONS {
            let what = format!("{path} {revision}");
            let (client, _) = open(&gateway.client(), path, revision).await;
            let ask = call(&format!("{prefix}ask"), &json!({}));
            let mut asking = client.open(Method::POST, path, ask).await;
            asking.read_until("elicitation/create").await;
            let (id, event) = (question_in(asking.text()), id_of(asking.text(), "elicitation/create").to_owned());
            drop(asking);
            assert_eq!(client.post(path, accepted(&id, &what)).await.status, 202, "{what}");
            let resumed = client.clone().with("last-event-id", &event).open(Method::GET, path, "").await;
            assert_eq!(resumed.status, 200, "{what}");
            let (resumed, whole) = resumed.read_to_end().await;
            assert!(whole && last_in(&resumed)["result"].to_string().contains(&what), "{what}: {resumed}");
            let mut standing = client.open(Method::GET, path, "").await;
            assert_eq!(standing.status, 200, "{what}");
            if path == ROUTE {
                assert_eq!(client.post(path, call("say", &json!({"who": "x-"}))).await.status, 200);
                standing.read_until("x-second").await;
            } else {
                standing.read_until("\n\n").await;
            }
            let standing = standing.text();
            if revision != NEWEST {
                assert!(!has_empty_event(&resumed) && !has_empty_event(standing), "{what}: {resumed} {standing}");
            }
            assert_eq!(client.send(Method::DELETE, path, "").await.status, 204, "{what}");
        }
    }
}

#[tokio::test]
async fn what_a_server_without_sessions_requires_in_a_call_to_all_is_asked_here_and_answered_at_another_replica() {
    let bridge = Server::Modern.start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    for revision in REVISIONS {
        let (on_a, _) = open(&a.client(), ALL, revision).await;
        let on_b = on_a.clone().at(b.address);
        let ask = call("default__everything__ask", &json!({}));
        let mut asking = on_a.open(Method::POST, ALL, ask).await;
        asking.read_until("elicitation/create").await;
        let id = question_in(asking.text());
        let (whose, own) = id.split_once('@').expect("a part is named");
        let part = whose.strip_prefix("everything.default+").expect("the server and its namespace");
        assert!(!part.is_empty() && serde_json::from_str::<Value>(own).is_ok(), "{id}");
        // Of which session of the server it is, decides: there is no such one.
        let other = accepted(&id.replacen(part, "AAAAAAAAAAAAAAAAAAAAAA", 1), "forged");
        assert_ne!(on_b.post(ALL, other).await.status, 202, "{revision}");
        assert_eq!(on_b.post(ALL, accepted(&id, revision)).await.status, 202, "{revision}");
        let (events, whole) = asking.read_to_end().await;
        let last = last_in(&events);
        assert!(whole && last["id"] == 2, "{events}");
        let text = last["result"]["content"][0]["text"].as_str().expect("text");
        let told = json!({"first": {"action": "accept", "content": {"said": revision}}});
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), told, "under the name that the server gave it");
        assert!(last["result"].get("resultType").is_none() && !events.contains("requestState"), "{events}");
    }
    let counted = r#"portolan_gateway_sessions_opened_total{route="default/everything"}"#;
    assert_eq!(a.metric(counted).await, 3.0);
    assert_eq!(b.metric(counted).await, 0.0, "an answer opens nothing");
}

/// Calls `tool` as a sessionless client that can be asked.
async fn call_alone(client: Client, path: &str, tool: &str, mut params: Value) -> Answer {
    params["name"] = tool.into();
    params["arguments"] = json!({});
    let mut body: Value = serde_json::from_str(&request("tools/call", params)).expect("JSON");
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {}});
    saying(client, "tools/call", Some(tool)).post(path, body.to_string()).await
}

#[tokio::test]
async fn a_half_done_call_to_all_is_finished_at_another_replica_by_its_caller_and_refused_to_everyone_else() {
    const ASK: &str = "default__everything__ask";
    let bridge = Server::Legacy.start().await;
    let objects = Objects::new(&[&bridge]);
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let ask = async |client: Client| {
        let answer = call_alone(client, ALL, ASK, json!({})).await;
        let result = answer.json()["result"].clone();
        assert_eq!((answer.status, &result["resultType"]), (200, &json!("input_required")), "{answer:?}");
        let questions = result["inputRequests"].as_object().expect("questions");
        let (key, question) = questions.iter().next().expect("a question");
        assert_eq!((questions.len(), &question["method"]), (1, &json!("elicitation/create")), "{answer:?}");
        let (key, state) = (key.clone(), result["requestState"].as_str().expect("a text").to_owned());
        move |action: &str| json!({"requestState": state, "inputResponses": {&key[..]: {"action": action}}})
    };
    let hers = ask(a.client()).await;
    // He has a call that waits too: neither is taken for the other.
    let his = ask(b.client().key(BOB)).await;
    for gateway in [&a, &b] {
        for (path, prefix) in PLACES {
            let client = gateway.client().key(BOB);
            let stolen = call_alone(client, path, &format!("{prefix}ask"), hers("decline")).await;
            assert_eq!((stolen.status, &stolen.json()["error"]["code"]), (400, &json!(-32602)), "{path}: {stolen:?}");
            let text = stolen.text();
            assert!(!["elicitation", "input", "decline", "result"].iter().any(|word| text.contains(word)), "{text}");
        }
    }
    let done = call_alone(b.client(), ALL, ASK, hers("accept")).await;
    let result = &done.json()["result"];
    assert_eq!((done.status, &result["resultType"]), (200, &json!("complete")), "{done:?}");
    assert_eq!(result["structuredContent"], json!({"action": "accept"}), "what she said, and not what he did");
    let done = call_alone(a.client().key(BOB), ALL, ASK, his("cancel")).await;
    assert_eq!(done.json()["result"]["structuredContent"], json!({"action": "cancel"}), "{done:?}");
    for (key, state) in [(BOB, hers("decline")), (ALICE, hers("accept"))] {
        let over = call_alone(b.client().key(key), ALL, ASK, state).await;
        assert_eq!(over.json()["error"]["code"], -32602, "nothing of it is left to be had: {over:?}");
    }
}

const MARKED: &str = r#"{"name":"echo","inputSchema":{"type":"object","properties":{
    "region":{"type":"string","x-mcp-header":"Region"},"shard":{"type":"integer","x-mcp-header":"Shard-No"}}}}"#;

/// A server with a tool whose parameters have headers, at every endpoint; one toolset calls it something else.
async fn marked() -> World {
    let renaming = json!({"servers": [{"name": "everything", "tools": [{"name": "echo", "as": "reverb"}]}]});
    let world = World::with(|objects| objects.toolsets.push(("renaming", renaming))).await;
    world.everything.offer(Offers { tools: Some(vec![MARKED.into()]), ..Offers::default() });
    world
}

/// Every endpoint, and what `echo` is called there.
fn endpoints() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENDPOINTS.into_iter().chain([("/default/toolsets/renaming/mcp", "reverb")])
}

#[tokio::test]
async fn headers_of_parameters_and_of_traces_reach_the_server_that_a_call_names_and_its_name_is_the_servers_own() {
    let world = marked().await;
    let passed = [
        ("mcp-protocol-version", VERSION),
        ("mcp-method", "tools/call"),
        ("mcp-param-region", "=?base64?S8O2bmlnc2Jlcmcg?="),
        ("mcp-param-shard-no", "7"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("baggage", "userId=alice,serverNode=DF%2028;ttl=5"),
    ];
    for (path, echo) in endpoints() {
        let before = world.everything.asked().len();
        let client = saying(world.gateway.client(), "tools/call", Some(echo));
        let client = passed.iter().fold(client, |client, (name, value)| client.with(name, value));
        // A trace's state may be written in several headers, whose order says which is the newest.
        let client = client.and("tracestate", "old=1");
        let arguments = json!({"region": "Königsberg ", "shard": 7});
        let answer = client.post(path, request("tools/call", json!({"name": echo, "arguments": arguments}))).await;
        assert_eq!((answer.status, &answer.json()["result"]), (200, &arguments), "{path}: {answer:?}");
        let asked = world.everything.asked().split_off(before);
        let [(seen, body)] = &asked[..] else { panic!("{path}: {asked:?}") };
        assert_eq!((&body["params"]["name"], &body["params"]["arguments"]), (&json!("echo"), &arguments), "{path}");
        let values = |name: &str| -> Vec<&str> {
            seen.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
        };
        assert_eq!(values("mcp-name"), ["echo"], "{path}: it says what the body says there");
        for (name, value) in passed {
            let expected = if name == "tracestate" { vec![value, "old=1"] } else { vec![value] };
            assert_eq!(values(name), expected, "{name} at {path}");
        }
        assert!(!seen.headers.contains_key("authorization"), "{path}");
    }
    assert!(world.other.asked().is_empty());
}

#[tokio::test]
async fn a_call_whose_header_names_another_tool_than_its_body_reaches_nobody() {
    let world = marked().await;
    for (path, echo) in endpoints() {
        // Each names something somewhere, which the body does not.
        let names = ["echo", "default__everything__echo", "default__other__echo", "reverb", "everything.default+echo"];
        for header in names.into_iter().filter(|name| *name != echo) {
            let body = request("tools/call", json!({"name": echo, "arguments": {"region": "x"}}));
            let client = saying(world.gateway.client(), "tools/call", Some(header)).with("mcp-param-region", "x");
            let answer = client.post(path, body).await;
            let code = &answer.json()["error"]["code"];
            assert_eq!((answer.status, code), (400, &json!(-32020)), "{header} at {path}: {answer:?}");
        }
    }
    assert_eq!(world.reached(), 0);
}

#[tokio::test]
async fn a_parameter_that_has_a_header_is_held_against_it_at_every_endpoint_in_front_of_the_real_bridge() {
    let bridge = Server::Modern.start().await;
    let mut objects = Objects::new(&[&bridge]);
    objects.toolsets = vec![("mine", json!({"servers": [{"name": "everything"}]}))];
    let gateway = Gateway::start(&objects).await;
    for (path, route) in ENDPOINTS.map(|(path, echo)| (path, echo.replace("echo", "route"))) {
        let body = request("tools/call", json!({"name": route, "arguments": {"region": "us-west1"}}));
        let client = saying(gateway.client(), "tools/call", Some(&route));
        let answer = client.clone().with("mcp-param-region", "us-west1").post(path, body.clone()).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "us-west1", "{path}: {answer:?}");
        for client in [client.clone(), client.with("mcp-param-region", "eu-north1")] {
            let answer = client.post(path, body.clone()).await;
            let code = &answer.json()["error"]["code"];
            assert_eq!((answer.status, code), (400, &json!(-32020)), "{path}: {answer:?}");
        }
    }
}
