//! Toolsets: some servers as one, with the tools that are shown and the names that they have there.

use http::Method;
use serde_json::{Value, json};

use crate::aggregate::{ALL, curious, legacy, names, open, two};
use crate::client::{Answer, Client, initialize};
use crate::modern::{request, saying};
use crate::offers::Offers;
use crate::world::{Gateway, Objects};

const PATH: &str = "/default/toolsets/mine/mcp";
const OTHER: &str = "/default/toolsets/other/mcp";

/// Of `a` the tools `echo`, as `say`, and `more`; of `b` all; nothing of `c`.
fn spec() -> Value {
    json!({
        "instructions": "Say it.",
        "servers": [
            {"name": "b"},
            {"name": "a", "tools": [{"name": "echo", "as": "say"}, {"name": "more"}, {"name": "gone", "as": "lost"}]},
        ],
    })
}

async fn open_at(client: &Client, path: &str) -> Client {
    let answer = client.post(path, initialize()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    client.clone().session(answer.header("mcp-session-id").expect("a session"))
}

/// Asks in either era.
async fn in_both(client: &Client, method: &str, params: Value, name: Option<&str>) -> [Answer; 2] {
    let with_session = client.post(PATH, legacy(method, &params)).await;
    [with_session, saying(client.clone(), method, name).post(PATH, request(method, params)).await]
}

#[tokio::test]
async fn a_toolset_lists_what_it_shows_of_its_servers_under_its_own_names() {
    let ((a, b), (c, _)) = (two().await, two().await);
    a.offer(Offers {
        prompts: Some(vec![r#"{"name":"p"}"#.into()]),
        resources: Some(vec![r#"{"uri":"x:1","name":"one"}"#.into()]),
        ..Offers::tools(&["echo", "hidden", "more"])
    });
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b]), ("c", &[&c])]);
    objects.toolsets = vec![("mine", spec())];
    let gateway = Gateway::start(&objects).await;
    let client = open_at(&gateway.client(), PATH).await;
    for (method, list, name, expected) in [
        ("tools/list", "tools", "name", &["say", "default__a__more", "default__b__echo"][..]),
        ("prompts/list", "prompts", "name", &["default__a__p"][..]),
        ("resources/list", "resources", "uri", &["a.default+x:1"][..]),
    ] {
        for answer in in_both(&client, method, json!({}), None).await {
            assert_eq!(names(&answer, list, name), expected, "{answer:?}");
        }
    }
    let opened = gateway.client().post(PATH, initialize()).await.json()["result"].clone();
    let [_, discovered] = in_both(&client, "server/discover", json!({}), None).await;
    for told in [&opened, &discovered.json()["result"]] {
        let instructions = told["instructions"].as_str().expect("text");
        assert!(instructions.starts_with("Say it.\n"), "{instructions}");
        assert_eq!(told["capabilities"]["resources"], json!({"listChanged": true}));
    }
    let all = open(&gateway.client()).await.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&all, "tools", "name").len(), 5, "the endpoint of all servers is as it was");
    assert_eq!(
        gateway.metric(r#"portolan_gateway_config_rejected_objects{kind="MCPToolset",reason="NoServer"}"#).await,
        0.0
    );
}

#[tokio::test]
async fn a_call_reaches_the_server_under_its_own_name_and_what_is_not_shown_is_not_there() {
    let ((a, b), (c, _)) = (two().await, two().await);
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b]), ("c", &[&c])]);
    objects.toolsets = vec![("mine", spec())];
    let gateway = Gateway::start(&objects).await;
    let client = open_at(&gateway.client(), PATH).await;
    for (bridge, shown, own) in [(&a, "say", "echo"), (&a, "default__a__more", "more"), (&b, "default__b__x", "x")] {
        for answer in in_both(&client, "tools/call", json!({"name": shown, "arguments": {"x": 1}}), Some(shown)).await {
            assert!(answer.json()["result"].is_object(), "{shown}: {answer:?}");
            let (seen, body) =
                bridge.asked().into_iter().rfind(|(_, body)| body["method"] == "tools/call").expect("it");
            assert_eq!(body["params"]["name"], own);
            assert!(seen.headers.get("mcp-name").is_none_or(|name| name == own), "the header says what the body says");
        }
    }
    let reached = || a.count("tools/call") + b.count("tools/call") + c.asked().len();
    let before = reached();
    for name in ["default__a__echo", "default__a__hidden", "default__c__echo", "echo", "default__x__echo"] {
        for answer in in_both(&client, "tools/call", json!({"name": name}), Some(name)).await {
            assert_eq!(answer.json()["error"]["code"], -32602, "{name}: {answer:?}");
        }
    }
    for (method, params, name) in [
        ("prompts/get", json!({"name": "default__c__p"}), "default__c__p"),
        ("prompts/get", json!({"name": "say"}), "say"),
        ("resources/read", json!({"uri": "c.default+a:b"}), "c.default+a:b"),
    ] {
        for answer in in_both(&client, method, params, Some(name)).await {
            assert_eq!(answer.json()["error"]["code"], -32602, "{name}: {answer:?}");
        }
    }
    assert_eq!(reached(), before, "no server hears of it");
}

#[tokio::test]
async fn a_session_id_of_one_endpoint_is_unknown_at_every_other() {
    let (a, b) = two().await;
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    objects.toolsets = vec![("mine", spec()), ("other", spec())];
    let gateway = Gateway::start(&objects).await;
    let paths = [PATH, OTHER, ALL];
    for opened in paths {
        let client = open_at(&gateway.client(), opened).await;
        for asked in paths {
            let answer = client.post(asked, legacy("tools/list", &json!({}))).await;
            assert_eq!(answer.status, if asked == opened { 200 } else { 404 }, "of {opened} at {asked}: {answer:?}");
        }
        assert_eq!(client.post("/default/a/mcp", legacy("tools/list", &json!({}))).await.status, 404);
    }
}

#[tokio::test]
async fn a_toolset_is_not_there_where_nothing_of_it_may_be_used_and_gives_no_right_to_a_server() {
    let (a, b) = two().await;
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    objects.toolsets = vec![
        ("mine", json!({"servers": [{"name": "a"}, {"name": "b"}]})),
        ("other", json!({"servers": [{"name": "b"}]})),
    ];
    objects.gateway["servers"] = json!({"selector": {"matchLabels": {"name": "a"}}});
    let gateway = Gateway::start(&objects).await;
    let client = open_at(&gateway.client(), PATH).await;
    let listed = client.post(PATH, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&listed, "tools", "name"), ["default__a__echo"]);
    let called = client.post(PATH, legacy("tools/call", &json!({"name": "default__b__echo"}))).await;
    assert_eq!(called.json()["error"]["code"], -32602);
    let absent = gateway.client().post("/default/toolsets/absent/mcp", initialize()).await;
    let empty = gateway.client().post(OTHER, initialize()).await;
    assert_eq!((absent.status, absent.text()), (404, empty.text()), "they are the same");
    assert_eq!(empty.status, 404);
    assert!(b.seen().is_empty());
    assert_eq!(
        gateway.metric(r#"portolan_gateway_config_rejected_objects{kind="MCPToolset",reason="NoServer"}"#).await,
        2.0
    );
}

#[tokio::test]
async fn who_listens_hears_that_the_toolset_is_another_and_the_stream_ends_with_it() {
    let (a, b) = two().await;
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    objects.toolsets = vec![("mine", spec())];
    let gateway = Gateway::start_with(curious(), Some(objects.inputs())).await;
    let client = open_at(&gateway.client(), PATH).await;
    client.post(PATH, legacy("tools/list", &json!({}))).await;
    let mut standing = client.open(Method::GET, PATH, "").await;
    standing.read_until("\n\n").await;
    objects.toolsets = vec![("mine", json!({"servers": [{"name": "a", "tools": [{"name": "echo", "as": "tell"}]}]}))];
    gateway.load(objects.inputs()).await;
    standing.read_until("notifications/tools/list_changed").await;
    let listed = client.post(PATH, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&listed, "tools", "name"), ["tell"]);
    objects.toolsets.clear();
    gateway.load(objects.inputs()).await;
    standing.read_to_end().await;
    assert_eq!(client.post(PATH, legacy("tools/list", &json!({}))).await.status, 404);
}
