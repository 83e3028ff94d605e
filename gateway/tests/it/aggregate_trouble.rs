//! Servers behind `/mcp` that answer badly: each is told to the one caller whom it is about, and the others are served.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::aggregate::{ALL, curious, legacy, missing, names, open, two};
use crate::client::until;
use crate::modern::{request, saying};
use crate::offers::{Mood, Offers};
use crate::world::{Gateway, Objects, config};

#[tokio::test]
async fn a_server_whose_lists_are_none_is_named_and_the_others_are_listed() {
    for mood in [
        Mood::Saying("this is no JSON"),
        Mood::Saying(""),
        Mood::Saying("[]"),
        Mood::Saying(r#"{"jsonrpc":"2.0","method":"ping","id":1}"#),
        Mood::Saying(r#"{"jsonrpc":"2.0","id":1,"result":7}"#),
        Mood::Saying(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#),
        Mood::Listing("7"),
        Mood::Listing("{}"),
        Mood::Listing(r#"{"tools":7}"#),
        Mood::Listing(r#"{"tools":{"name":"x"}}"#),
        // Every page has a next one.
        Mood::Listing(r#"{"tools":[],"nextCursor":"0"}"#),
    ] {
        let (a, b) = two().await;
        a.offer(Offers { mood, ..Offers::tools(&["echo"]) });
        let gateway = Gateway::start_with(curious(), Some(Objects::of(&[("a", &[&a]), ("b", &[&b])]).inputs())).await;
        let client = open(&gateway.client()).await;
        let alone = saying(gateway.client(), "tools/list", None);
        for answer in [
            client.post(ALL, legacy("tools/list", &json!({}))).await,
            alone.post(ALL, request("tools/list", json!({}))).await,
        ] {
            assert_eq!(names(&answer, "tools", "name"), ["default__b__echo"]);
            let missing = missing(&answer);
            assert_eq!(missing.len(), 1, "{answer:?}");
            assert_eq!(
                (&missing[0]["server"], &missing[0]["error_type"]),
                (&json!("default/a"), &json!("BadServerReply"))
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_goes_on_failing_is_listed_soon_after_it_answers_however_long_lists_are_good() {
    let (a, b) = two().await;
    a.offer(Offers { mood: Mood::Failing, ..Offers::tools(&["echo"]) });
    let mut config = config();
    config.bounds.lists_interval = Duration::from_secs(600);
    let inputs = Objects::of(&[("a", &[&a]), ("b", &[&b])]).inputs();
    let gateway = Gateway::start_with(config, Some(inputs)).await;
    let client = open(&gateway.client()).await;
    let listed = async || names(&client.post(ALL, legacy("tools/list", &json!({}))).await, "tools", "name");
    let failures = || gateway.metric("portolan_gateway_catalog_failures_total");
    until("it has failed twice", async || listed().await == ["default__b__echo"] && failures().await >= 2.0).await;
    a.offer(Offers::tools(&["echo"]));
    until("it is listed", async || listed().await == ["default__a__echo", "default__b__echo"]).await;
}

#[tokio::test]
async fn items_of_a_list_that_have_no_name_are_left_out_and_the_others_are_listed() {
    let (a, b) = two().await;
    let tools = [r#"7"#, r#"null"#, r#"[]"#, r#"{}"#, r#"{"name":7}"#, r#"{"name":null}"#, r#"{"name":"fine"}"#];
    a.offer(Offers { tools: Some(tools.map(Into::into).into()), ..Offers::default() });
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let answer = open(&gateway.client()).await.post(ALL, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&answer, "tools", "name"), ["default__a__fine", "default__b__echo"]);
}

#[tokio::test]
async fn a_server_that_fails_a_call_to_all_fails_that_call_alone_in_either_era() {
    let (a, b) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let in_session = open(&gateway.client()).await.with("content-type", "application/json");
    let half = json!({"type": "text/event-stream", "frames": ["data: {\"jsonrpc\""]});
    let event = json!({"type": "text/event-stream", "frames": ["data: {}\n\n"]});
    for (tool, arguments, kind) in [
        ("drop", json!({}), Some("ServerUnreachable")),
        ("fail", json!({}), Some("ServerExited")),
        ("down", json!({}), Some("NotReady")),
        ("cut", json!({}), Some("ServerUnreachable")),
        ("cut", event, Some("ServerUnreachable")),
        ("cut", half, None),
    ] {
        let name = format!("default__a__{tool}");
        let params = json!({"name": name, "arguments": arguments});
        let alone = saying(gateway.client(), "tools/call", Some(&name));
        for (client, body) in
            [(in_session.clone(), legacy("tools/call", &params)), (alone, request("tools/call", params.clone()))]
        {
            let before = a.count("tools/call");
            let answer = client.open(Method::POST, ALL, body).await;
            let status = answer.status;
            let (text, whole) = answer.read_to_end().await;
            assert_eq!(whole, kind.is_some(), "{tool}: {text}");
            if let Some(kind) = kind {
                assert!(text.contains(&format!(r#""error_type":"{kind}""#)), "{tool} {status}: {text}");
            }
            assert_eq!(a.count("tools/call"), before + 1, "{tool} is not asked for again");
            let other = json!({"name": "default__b__echo", "arguments": {"n": 7}});
            let fine = in_session.post(ALL, legacy("tools/call", &other)).await;
            assert_eq!((fine.status, &fine.json()["result"]["n"]), (200, &json!(7)), "after {tool}");
        }
    }
    assert_eq!(gateway.metric("portolan_gateway_panics_total").await, 0.0);
}
