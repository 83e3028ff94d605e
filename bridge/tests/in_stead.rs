//! Sessions that are opened in a client's stead: whoever has their name may ask before they are open.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use std::path::Path;

use common::client::Client;
use common::fixture::{Fixture, Opens};
use common::{PATIENCE, Reply, Rig, until};
use http::StatusCode;
use portolan_mcp::wire::{self, ProbeState};
use serde_json::json;

async fn open_in_stead(client: &Client<'_>) -> Reply {
    client.initialize_with(&[(wire::HANDSHAKE, "1".to_owned())]).await
}

/// Opens a session of `client` and lets it call before that is open; `opens` then lets the server answer `initialize`. Both
/// answers.
async fn with_an_early_call(rig: &Rig, client: &Client<'_>, opens: impl FnOnce()) -> (Reply, Reply) {
    let under_way = async || until("it is under way", async || rig.status().await.sessions.active == 1).await;
    let early = async {
        under_way().await;
        client.call(1, "x", json!({})).await
    };
    let opens = async {
        under_way().await;
        opens();
    };
    let (opened, called, ()) = tokio::join!(open_in_stead(client), early, opens);
    (opened, called)
}

/// A rig in front of a server that lets a client wait for `gate`.
async fn strict(gate: &Path) -> Rig {
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/strict.py");
    Rig::ready(&[], &["python3".into(), server.into(), gate.to_str().expect("text").into()]).await
}

#[tokio::test]
async fn a_call_that_comes_before_the_session_is_open_waits_for_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    let rig = strict(&gate).await;
    let client = rig.client();
    let opens = || std::fs::write(&gate, "").expect("written");
    let (opened, called) = with_an_early_call(&rig, &client, opens).await;
    assert_eq!(opened.messages[0]["result"]["serverInfo"]["name"], "strict");
    assert_eq!(called.text(), "answered", "{called:?}");
    let again = open_in_stead(&client).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "it is open");
}

#[tokio::test]
async fn a_session_opens_though_whoever_opened_it_has_hung_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    let rig = strict(&gate).await;
    let client = rig.client();
    tokio::select! {
        reply = open_in_stead(&client) => panic!("nobody answered: {reply:?}"),
        () = until("it is under way", async || rig.status().await.sessions.active == 1) => {}
    }
    std::fs::write(&gate, "").expect("written");
    assert_eq!(client.call(1, "x", json!({})).await.text(), "answered");
    assert_eq!(rig.status().await.probe.state, ProbeState::Ready);
}

#[tokio::test]
async fn a_session_with_an_http_server_opens_though_whoever_opened_it_has_hung_up() {
    let mut fixture = Fixture::start(1).await;
    let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let gate = tokio::sync::watch::Sender::new(false);
    fixture.opens.send_replace(Opens::Once(gate.subscribe()));
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    fixture.calls.send_replace(Some((StatusCode::OK, "application/json", answer.into())));
    let (client, before) = (rig.client(), fixture.said.borrow().len());
    let asked = |said: &Vec<String>| said[before..].iter().any(|method| method == "initialize");
    tokio::select! {
        reply = open_in_stead(&client) => panic!("nobody answered: {reply:?}"),
        heard = tokio::time::timeout(PATIENCE, fixture.said.wait_for(asked)) => drop(heard.expect("in time")),
    }
    let (called, _) = tokio::join!(client.call(1, "x", json!({})), async { gate.send_replace(true) });
    assert_eq!(called.failure(), None, "{called:?}");
    assert_eq!(rig.status().await.sessions.active, 1);
}

#[tokio::test]
async fn an_http_server_hears_that_a_session_has_begun_before_it_hears_anything_in_it() {
    let mut fixture = Fixture::start(1).await;
    let rig = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    rig.until_ready().await;
    let gate = tokio::sync::watch::Sender::new(false);
    fixture.opens.send_replace(Opens::Once(gate.subscribe()));
    fixture.calls.send_replace(Some((
        StatusCode::OK,
        "application/json",
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"answered"}]}}"#.into(),
    )));
    let client = rig.client();
    let (opened, called) = with_an_early_call(&rig, &client, || _ = gate.send_replace(true)).await;
    assert_eq!(opened.messages[0]["result"]["serverInfo"]["name"], "fixture");
    assert_eq!(called.text(), "answered", "{called:?}");
    let has_called = |said: &Vec<String>| said.last().is_some_and(|last| last == "tools/call");
    let heard =
        tokio::time::timeout(PATIENCE, fixture.said.wait_for(has_called)).await.expect("in time").expect("runs");
    assert_eq!(heard[heard.len() - 3..], ["initialize", "notifications/initialized", "tools/call"]);
}

#[tokio::test]
async fn each_session_that_one_key_has_had_has_a_name_and_what_is_meant_for_one_reaches_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    let rig = strict(&gate).await;
    std::fs::write(&gate, "").expect("written");
    let fixture = Fixture::start(1).await;
    let http = Rig::http(&[], &format!("http://{}/mcp", fixture.address));
    http.until_ready().await;
    fixture.calls.send_replace(Some((
        StatusCode::OK,
        "application/json",
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(),
    )));
    for rig in [&rig, &http] {
        let client = rig.client();
        let first = open_in_stead(&client).await.headers[wire::PART].to_str().expect("text").to_owned();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}});
        let meant = |part: &str| [(wire::PART, part.to_owned())];
        let reply = client.post_with(&call, &meant(&first)).await;
        assert_eq!((reply.failure(), reply.headers[wire::PART].to_str().expect("text")), (None, &*first), "{reply:?}");
        assert_eq!(client.delete().await.status, StatusCode::NO_CONTENT);
        let second = open_in_stead(&client).await.headers[wire::PART].to_str().expect("text").to_owned();
        assert_ne!(first, second);
        assert_eq!(client.post_with(&call, &meant(&first)).await.failure(), Some("UnknownSession"));
        assert_eq!(client.stream(&meant(&first)).await.status(), StatusCode::NOT_FOUND);
        let plain = rig.open().await;
        assert_eq!(plain.post_with(&call, &meant(&second)).await.failure(), Some("UnknownSession"), "it is no part");
    }
}
