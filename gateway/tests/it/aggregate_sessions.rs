//! Sessions with all servers: any replica, each server's part opened once, and nobody else's.

use http::Method;
use portolan_mcp::wire;
use serde_json::json;

use crate::aggregate::{ALL, legacy, open, two};
use crate::bridge::Bridge;
use crate::client::{Client, until};
use crate::modern::{request, saying};
use crate::offers::Offers;
use crate::world::{ALICE, BOB, Gateway, MAC_KEY, Objects, ROUTE};

/// Calls `tool` of `server`.
async fn call(client: &Client, server: &str, tool: &str) -> crate::client::Answer {
    let params = json!({"name": format!("default__{server}__{tool}"), "arguments": {"x": 1}});
    client.post(ALL, legacy("tools/call", &params)).await
}

#[tokio::test]
async fn a_session_is_served_by_any_replica_and_opened_once_at_each_server_that_is_called() {
    let (a, b) = two().await;
    a.keep_sessions();
    b.keep_sessions();
    let objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let (one, other) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let client = open(&one.client()).await;
    assert!(a.asked().is_empty(), "nothing is opened before it is needed");
    // All at once: none of them comes before the session is open.
    let calls = (0..8).map(|_| call(&client, "a", "echo"));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.json()["result"], json!({"x": 1}), "{answer:?}");
    }
    let asked = a.asked();
    let opened = asked.iter().position(|(_, body)| body["method"] == "initialize").expect("it was opened");
    assert_eq!(asked[opened].0.headers["portolan-handshake"], "1", "the bridge finishes it");
    assert_eq!(asked[opened + 1].1["method"], "tools/call");
    let elsewhere = client.clone().at(other.address);
    assert_eq!(call(&elsewhere, "a", "echo").await.status, 200);
    assert_eq!(call(&elsewhere, "b", "echo").await.status, 200);
    assert_eq!(call(&client, "b", "echo").await.status, 200);
    assert_eq!((a.count("initialize"), b.count("initialize")), (1, 1));
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
    let names: Vec<_> = [&a, &b].map(|bridge| bridge.asked()[0].0.session().to_owned()).into();
    assert_ne!(names[0], names[1], "no server learns the session's name at another");
    let counted = r#"portolan_gateway_sessions_opened_total{route="default/a"}"#;
    assert_eq!(one.metric(counted).await + other.metric(counted).await, 1.0);
    let ended = client.send(Method::DELETE, ALL, "").await;
    assert_eq!((ended.status, a.sessions(), b.sessions()), (204, 0, 0));
}

#[tokio::test]
async fn servers_are_told_who_the_client_is_and_a_large_client_has_a_small_token() {
    let (a, _) = two().await;
    a.keep_sessions();
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let capabilities = json!({"elicitation": {}, "experimental": {"x".repeat(100_000): {}}});
    let info = json!({"name": "c", "version": "1", "icons": ["y".repeat(10_000)]});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": info});
    let answer = gateway.client().post(ALL, legacy("initialize", &params)).await;
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-06-18");
    let token = answer.header("mcp-session-id").expect("a session");
    assert!(token.len() <= 1024, "{}", token.len());
    assert_eq!(call(&gateway.client().session(token), "a", "echo").await.status, 200);
    let (seen, opened) = a.asked().into_iter().find(|(_, body)| body["method"] == "initialize").expect("it was opened");
    let told = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "c", "version": "1"},
    });
    assert_eq!(
        (&opened["params"], &seen.headers["mcp-protocol-version"]),
        (&told, &"2025-06-18".parse().expect("text"))
    );
}

#[tokio::test]
async fn a_revision_that_nobody_knows_is_answered_with_one_that_the_servers_are_asked_in_too() {
    let (a, _) = two().await;
    a.keep_sessions();
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let params =
        json!({"protocolVersion": "2031-01-01", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let answer = gateway.client().post(ALL, legacy("initialize", &params)).await;
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
    let client = gateway.client().session(answer.header("mcp-session-id").expect("a session"));
    assert_eq!(call(&client, "a", "echo").await.status, 200);
    for (seen, _) in a.asked() {
        assert_eq!(seen.headers["mcp-protocol-version"], "2025-11-25");
    }
}

#[tokio::test]
async fn a_session_is_its_callers_alone_and_good_at_its_own_endpoint_alone() {
    let (a, _) = two().await;
    let mut objects = Objects::of(&[("everything", &[&a])]);
    objects.gateway["authentication"]["anonymous"] = json!({});
    let gateway = Gateway::start(&objects).await;
    let of_all = open(&gateway.client().key(ALICE)).await;
    let of_one = gateway.client().key(ALICE).initialize().await;
    let reached = a.asked().len();
    let list = legacy("tools/list", &json!({}));
    for (client, path) in [
        (of_all.clone().key(BOB), ALL),
        (of_all.clone().without("authorization"), ALL),
        (of_all.clone(), ROUTE),
        (of_all.clone().session(&of_one), ALL),
        (of_all.clone().session("forged"), ALL),
    ] {
        for answer in [
            client.post(path, list.clone()).await,
            client.send(Method::GET, path, "").await,
            client.send(Method::DELETE, path, "").await,
        ] {
            assert_eq!(answer.status, 404, "{answer:?}");
        }
    }
    assert_eq!(a.asked().len(), reached, "none of that reached a server");
    assert_eq!(of_all.without("mcp-session-id").post(ALL, list).await.status, 400);
}

#[tokio::test]
async fn servers_can_count_the_sessions_of_one_caller_wherever_it_opens_them() {
    let (a, _) = two().await;
    a.keep_sessions();
    let gateway = Gateway::start(&Objects::of(&[("everything", &[&a])])).await;
    let callers = async |key: &str| {
        let before = a.asked().len();
        let client = gateway.client().key(key).with("portolan-caller", "somebody");
        let session = client.initialize().await;
        client.clone().session(&session).post(ROUTE, legacy("ping", &json!({}))).await;
        call(&open(&client).await, "everything", "echo").await;
        let asked = a.asked().split_off(before);
        let (opening, rest): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, body)| body["method"] == "initialize");
        assert!(
            rest.iter().all(|(seen, _)| !seen.headers.contains_key(wire::CALLER)),
            "a session is known by its name"
        );
        let callers = opening.iter().map(|(seen, _)| seen.headers[wire::CALLER].to_str().expect("text").to_owned());
        callers.collect::<Vec<_>>()
    };
    let (alice, bob) = (callers(ALICE).await, callers(BOB).await);
    assert_eq!((alice.len(), bob.len()), (2, 2));
    assert!(alice[0] == alice[1] && bob[0] == bob[1], "{alice:?} {bob:?}");
    assert_ne!(alice[0], bob[0]);
    assert!(!alice.contains(&"somebody".to_owned()), "who a caller is, is not the caller's to say");
}

#[tokio::test]
async fn when_a_pod_dies_only_the_sessions_there_are_opened_anew() {
    let (a, b) = two().await;
    let spare = Bridge::start("uid-spare", MAC_KEY).await;
    spare.offer(Offers::tools(&["echo"]));
    for bridge in [&a, &b, &spare] {
        bridge.keep_sessions();
    }
    let mut objects = Objects::of(&[("a", &[&a]), ("b", &[&b])]);
    let gateway = Gateway::start(&objects).await;
    let client = open(&gateway.client()).await;
    for server in ["a", "b"] {
        assert_eq!(call(&client, server, "echo").await.status, 200);
    }
    drop(a);
    objects.servers[0].1 = Objects::of(&[("a", &[&spare])]).servers.remove(0).1;
    gateway.load(objects.inputs()).await;
    for server in ["a", "b", "a"] {
        assert_eq!(call(&client, server, "echo").await.json()["result"], json!({"x": 1}));
    }
    assert_eq!((spare.count("initialize"), b.count("initialize")), (1, 1));
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_holds_up_no_session_that_it_does_not_hold() {
    let (a, b) = two().await;
    a.keep_sessions();
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a, &b])])).await;
    drop(b);
    // Whatever order their names give the pods.
    for _ in 0..8 {
        let client = open(&gateway.client()).await;
        assert_eq!(call(&client, "a", "echo").await.json()["result"], json!({"x": 1}));
    }
    assert_eq!(a.sessions(), 8);
}

#[tokio::test]
async fn a_session_that_a_server_ended_is_opened_again_by_the_next_call() {
    let (a, _) = two().await;
    a.keep_sessions();
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let client = open(&gateway.client()).await;
    assert_eq!(call(&client, "a", "echo").await.status, 200);
    a.keep_sessions();
    let calls = (0..4).map(|_| call(&client, "a", "echo"));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.json()["result"], json!({"x": 1}), "{answer:?}");
    }
    assert_eq!(a.count("initialize"), 2);
}

#[tokio::test]
async fn a_server_without_room_opens_no_session_and_says_so() {
    let (a, _) = two().await;
    a.keep_sessions();
    a.set_full(true);
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let client = open(&gateway.client()).await;
    let answer = call(&client, "a", "echo").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["error"]["data"]["error_type"], "Overloaded", "{answer:?}");
    a.set_full(false);
    assert_eq!(call(&client, "a", "echo").await.json()["result"], json!({"x": 1}));
}

#[tokio::test]
async fn a_client_takes_its_call_back_and_tells_how_far_its_answer_is() {
    let (a, b) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a]), ("b", &[&b])])).await;
    let client = open(&gateway.client()).await;
    assert_eq!(call(&client, "a", "echo").await.status, 200);
    let told = async |body: serde_json::Value| client.post(ALL, body.to_string()).await.status;
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(told(cancelled.clone()).await, 202);
    assert_eq!(a.asked().pop().map(|(_, body)| body), Some(cancelled));
    let progress = |token: &str| {
        let params = json!({"progressToken": token, "progress": 1});
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    };
    assert_eq!(told(progress("a.default+@7")).await, 202);
    let (_, body) = a.asked().pop().expect("it arrived");
    assert_eq!(body["params"], json!({"progressToken": 7, "progress": 1}), "under the token that the server gave");
    let reached = a.asked().len();
    assert_eq!(told(progress("7")).await, 202, "nobody's");
    assert_eq!(told(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await, 202);
    let answer = client.post(ALL, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#).await;
    assert_eq!(answer.status, 400, "nobody asked that: {answer:?}");
    let told: Vec<_> = b.asked().into_iter().map(|(_, body)| body["method"].clone()).collect();
    assert_eq!(
        (a.asked().len(), &told[..]),
        (reached, &[json!("notifications/cancelled")][..]),
        "it might have had it"
    );
}

#[tokio::test]
async fn a_client_that_closes_its_request_closes_it_at_the_server() {
    let (a, _) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let flood = saying(gateway.client(), "tools/call", Some("default__a__flood"));
    let body = request("tools/call", json!({"name": "default__a__flood"}));
    let mut streaming = flood.open(Method::POST, ALL, body).await;
    streaming.read_until("xxx").await;
    assert_eq!(a.open_connections(), 1);
    drop(streaming);
    until("the server's connection is closed", async || a.open_connections() == 0).await;
}

#[tokio::test]
async fn neither_credential_nor_name_of_a_caller_reaches_a_server() {
    let (a, _) = two().await;
    let gateway = Gateway::start(&Objects::of(&[("a", &[&a])])).await;
    let client = open(&gateway.client()).await.with("cookie", "secret");
    assert_eq!(call(&client, "a", "echo").await.status, 200);
    for seen in a.seen() {
        for name in ["authorization", "cookie", "mcp-session-id"] {
            assert!(!seen.headers.contains_key(name), "{name}");
        }
        assert!(seen.headers.contains_key(wire::POD));
        assert!(!format!("{seen:?}").contains(ALICE));
    }
}
