//! What becomes of a pod whose calls fail one after the other while its port is open.

use http::Method;
use portolan_snapshot::{Report, report::Kind};
use serde_json::json;

use crate::admin::{line, signed};
use crate::bridge::Bridge;
use crate::client::{Client, Streaming, until};
use crate::modern;
use crate::world::{ALICE, BOB, Gateway, MAC_KEY, Objects};

/// Pods whose calls fail one after the other.
const FAILING: &str = r#"portolan_gateway_pods_failing{route="default/everything"}"#;
/// Times that the last pod stayed.
const WITHHELD: &str = r#"portolan_gateway_bound_hits_total{bound="Ejection"}"#;

/// A session of the caller with this key at `bridge`.
async fn session_at(bridge: &Bridge, gateway: &Gateway, key: &str) -> Client {
    let client = gateway.client().key(key);
    for _ in 0..200 {
        let before = bridge.count("initialize");
        let session = client.initialize().await;
        if bridge.count("initialize") > before {
            return client.session(&session);
        }
    }
    panic!("none of 200 sessions is there")
}

/// The next line that says something, from this number on.
async fn news(stream: &mut Streaming, number: &mut usize) -> Report {
    loop {
        let told = line(stream, *number).await;
        *number += 1;
        if told.kind != Kind::Heartbeat {
            return told;
        }
    }
}

/// Lets five calls of two callers fail.
async fn let_fail(alice: &Client, bob: &Client) {
    for caller in [alice, bob, alice, bob, alice] {
        let answer = caller.call("fail", json!({})).await.json();
        assert_eq!(answer["result"]["structuredContent"]["error_type"], "ServerExited", "{answer}");
    }
}

#[tokio::test]
async fn a_pod_whose_calls_fail_one_after_the_other_gets_nothing_new_until_one_is_answered() {
    let (ill, well) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
    let gateway = Gateway::start(&Objects::new(&[&ill, &well])).await;
    let (alice, bob) = (session_at(&ill, &gateway, ALICE).await, session_at(&ill, &gateway, BOB).await);
    let_fail(&alice, &bob).await;
    assert_eq!(gateway.metric(FAILING).await, 1.0);
    let (before, calls) = (ill.count("initialize"), ill.count("tools/call"));
    for key in [ALICE, BOB].repeat(5) {
        gateway.client().key(key).initialize().await;
        assert_eq!(modern::call(gateway.client().key(key), "echo", json!({})).await.status, 200);
    }
    assert_eq!((ill.count("initialize"), ill.count("tools/call")), (before, calls), "nothing new");
    // A session stays where it is, and what it finds out there counts.
    assert_eq!(alice.call("echo", json!({"x": 1})).await.status, 200);
    until("it is a pod like any other", async || gateway.metric(FAILING).await == 0.0).await;
    session_at(&ill, &gateway, ALICE).await;
    let total = r#"portolan_gateway_pods_ejected_total{route="default/everything"}"#;
    assert_eq!(gateway.metric(total).await, 1.0);
    assert_eq!(gateway.metric(WITHHELD).await, 0.0);
}

#[tokio::test]
async fn what_one_caller_alone_meets_puts_no_pod_out() {
    let (ill, well) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
    let gateway = Gateway::start(&Objects::new(&[&ill, &well])).await;
    let alice = session_at(&ill, &gateway, ALICE).await;
    let_fail(&alice, &alice).await;
    assert_eq!(gateway.metric(FAILING).await, 0.0);
    session_at(&ill, &gateway, BOB).await;
}

#[tokio::test]
async fn the_last_pod_stays_and_the_operator_is_told_that_its_calls_fail_and_when_they_do_not() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let mut stream = signed(&gateway).open(Method::GET, "/v1/stream", "").await;
    let (mut state, mut number) = (None, 0);
    Report::apply(&mut state, news(&mut stream, &mut number).await).expect("whole");
    let alice = gateway.client().session(&gateway.client().initialize().await);
    let bob = gateway.client().key(BOB);
    let bob = bob.clone().session(&bob.initialize().await);
    let_fail(&alice, &bob).await;
    let told = news(&mut stream, &mut number).await;
    assert_eq!((told.kind, told.servers.len()), (Kind::Change, 1));
    Report::apply(&mut state, told).expect("a change");
    let failing = &state.as_ref().expect("whole").servers["default/everything"].failing["uid-1"];
    assert_eq!(failing.kind, "ServerExited");
    gateway.client().initialize().await;
    assert!(gateway.metric(WITHHELD).await >= 1.0, "it would be out, and is not");
    assert_eq!(bob.call("echo", json!({})).await.status, 200);
    Report::apply(&mut state, news(&mut stream, &mut number).await).expect("a change");
    let server = &state.expect("whole").servers["default/everything"];
    assert!(server.failing.is_empty() && server.loaded.is_some(), "{server:?}");
}
