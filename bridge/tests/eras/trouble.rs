//! Servers that die, say garbage or too much: each a clean error for the one caller whom it is about.

use http::StatusCode;
use portolan_mcp::{revision::Era, wire::ProbeState};
use serde_json::json;

use crate::common::{Reply, until};
use crate::world::{Over, World};

#[tokio::test]
async fn a_server_that_dies_fails_the_calls_of_its_caller_alone_and_the_next_request_finds_another() {
    for script in ["modern", "legacy"] {
        let world = World::start(Over::Pipes, script, &["--warm", "0"]).await;
        let (caller, other) = (world.caller(), world.caller());
        let others = other.call(1, "pid", json!({})).await.text().to_owned();
        let waiting = caller.wait("w", "one", "t").await;
        let died = caller.call("d", "die", json!({})).await;
        for reply in [Reply::of(waiting).await, died] {
            assert_eq!((reply.error_type(), reply.failure()), ("ServerExited", Some("ServerExited")), "{script}");
            assert!(reply.messages.last().expect("an answer").to_string().contains("out of cheese"), "{reply:?}");
        }
        assert_eq!(caller.call("e", "echo", json!({"message": "again"})).await.text(), "again");
        assert_eq!(other.call(2, "pid", json!({})).await.text(), others);
    }
    let world = World::start(Over::Pipes, "modern", &[]).await;
    let (client, other) = (world.rig.open().await, world.rig.open().await);
    assert_eq!(client.call(1, "die", json!({})).await.error_type(), "ServerExited");
    assert_eq!(client.call(2, "pid", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn a_server_that_comes_back_as_one_of_the_other_era_is_found_to_be_so_and_serves_clients_of_either() {
    let flags = ["--probe-interval", "200ms", "--probe-timeout", "2s"];
    let world = World::start(Over::Http, "legacy", &flags).await;
    let throughout = world.caller();
    for (script, era) in [("legacy", Era::Legacy), ("modern", Era::Modern), ("legacy", Era::Legacy)] {
        until(&format!("{era:?} is found"), async || {
            let probe = world.rig.status().await.probe;
            probe.state == ProbeState::Ready && probe.server.is_some_and(|server| server.era == era)
        })
        .await;
        let client = world.rig.open().await;
        for (id, said) in [(1, "one"), (2, "other")] {
            assert_eq!(throughout.call(id, "echo", json!({"message": said})).await.text(), said, "{script}");
            assert_eq!(client.call(id, "echo", json!({"message": said})).await.text(), said, "{script}");
        }
        world.replace(if script == "legacy" { "modern" } else { "legacy" });
        until("the client hears that its session is over", async || {
            let late = client.call(3, "echo", json!({"message": "late"})).await;
            late.failure() == Some("UnknownSession")
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_over_http_that_dies_is_unreachable_for_clients_of_either_era() {
    let world = World::start(Over::Http, "modern", &[]).await;
    let (caller, client) = (world.caller(), world.rig.open().await);
    let (died, other) = tokio::join!(caller.call(1, "die", json!({})), client.call(1, "wait", json!({"name": "x"})));
    for reply in [died, other, caller.call(2, "pid", json!({})).await, client.call(2, "pid", json!({})).await] {
        assert_eq!((reply.status, reply.error_type()), (StatusCode::OK, "ServerUnreachable"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_probe_whose_process_dies_does_not_make_its_bridge_forget_what_the_server_speaks() {
    let world = World::start(Over::Pipes, "modern", &["--warm", "0"]).await;
    nix::sys::signal::kill(world.rig.servers()[0], nix::sys::signal::Signal::SIGKILL).unwrap();
    world.rig.logged("\"ServerExited\"").await;
    // Well before it is asked again.
    let client = world.rig.open().await;
    assert_eq!(client.call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
    assert_eq!(world.caller().call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
}

#[tokio::test]
async fn garbage_between_messages_is_skipped_and_counted() {
    let world = World::start(Over::Pipes, "modern", &[]).await;
    assert_eq!(world.caller().call(1, "garbage", json!({})).await.text(), "after the garbage");
    assert_eq!(world.rig.open().await.call(1, "garbage", json!({})).await.text(), "after the garbage");
    assert_eq!(world.rig.status().await.counters.skipped_lines, 2);
}

#[tokio::test]
async fn an_answer_to_nobodys_request_answers_nobodys_and_of_two_answers_one_counts() {
    for script in ["caller", "client"] {
        let world = World::start(Over::Pipes, "modern", &["--request-timeout", "1s"]).await;
        let (caller, client) = (world.caller(), world.rig.open().await);
        let call = async |id: u64, tool: &str, arguments| match script {
            "caller" => caller.call(id, tool, arguments).await,
            _ => client.call(id, tool, arguments).await,
        };
        assert_eq!(call(1, "wrong_id", json!({})).await.error_type(), "RequestTimeout", "{script}");
        assert_eq!(call(2, "twice", json!({})).await.text(), "once", "{script}");
        assert_eq!(call(3, "echo", json!({"message": "fine"})).await.text(), "fine", "{script}");
    }
}

#[tokio::test]
async fn a_line_without_end_ends_its_caller_alone_and_is_never_held() {
    let world = World::start(Over::Pipes, "modern", &["--max-message-bytes", "1048576", "--warm", "0"]).await;
    let (caller, other) = (world.caller(), world.caller());
    assert_eq!(other.call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
    let reply = caller.call(1, "endless", json!({})).await;
    assert_eq!((reply.error_type(), reply.failure()), ("BadServerReply", Some("BadServerReply")));
    assert!(crate::common::resident_kib(world.rig.bridge_pid()) < 32 * 1024);
    assert_eq!(world.rig.status().await.counters.oversized_messages, 1);
    assert_eq!(other.call(2, "echo", json!({"message": "fine"})).await.text(), "fine");
    assert_eq!(caller.call(2, "echo", json!({"message": "again"})).await.text(), "again");
}

#[tokio::test]
async fn an_event_without_end_ends_its_session_alone_and_is_never_held() {
    let world = World::start(Over::Http, "modern", &["--max-message-bytes", "1048576"]).await;
    let (client, other) = (world.rig.open().await, world.rig.open().await);
    let reply = client.call(1, "endless", json!({})).await;
    assert_eq!(reply.error_type(), "BadServerReply", "{reply:?}");
    assert!(crate::common::resident_kib(world.rig.pid()) < 32 * 1024);
    assert_eq!(client.call(2, "pid", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn what_an_http_server_answers_that_is_no_answer_is_told_to_its_session_and_the_next_call_works() {
    let world = World::start(Over::Http, "modern", &[]).await;
    let client = world.rig.open().await;
    let cases = [
        ("status", json!({"status": 500}), "BadServerReply", "500"),
        ("status", json!({"status": 307}), "BadServerReply", "307"),
        ("garbage", json!({}), "BadServerReply", "this is no JSON"),
        ("wrong_id", json!({}), "BadServerReply", "987654"),
        ("cut", json!({}), "ServerUnreachable", "without the answer"),
    ];
    for (id, (tool, arguments, kind, words)) in (1..).zip(cases) {
        let reply = client.call(id, tool, arguments).await;
        assert_eq!((reply.status, reply.error_type()), (StatusCode::OK, kind), "{tool}: {reply:?}");
        assert!(reply.messages[0].to_string().contains(words), "{tool}: {reply:?}");
        assert_eq!((reply.failure(), &reply.messages[0]["id"]), (Some(kind), &json!(id)));
    }
    assert_eq!(client.call(9, "twice", json!({})).await.text(), "once");
    assert_eq!(client.call(10, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn a_status_without_a_message_is_told_to_a_caller_inside_the_protocol_and_no_redirect_is_followed() {
    let world = World::start(Over::Http, "modern", &[]).await;
    let caller = world.caller();
    for status in [500, 307, 204] {
        let reply = caller.call("s", "status", json!({ "status": status })).await;
        assert_eq!((reply.error_type(), &reply.messages[0]["id"]), ("BadServerReply", &json!("s")), "{reply:?}");
        assert!(reply.messages[0].to_string().contains(&status.to_string()), "{reply:?}");
        assert_eq!(reply.headers.get("location"), None);
    }
    assert_eq!(caller.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
}
