//! Clients of the sessionless era in front of a server of it: what they say and hear passes as it is.

use http::{HeaderName, StatusCode};
use portolan_mcp::revision::Era;
use portolan_mcp::wire::{ProbeReason, ProbeState};
use serde_json::json;

use crate::common::raw::Raw;
use crate::common::{Listener, Reply, Rig, until};
use crate::world::{BOTH, Over, REVISION, World, code, subscription};

#[tokio::test]
async fn a_server_without_sessions_is_ready_and_status_says_what_it_speaks() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let found = world.rig.status().await.probe;
        let server = found.server.expect("found");
        assert_eq!((server.era, &*server.protocol_version), (Era::Modern, REVISION), "{over:?}");
        assert_eq!(server.supported_versions, [REVISION]);
        assert_eq!((&*server.name, &*server.version), ("modern", "7"));
        assert!(found.tools.expect("listed").count > 10);
    }
}

#[tokio::test]
async fn two_callers_have_processes_of_their_own_and_each_keeps_its_own() {
    let world = World::start(Over::Pipes, "modern", &[]).await;
    let (one, other) = (world.caller(), world.caller());
    let pid = one.call(1, "pid", json!({})).await.text().to_owned();
    assert_ne!(other.call(1, "pid", json!({})).await.text(), pid);
    assert_eq!(one.able(json!({})).call(2, "pid", json!({})).await.text(), pid, "every request says what it can do");
    assert_eq!(world.rig.status().await.sessions.active, 2);
}

#[tokio::test]
async fn nothing_is_kept_for_callers_in_front_of_an_http_server() {
    let world = World::start(Over::Http, "modern", &[]).await;
    assert_eq!(world.caller().call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
    assert_eq!(world.rig.status().await.sessions.active, 0);
    assert_eq!(world.times_said("standing stream"), 0);
}

#[tokio::test]
async fn what_a_request_says_of_its_client_reaches_the_server_and_results_come_as_they_are() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        let reply =
            caller.ask(1, "tools/call", json!({"name": "meta", "_meta": {"traceparent": "00-1-2-03", "n": 1.5}})).await;
        let meta = crate::world::told(&reply);
        assert_eq!((&meta["traceparent"], &meta["n"]), (&json!("00-1-2-03"), &json!(1.5)));
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "test");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({"elicitation": {}}));
        let list = caller.ask(2, "tools/list", json!({})).await;
        let list = &list.messages[0]["result"];
        assert_eq!((&list["ttlMs"], &list["cacheScope"]), (&json!(1000), &json!("public")), "{over:?}");
        let asked = caller.call(3, "ask", json!({})).await;
        let asked = &asked.messages[0]["result"];
        assert_eq!(asked["requestState"], "state of round 1", "a server's own state is not ours to touch");
        let done = caller.come_back(4, "ask", &asked["requestState"], json!({"first": {"action": "accept"}})).await;
        assert_eq!(crate::world::told(&done), json!({"first": {"action": "accept"}}));
    }
}

#[tokio::test]
async fn a_parameter_that_has_a_header_is_held_against_it_wherever_the_server_is() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let route = |region: &'static str| {
            let caller = world.caller();
            async move {
                let params = json!({"name": "route", "arguments": {"region": "us-west1"}});
                let headers = [(HeaderName::from_static("mcp-param-region"), region.to_owned())];
                Reply::of(caller.start_with(1, "tools/call", params, &headers).await).await
            }
        };
        assert_eq!(route("us-west1").await.text(), "us-west1", "{over:?}");
        let refused = route("eu-north1").await;
        assert_eq!((refused.status, code(&refused)), (StatusCode::BAD_REQUEST, -32020), "{over:?}");
    }
}

#[tokio::test]
async fn ids_and_progress_tokens_of_requests_at_once_do_not_cross() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        let one = caller.wait("x", "one", "t").await;
        let other = caller.wait("x", "other", "t").await;
        world.said("waits for other").await;
        caller.call("x", "release", json!({})).await;
        for (response, name) in [(one, "one"), (other, "other")] {
            let reply = Reply::of(response).await;
            let [progress, answer] = &reply.messages[..] else { panic!("{reply:?}") };
            assert_eq!(
                (&progress["params"]["message"], &progress["params"]["progressToken"]),
                (&json!(name), &json!("t"))
            );
            assert_eq!((&answer["id"], reply.text()), (&json!("x"), name), "{over:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_notifications_names_the_id_that_its_client_chose_and_ends_as_its_server_ends_it() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        let (mut stream, begun) = caller.listen("l", json!({"toolsListChanged": true})).await;
        assert_eq!(subscription(&begun), "l");
        let (mut other, _) = caller.listen("m", json!({"resourceSubscriptions": ["a:/b"]})).await;
        caller.call(1, "change", json!({"uri": "a:/b"})).await;
        let changed = stream.next().await.expect("news");
        assert_eq!(
            (&changed["method"], subscription(&changed)),
            (&json!("notifications/tools/list_changed"), &json!("l"))
        );
        let updated = other.next().await.expect("news");
        assert_eq!((&updated["params"]["uri"], subscription(&updated)), (&json!("a:/b"), &json!("m")));
        caller.call(2, "hush", json!({})).await;
        let last = stream.next().await.expect("a result");
        assert_eq!((&last["id"], subscription(&last)), (&json!("l"), &json!("l")), "{over:?}");
        if over == Over::Pipes {
            assert_eq!(stream.next().await, None);
        }
    }
}

#[tokio::test]
async fn whoever_hangs_up_takes_the_request_back_at_the_server() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        drop(caller.wait("x", "one", "t").await);
        world.said("took back one").await;
        let params = json!({"name": "wait", "arguments": {"name": "the other"}});
        tokio::select! {
            reply = caller.ask("x", "tools/call", params) => panic!("nobody released it: {reply:?}"),
            () = world.said("waits for the other") => {}
        }
        world.said("took back the other").await;
        let (stream, _) = caller.listen("l", json!({"toolsListChanged": true})).await;
        drop(stream);
        world.said("no longer listens").await;
        assert_eq!(caller.call("x", "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
    }
}

#[tokio::test]
async fn errors_have_the_http_status_that_the_protocol_gives_them() {
    let statuses = [(-32601, 404), (-32020, 400), (-32021, 400), (-32022, 400), (-32602, 200), (-32000, 200)];
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        // A process that has just been started may take longer than a head waits.
        caller.call(1, "echo", json!({"message": "hi"})).await;
        for (wanted, status) in statuses {
            let reply = caller.call("e", "fail", json!({ "code": wanted })).await;
            assert_eq!((code(&reply), reply.status.as_u16()), (wanted, status), "{over:?}");
            assert_eq!((&reply.messages[0]["id"], reply.failure()), (&json!("e"), None));
        }
        assert_eq!(caller.ask(1, "no/such", json!({})).await.status, StatusCode::NOT_FOUND);
        let wanted = json!({"notifications": {"resourceSubscriptions": ["none:/such"]}});
        let refused = caller.ask(1, "subscriptions/listen", wanted).await;
        assert_eq!((refused.status, code(&refused)), (StatusCode::NOT_FOUND, -32601), "{over:?}");
    }
}

#[tokio::test]
async fn a_stream_of_notifications_outlives_the_request_timeout_and_calls_do_not() {
    for over in BOTH {
        let world = World::start(over, "modern", &["--request-timeout", "300ms"]).await;
        let caller = world.caller();
        let (mut stream, _) = caller.listen("l", json!({"toolsListChanged": true})).await;
        let late = caller.call(1, "wait", json!({"name": "too long"})).await;
        assert_eq!((late.error_type(), late.failure()), ("RequestTimeout", Some("RequestTimeout")), "{over:?}");
        world.said("took back too long").await;
        until("it is counted", async || world.rig.status().await.counters.timeouts == 1).await;
        caller.call(2, "change", json!({})).await;
        assert_eq!(stream.next().await.expect("news")["method"], "notifications/tools/list_changed");
    }
}

#[tokio::test]
async fn log_messages_come_on_the_stream_of_the_call_that_wants_them() {
    for over in BOTH {
        let world = World::start(over, "modern", &[]).await;
        let caller = world.caller();
        assert_eq!(caller.call(1, "log", json!({})).await.messages.len(), 1);
        let params = json!({"name": "log", "_meta": {"io.modelcontextprotocol/logLevel": "debug"}});
        let response = caller.start(2, "tools/call", params).await;
        let mut stream = Listener::new(response.into_body());
        assert_eq!(stream.next().await.expect("a log message")["params"]["level"], "debug", "{over:?}");
        assert_eq!(stream.next().await.expect("the answer")["id"], 2);
    }
}

#[tokio::test]
async fn a_server_that_answers_initialize_with_a_revision_without_sessions_is_asked_without_one() {
    let both = Raw::speaking(REVISION, true).await;
    let rig = Rig::http(&[], &both.url());
    rig.until_ready().await;
    assert_eq!(rig.status().await.probe.server.expect("found").era, Era::Modern);
    let neither = Raw::speaking(REVISION, false).await;
    let rig = Rig::http(&[], &neither.url());
    until("there is a verdict", async || rig.status().await.probe.state == ProbeState::Failing).await;
    assert_eq!(rig.status().await.probe.reason, Some(ProbeReason::UnsupportedProtocol));
}
