//! What changes behind `/mcp` reaches those who were away, or at another replica.

use http::Method;
use serde_json::{Value, json};

use crate::aggregate::{ALL, curious, legacy, names, open, two};
use crate::client::{Client, Streaming, until};
use crate::offers::Offers;
use crate::world::{Gateway, Objects};

fn call(server: &str, tool: &str, arguments: &Value) -> String {
    legacy("tools/call", &json!({"name": format!("default__{server}__{tool}"), "arguments": arguments}))
}

/// What `a` and `b` have, as the client is shown it.
async fn tools(client: &Client) -> Vec<String> {
    let answer = client.post(ALL, legacy("tools/list", &json!({}))).await;
    names(&answer, "tools", "name")
}

/// The ids of the events of a stream.
fn ids(stream: &Streaming) -> Vec<String> {
    stream.text().lines().filter_map(|line| line.strip_prefix("id: ")).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn a_client_takes_its_call_back_and_ends_its_session_through_a_replica_that_opened_nothing() {
    let (a, b) = two().await;
    a.keep_sessions();
    b.keep_sessions();
    let objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let (one, other) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let client = open(&one.client()).await;
    for server in ["a", "b"] {
        assert_eq!(client.post(ALL, call(server, "echo", &json!({}))).await.status, 200);
    }
    let elsewhere = client.clone().at(other.address);
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(elsewhere.post(ALL, cancelled.to_string()).await.status, 202);
    assert_eq!((a.count("notifications/cancelled"), b.count("notifications/cancelled")), (1, 1));
    assert_eq!(elsewhere.send(Method::DELETE, ALL, "").await.status, 204);
    assert_eq!((a.sessions(), b.sessions()), (0, 0));
}

#[tokio::test]
async fn a_list_that_a_server_says_has_changed_is_asked_for_again_though_it_is_not_old() {
    let (a, b) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let client = open(&gateway.client()).await;
    assert_eq!(tools(&client).await, ["default__a__echo", "default__b__echo"]);
    b.offer(Offers::tools(&["echo", "more"]));
    assert_eq!(tools(&client).await.len(), 2, "what was asked a moment ago is not asked again");
    let told = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
    let arguments = json!({"frames": [told], "type": "text/event-stream"});
    let calling = client.clone().with("content-type", "application/json");
    let mut stream = calling.open(Method::POST, ALL, call("b", "cut", &arguments)).await;
    stream.read_until("tools/list_changed").await;
    until("the list is the new one", async || tools(&client).await.len() == 3).await;
}

#[tokio::test]
async fn a_stream_of_changes_that_broke_is_resumed_with_what_was_missed_at_any_replica() {
    let (a, b) = two().await;
    let objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let (one, other) = (
        Gateway::start_with(curious(), Some(objects.inputs())).await,
        Gateway::start_with(curious(), Some(objects.inputs())).await,
    );
    let client = open(&one.client()).await.with("mcp-protocol-version", "2025-11-25");
    tools(&client).await;
    let mut standing = client.open(Method::GET, ALL, "").await;
    standing.read_until("data:").await;
    let [first] = &ids(&standing)[..] else { panic!("it begins with an event to come back to: {}", standing.text()) };
    let first = first.clone();
    b.offer(Offers::tools(&["echo", "more"]));
    standing.read_until("tools/list_changed").await;
    let last = ids(&standing).pop().expect("an id");
    assert_ne!(first, last);
    drop(standing);
    let resume = async |gateway: &Gateway, last: &str| {
        let mut stream =
            client.clone().at(gateway.address).with("last-event-id", last).open(Method::GET, ALL, "").await;
        assert_eq!(stream.status, 200);
        stream.read_until("\n\n").await;
        stream
    };
    let missed = resume(&one, &first).await;
    assert!(missed.text().contains("tools/list_changed") && !missed.text().contains("prompts"), "{}", missed.text());
    assert_eq!(ids(&missed), std::slice::from_ref(&last));
    assert!(!resume(&one, &last).await.text().contains("list_changed"), "nothing was missed");
    let unknown = resume(&other, &last).await;
    assert!(unknown.text().contains("tools/list_changed"), "who cannot know tells it again: {}", unknown.text());
    let older = open(&one.client()).await.with("mcp-protocol-version", "2025-06-18");
    let mut plain = older.open(Method::GET, ALL, "").await;
    plain.read_until("\n\n").await;
    assert!(ids(&plain).is_empty(), "clients of older revisions expect no event without a message: {}", plain.text());
}
