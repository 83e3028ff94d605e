//! Several messages in one POST, as clients of revision 2025-03-26 may send them.

use http::Method;
use serde_json::{Value, json};

use crate::aggregate::{ALL, legacy};
use crate::bridge::Bridge;
use crate::client::{Client, soon};
use crate::endpoints::{ENDPOINTS, World, open};
use crate::modern::request;
use crate::real_bridge;
use crate::world::{Gateway, MAC_KEY, Objects, ROUTE, config};

/// A call of `tool`, by its id.
fn call(id: u64, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {"x": id}}})
}

fn cancelled(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
}

/// The messages of a stream of events, by id.
fn messages(events: &str) -> Vec<Value> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty());
    let mut messages: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("one message")).collect();
    messages.sort_by_key(|message| message["id"].as_u64());
    messages
}

#[tokio::test]
async fn each_message_of_a_batch_goes_its_way_and_each_request_is_answered() {
    let world = World::start().await;
    for (path, echo) in ENDPOINTS {
        let client = open(&world.gateway.client(), path).await;
        // A server of several is spoken to once before it can be told anything.
        assert_eq!(client.post(path, call(1, echo).to_string()).await.status, 200);
        let before = world.everything.asked().len();
        let batch = json!([call(2, echo), cancelled(9), call(3, echo), call(4, "nobody__nothing__here")]);
        let answer = client.post(path, format!("\n {batch:#}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")), "{answer:?}");
        let answers = messages(&answer.text());
        assert_eq!(answers.iter().map(|answer| answer["id"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
        assert_eq!((&answers[0]["result"], &answers[1]["result"]), (&json!({"x": 2}), &json!({"x": 3})), "{path}");
        let mut reached: Vec<Value> = world.everything.asked().split_off(before).into_iter().map(|(_, b)| b).collect();
        reached.retain(|body| body["id"] != 4);
        reached.sort_by_key(|body| body["id"].as_u64());
        assert_eq!(
            reached.iter().map(|body| &body["method"]).collect::<Vec<_>>(),
            ["notifications/cancelled", "tools/call", "tools/call"]
        );
        assert_eq!(client.post(path, json!([cancelled(7), cancelled(8)]).to_string()).await.status, 202);
    }
    let counted = |method: &str| {
        format!(r#"portolan_gateway_requests_total{{method="{method}",outcome="OK",route="default/everything"}}"#)
    };
    assert_eq!(world.gateway.metric(&counted("_batch")).await, 2.0);
    assert!(world.gateway.metric(&counted("tools/call")).await >= 9.0, "each message counts by itself");
}

#[tokio::test]
async fn a_batch_that_may_not_be_sent_is_refused_whole() {
    let world = World::start().await;
    let initialize = json!({"jsonrpc": "2.0", "id": 5, "method": "initialize", "params": {}});
    let modern: Value = serde_json::from_str(&request("tools/call", json!({"name": "echo"}))).expect("JSON");
    for (path, echo) in ENDPOINTS {
        let good = call(2, echo);
        let client = open(&world.gateway.client(), path).await;
        let before = world.reached();
        for (what, batch) in [
            ("none", json!([])),
            ("too many", json!(vec![good.clone(); 65])),
            ("initialize", json!([good.clone(), initialize.clone()])),
            ("a request of another era", json!([good.clone(), modern.clone()])),
            ("a batch", json!([good.clone(), [good.clone()]])),
            ("no message", json!([good.clone(), {"id": 1}])),
        ] {
            let answer = client.post(path, batch.to_string()).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["code"]), (400, &json!(-32600)), "{what} at {path}: {answer:?}");
        }
        for version in ["2025-06-18", "2025-11-25"] {
            let answer =
                client.clone().with("mcp-protocol-version", version).post(path, json!([good]).to_string()).await;
            assert_eq!(answer.status, 400, "{version}");
            assert!(answer.text().contains("only revision 2025-03-26 has batches"), "{answer:?}");
        }
        let strangers = world.gateway.client().session("nobodys").post(path, json!([good]).to_string()).await;
        assert_eq!(strangers.status, 404, "{strangers:?}");
        assert_eq!(world.gateway.client().post(path, json!([good]).to_string()).await.status, 400, "no session");
        let twice = format!(r#"[{good},{{"jsonrpc":"2.0","id":3,"method":"ping","Method":"tools/call"}}]"#);
        let answer = client.post(path, twice).await;
        assert!(answer.text().contains("-32700"), "what two parsers could read differently: {answer:?}");
        assert_eq!(world.reached(), before, "{path}");
    }
}

#[tokio::test]
async fn messages_of_a_batch_wait_for_a_place_like_any_other() {
    let world = World::with(|objects| objects.server["limits"] = json!({"maxParallelRequests": 1})).await;
    let client = open(&world.gateway.client(), ROUTE).await;
    let batch: Value = (2..12).map(|id| call(id, "echo")).collect();
    let answer = soon(client.post(ROUTE, batch.to_string())).await;
    let answers = messages(&answer.text());
    assert_eq!(answers.len(), 10);
    assert!(answers.iter().all(|answer| answer["result"]["x"] == answer["id"]), "{answers:?}");
}

#[tokio::test]
async fn what_one_message_of_a_batch_comes_to_is_no_others_matter() {
    let world = World::start().await;
    let client = open(&world.gateway.client(), ALL).await;
    assert_eq!(client.post(ALL, call(1, "default__everything__echo").to_string()).await.status, 200);
    let nobodys = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
    let answer = client.post(ALL, json!([nobodys, cancelled(9)]).to_string()).await;
    assert_eq!(answer.status, 400, "nobody asked: {answer:?}");
    assert_eq!(world.everything.count("notifications/cancelled"), 1, "the other is carried out all the same");
    let client = open(&world.gateway.client(), ROUTE).await;
    let mut broken = call(2, "cut");
    broken["params"]["arguments"] = json!({"frames": [], "type": "application/json"});
    let answer = soon(client.post(ROUTE, json!([broken, call(3, "echo")]).to_string())).await;
    let answers = messages(&answer.text());
    assert_eq!(answers.len(), 2, "{answer:?}");
    assert!(answers[0].to_string().contains("broke off") && answers[1]["result"]["x"] == 3, "{answers:?}");
}

#[tokio::test]
async fn a_message_of_a_batch_that_a_full_gateway_refuses_is_told_so_under_its_id() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    config.bounds.max_requests = 2;
    let gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    let client = open(&gateway.client(), ROUTE).await;
    let batch: Value = (2..12).map(|id| call(id, "echo")).collect();
    let answers = messages(&soon(client.post(ROUTE, batch.to_string())).await.text());
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_u64()).collect();
    assert_eq!(ids, (2..12).map(Some).collect::<Vec<_>>(), "every request is answered: {answers:?}");
    assert!(answers.iter().any(|answer| answer.to_string().contains("Overloaded")), "{answers:?}");
}

async fn begun(client: &Client, path: &str) -> Client {
    let client = open(client, path).await;
    let begun = legacy("notifications/initialized", &json!({})).replace(r#""id":2,"#, "");
    assert_eq!(client.post(path, begun).await.status, 202);
    client.with("content-type", "application/json")
}

#[tokio::test]
async fn a_question_in_the_middle_of_a_batch_is_asked_and_answered() {
    let bridge = real_bridge::start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    for (path, prefix) in [(ROUTE, ""), (ALL, "default__everything__")] {
        let client = begun(&gateway.client(), path).await;
        let batch = json!([call(2, &format!("{prefix}ask")), call(3, &format!("{prefix}echo"))]).to_string();
        let mut asking = client.open(Method::POST, path, batch).await;
        asking.read_until("elicitation/create").await;
        let id = real_bridge::question_in(asking.text());
        let answer = json!([{"jsonrpc": "2.0", "id": id, "result": {"action": "accept"}}]).to_string();
        assert_eq!(client.post(path, answer).await.status, 202, "answers come in batches too");
        let (text, whole) = asking.read_to_end().await;
        let answered: Vec<_> = messages(&text).into_iter().filter(|message| message.get("result").is_some()).collect();
        assert!(whole && answered.len() == 2 && text.contains("accept"), "{text}");
    }
}
