//! `/mcp`: what all servers list, as one list; and who gets what is asked there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use portolan_gateway::Config;
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Answer, Client, initialize, until};
use crate::modern::{request, saying};
use crate::offers::{Mood, Offers};
use crate::ports::free_port;
use crate::world::{Gateway, MAC_KEY, Objects, config};

pub const ALL: &str = "/mcp";

/// What servers list is asked for again at every look.
pub fn curious() -> Config {
    let mut config = config();
    config.bounds.lists_interval = Duration::from_millis(10);
    config
}

/// Two servers, `a` and `b`, with a pod each.
pub async fn two() -> (Bridge, Bridge) {
    let (a, b) = (Bridge::start("uid-a", MAC_KEY).await, Bridge::start("uid-b", MAC_KEY).await);
    a.offer(Offers::tools(&["echo"]));
    b.offer(Offers::tools(&["echo"]));
    (a, b)
}

/// Opens a session with all servers.
pub async fn open(client: &Client) -> Client {
    let answer = client.post(ALL, initialize()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    client.clone().session(answer.header("mcp-session-id").expect("a session"))
}

/// A request of a client with a session.
pub fn legacy(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params}).to_string()
}

/// Asks in either era: `client` has a session, which the sessionless one does not look at.
async fn in_both(client: &Client, method: &str, params: Value, name: Option<&str>) -> [Answer; 2] {
    let with_session = client.post(ALL, legacy(method, &params)).await;
    [with_session, saying(client.clone(), method, name).post(ALL, request(method, params)).await]
}

pub fn names(answer: &Answer, list: &str, name: &str) -> Vec<String> {
    let answer = answer.json();
    let items = answer["result"][list].as_array().unwrap_or_else(|| panic!("no list: {answer}"));
    items.iter().map(|item| item[name].as_str().expect("a name").to_owned()).collect()
}

pub fn missing(answer: &Answer) -> Vec<Value> {
    answer.json()["result"]["_meta"]["portolan.dev/missing"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn what_all_servers_list_is_one_list_in_their_order_and_keeps_its_bytes_but_for_the_name() {
    let (a, b) = two().await;
    let written = r#""inputSchema":{ "x-n":1.50,"x-big":12345678901234567890 },"title":"\u00e9"}"#;
    a.offer(Offers {
        tools: Some(vec![format!(r#"{{"name":"z",{written}"#), format!(r#"{{"name":"a",{written}"#)]),
        resources: Some(vec![r#"{"uri":"x:1","name":"one"}"#.into()]),
        templates: Some(vec![r#"{"uriTemplate":"x:{n}","name":"some"}"#.into()]),
        ..Offers::default()
    });
    b.offer(Offers { prompts: Some(vec![r#"{"name":"p"}"#.into()]), ..Offers::tools(&["a"]) });
    let gateway = Gateway::start(&Objects::of(&[("b", &[&b]), ("a", &[&a])])).await;
    let client = open(&gateway.client()).await;
    for (method, list, name, expected) in [
        ("tools/list", "tools", "name", &["default__a__z", "default__a__a", "default__b__a"][..]),
        ("prompts/list", "prompts", "name", &["default__b__p"][..]),
        ("resources/list", "resources", "uri", &["a.default+x:1"][..]),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", &["a.default+x:{n}"][..]),
    ] {
        for answer in in_both(&client, method, json!({}), None).await {
            assert_eq!(names(&answer, list, name), expected, "{answer:?}");
            assert_eq!(missing(&answer), [] as [Value; 0]);
            assert!(list != "tools" || answer.text().contains(&format!(r#"{{"name":"default__a__z",{written}"#)));
        }
    }
    let reached = a.seen().len() + b.seen().len();
    in_both(&client, "tools/list", json!({}), None).await;
    assert_eq!(a.seen().len() + b.seen().len(), reached, "what is known is not asked for again");
    assert!(a.asked().is_empty() && b.asked().is_empty(), "nothing is started for a list");
    let counted = r#"portolan_gateway_requests_total{method="tools/list",outcome="OK",route="_all"}"#;
    until("it is counted as the endpoint's own", async || gateway.metric(counted).await == 4.0).await;
}

#[tokio::test]
async fn a_long_list_is_read_page_by_page_across_servers_with_nothing_twice_and_nothing_lost() {
    let (a, b) = two().await;
    let tools = |count: usize| -> Vec<String> { (0..count).map(|n| format!("t{n}")).collect() };
    let offers = |count: usize| Offers::tools(&tools(count).iter().map(String::as_str).collect::<Vec<_>>());
    a.offer(offers(1500));
    b.offer(offers(700));
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let client = open(&gateway.client()).await;
    for era in 0..2 {
        let (mut read, mut cursor) = (Vec::new(), Value::Null);
        for page in [1000, 1000, 200] {
            let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
            let answer = &in_both(&client, "tools/list", params, None).await[era];
            let names = names(answer, "tools", "name");
            assert_eq!(names.len(), page);
            read.extend(names);
            cursor = answer.json()["result"]["nextCursor"].clone();
        }
        assert_eq!(cursor, Value::Null, "the last page says so");
        let of = |server: &'static str, count| tools(count).into_iter().map(move |t| format!("default__{server}__{t}"));
        assert_eq!(read, of("a", 1500).chain(of("b", 700)).collect::<Vec<_>>());
    }
    for answer in in_both(&client, "tools/list", json!({"cursor": "400"}), None).await {
        assert_eq!(answer.json()["error"]["code"], -32602, "a cursor of nobody's: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_asked_reaches_the_one_server_that_it_names_under_that_servers_own_names() {
    let (a, b) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let client = open(&gateway.client()).await;
    for (method, shown, own) in [
        ("tools/call", json!({"name": "default__b__a__b"}), json!({"name": "a__b"})),
        ("prompts/get", json!({"name": "default__b__p"}), json!({"name": "p"})),
        ("resources/read", json!({"uri": "b.default+a:b"}), json!({"uri": "a:b"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "default__b__p"}, "argument": {"name": "x", "value": "y"}}),
            json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "x", "value": "y"}}),
        ),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/resource", "uri": "b.default+a:{b}"}}),
            json!({"ref": {"type": "ref/resource", "uri": "a:{b}"}}),
        ),
    ] {
        let name = |params: &Value| ["name", "uri"].iter().find_map(|member| params[member].as_str().map(String::from));
        for (era, answer) in in_both(&client, method, shown.clone(), name(&shown).as_deref()).await.iter().enumerate() {
            assert_eq!(answer.status, 200, "{method} {answer:?}");
            let text = answer.text();
            assert!(!text.contains(r#""uri":"a:b""#), "a resource is named as the endpoint names it: {text}");
            assert_eq!(text.contains("b.default+a:b"), ["prompts/get", "resources/read"].contains(&method), "{text}");
            let asked = b.asked();
            let mut of_method = asked.iter().filter(|(_, body)| body["method"] == method);
            let (seen, body) = of_method.nth_back(1 - era).expect("it arrived");
            let mut params = body["params"].clone();
            params.as_object_mut().expect("an object").remove("_meta");
            assert_eq!((&params, &body["id"]), (&own, &json!(2)));
            let header = seen.headers.get("mcp-name").map(|name| name.to_str().expect("text").to_owned());
            assert_eq!(header, name(&own).filter(|_| era == 1), "the header says what the body says");
        }
    }
    assert!(a.asked().is_empty(), "the other server hears nothing of it");
    let counted = r#"portolan_gateway_requests_total{method="tools/call",outcome="OK",route="default/b"}"#;
    until("it is counted as the server's", async || gateway.metric(counted).await == 2.0).await;
}

#[tokio::test]
async fn a_name_of_nothing_that_a_caller_may_see_is_refused_and_reaches_no_server() {
    let (a, b) = two().await;
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    objects.gateway["servers"] = json!({"selector": {"matchLabels": {"name": "a"}}});
    let gateway = Gateway::start(&objects).await;
    let client = open(&gateway.client()).await;
    let reached = || a.asked().len() + b.seen().len();
    for (method, params) in [
        ("tools/call", json!({"name": "default__b__echo"})),
        ("tools/call", json!({"name": "default__c__echo"})),
        ("tools/call", json!({"name": "echo"})),
        ("tools/call", json!({"name": "default__a__"})),
        ("tools/call", json!({"name": "__a__echo"})),
        ("prompts/get", json!({"name": "a.default+p"})),
        ("resources/read", json!({"uri": "b.default+a:b"})),
        ("resources/read", json!({"uri": "a:b"})),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "p"}})),
    ] {
        let name = ["name", "uri"].iter().find_map(|member| params[member].as_str().map(String::from));
        for answer in in_both(&client, method, params.clone(), name.as_deref()).await {
            assert_eq!(answer.json()["error"]["code"], -32602, "{method} {params}: {answer:?}");
            assert_eq!(reached(), 0);
        }
    }
    for (method, params) in [
        ("resources/subscribe", json!({"uri": "a.default+a:b"})),
        ("logging/setLevel", json!({"level": "info"})),
        ("tasks/get", json!({"taskId": "1"})),
    ] {
        let answer = client.post(ALL, legacy(method, &params)).await;
        assert_eq!(answer.json()["error"]["code"], -32601, "what is not passed is said: {answer:?}");
        assert_eq!(reached(), 0);
    }
    let listed = client.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&listed, "tools", "name"), ["default__a__echo"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_first_question_delays_no_other_for_long_and_is_named() {
    let (a, b) = two().await;
    b.offer(Offers { mood: Mood::Hanging, ..Offers::default() });
    let gone = Objects::of(&[("c", &[&a])]);
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b]), ("d", &[])]);
    objects.servers.extend(gone.servers);
    // Nobody listens there.
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    objects.servers[3].1.as_mut().expect("pods")[0].1 = closed;
    let gateway = Gateway::start(&objects).await;
    let asked =
        || async { saying(gateway.client(), "tools/list", None).post(ALL, request("tools/list", json!({}))).await };
    // Together: who comes second does not get less.
    for answer in <[Answer; 2]>::from(tokio::join!(asked(), asked())) {
        assert_eq!(names(&answer, "tools", "name"), ["default__a__echo"]);
        let missing = missing(&answer);
        let told: Vec<_> = missing.iter().map(|part| (part["server"].clone(), part["error_type"].clone())).collect();
        let expected = [("default/b", "NotReady"), ("default/c", "ServerUnreachable"), ("default/d", "NotReady")];
        // Of the one that hangs it is not known yet that it does: it was not waited for that long.
        assert_eq!(told, expected.map(|(server, kind)| (json!(server), json!(kind))));
        assert!(missing.iter().all(|part| part["stale"] == false && part["age_seconds"].is_null()), "{missing:?}");
    }
    assert!(gateway.metric("portolan_gateway_catalog_failures_total").await >= 2.0);
}

#[tokio::test]
async fn of_a_server_that_stops_answering_the_last_good_lists_are_shown_and_marked() {
    let (a, b) = two().await;
    let gateway = Gateway::start_with(curious(), Some(Objects::of(&[("a", &[&a]), ("b", &[&b])]).inputs())).await;
    let client = open(&gateway.client()).await;
    let listed = async || client.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&listed().await, "tools", "name"), ["default__a__echo", "default__b__echo"]);
    for (mood, kind) in [(Mood::Failing, "ServerExited"), (Mood::Hanging, "RequestTimeout")] {
        b.offer(Offers { mood, ..Offers::default() });
        until("it is marked", async || {
            let answer = listed().await;
            assert_eq!(
                names(&answer, "tools", "name"),
                ["default__a__echo", "default__b__echo"],
                "nobody waits for it"
            );
            missing(&answer).first().is_some_and(|part| part["error_type"] == kind)
        })
        .await;
        let missing = missing(&listed().await);
        assert_eq!(
            (missing.len(), &missing[0]["server"], &missing[0]["stale"]),
            (1, &json!("default/b"), &json!(true))
        );
        assert!(missing[0]["age_seconds"].is_u64() && missing[0]["message"].is_string(), "{missing:?}");
        b.offer(Offers::tools(&["echo"]));
        until("it is well again", async || self::missing(&listed().await).is_empty()).await;
    }
}

#[tokio::test]
async fn an_endpoint_has_what_its_servers_have_and_of_one_that_has_not_said_yet_it_may_be_anything() {
    let (a, b) = two().await;
    b.offer(Offers { prompts: Some(vec![]), completions: true, ..Offers::default() });
    let capabilities = async |objects: Objects| {
        let gateway = Gateway::start(&objects).await;
        let opened = gateway.client().post(ALL, initialize()).await;
        let discovered = saying(gateway.client(), "server/discover", None);
        let discovered = discovered.post(ALL, request("server/discover", json!({}))).await;
        let (opened, discovered) = (opened.json()["result"].clone(), discovered.json()["result"].clone());
        assert_eq!(opened["capabilities"], discovered["capabilities"]);
        assert_eq!(opened["protocolVersion"], "2025-11-25");
        assert_eq!(discovered["cacheScope"], "private", "what is there depends on who asks");
        opened["capabilities"].clone()
    };
    let listed = json!({"listChanged": true});
    assert_eq!(
        capabilities(Objects::of(&[("a", &[&a]), ("b", &[&b])])).await,
        json!({"tools": listed, "prompts": listed, "completions": {}})
    );
    a.offer(Offers { mood: Mood::Hanging, ..Offers::default() });
    assert_eq!(
        capabilities(Objects::of(&[("a", &[&a])])).await,
        json!({"tools": listed, "prompts": listed, "resources": listed, "completions": {}})
    );
}

#[tokio::test]
async fn a_list_that_changes_is_told_to_those_who_listen_for_it_in_either_era() {
    let (a, b) = two().await;
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let gateway = Gateway::start_with(curious(), Some(objects.inputs())).await;
    let client = open(&gateway.client()).await;
    client.post(ALL, legacy("tools/list", &json!({}))).await;
    let mut standing = client.open(Method::GET, ALL, "").await;
    standing.read_until("\n\n").await;
    let listen = async |wanted: Value| {
        let body = request("subscriptions/listen", json!({ "notifications": wanted }));
        let client = saying(gateway.client(), "subscriptions/listen", None);
        let mut stream = client.open(Method::POST, ALL, body).await;
        stream.read_until("acknowledged").await;
        stream
    };
    let mut tools = listen(json!({"toolsListChanged": true, "resourceSubscriptions": ["a.default+a:b"]})).await;
    let mut prompts = listen(json!({"promptsListChanged": true})).await;
    assert!(!tools.text().contains("resourceSubscriptions"), "what is not told is not promised: {}", tools.text());
    b.offer(Offers::tools(&["echo", "more"]));
    standing.read_until("notifications/tools/list_changed").await;
    tools.read_until("notifications/tools/list_changed").await;
    assert!(tools.text().contains(r#""io.modelcontextprotocol/subscriptionId":2"#), "{}", tools.text());
    let answer = client.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&answer, "tools", "name"), ["default__a__echo", "default__b__echo", "default__b__more"]);
    assert!(!standing.text().contains("prompts/list_changed"), "{}", standing.text());
    a.offer(Offers { prompts: Some(vec![r#"{"name":"p"}"#.into()]), ..Offers::tools(&["echo"]) });
    prompts.read_until("notifications/prompts/list_changed").await;
    assert!(!prompts.text().contains("tools/list_changed"), "{}", prompts.text());
    standing.read_until("notifications/prompts/list_changed").await;
    // A server that goes takes what it listed with it.
    let told = standing.text().matches("tools/list_changed").count();
    objects.servers.pop();
    gateway.load(objects.inputs()).await;
    while standing.text().matches("tools/list_changed").count() == told {
        let lines = standing.text().matches('\n').count();
        standing.read_lines(lines + 1).await;
    }
}

#[tokio::test]
async fn a_stream_of_changes_ends_with_its_replica_as_its_era_ends_one() {
    let (a, _) = two().await;
    let mut gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let client = open(&gateway.client()).await;
    let mut standing = client.open(Method::GET, ALL, "").await;
    standing.read_until("\n\n").await;
    let body = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listening = saying(gateway.client(), "subscriptions/listen", None).open(Method::POST, ALL, body).await;
    listening.read_until("acknowledged").await;
    let began = Instant::now();
    gateway.shut_down();
    let (text, whole) = standing.read_to_end().await;
    assert!(whole && text.contains("retry: "), "{text}");
    let (text, whole) = listening.read_to_end().await;
    assert!(began.elapsed() < config().drain.timeout / 2, "a replica does not wait for them as for calls");
    assert!(whole && text.contains(r#""id":2,"result":{"resultType":"complete""#), "{text}");
}

#[tokio::test]
async fn a_large_answer_passes_whole_in_either_era() {
    let (a, _) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let client = open(&gateway.client()).await;
    let bytes = 5 * 1024 * 1024;
    let params = json!({"name": "default__a__huge", "arguments": {"bytes": bytes}});
    for answer in in_both(&client, "tools/call", params, Some("default__a__huge")).await {
        let content = &answer.json()["result"]["content"];
        assert_eq!(content[0]["text"].as_str().map(str::len), Some(bytes));
        assert_eq!(content[1]["uri"], "a.default+a:b");
    }
    until("it is given back", async || gateway.metric("portolan_gateway_buffered_bytes").await == 0.0).await;
}

#[tokio::test]
async fn a_server_that_lists_more_than_it_may_is_named_and_the_others_are_listed() {
    let (a, b) = two().await;
    let large = |name: &str| format!(r#"{{"name":"{name}","description":"{}"}}"#, "x".repeat(3 * 1024 * 1024));
    a.offer(Offers { tools: Some(["1", "2", "3"].map(large).into()), ..Offers::default() });
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let gateway = Gateway::start_with(curious(), Some(objects.inputs())).await;
    let client = open(&gateway.client()).await;
    let answer = client.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&answer, "tools", "name"), ["default__b__echo"]);
    assert_eq!(missing(&answer)[0]["error_type"], "BadServerReply", "{answer:?}");
    // Two of them are within the bound, and a page holds one.
    a.offer(Offers { tools: Some(["1", "2"].map(large).into()), ..Offers::default() });
    until("it is listed", async || {
        let answer = client.post(ALL, legacy("tools/list", &json!({}))).await;
        names(&answer, "tools", "name") == ["default__a__1"] && answer.json()["result"]["nextCursor"].is_string()
    })
    .await;
    // What a server had that is gone takes no room.
    objects.servers.remove(0);
    gateway.load(objects.inputs()).await;
    let answer = client.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&answer, "tools", "name"), ["default__b__echo"]);
}
