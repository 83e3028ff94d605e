//! Clients of the sessionless era in front of a server of sessions: each caller has one, which is opened for it.

use std::time::{Duration, Instant};

use http::StatusCode;
use nix::sys::signal::Signal;
use portolan_mcp::token::SessionKey;
use serde_json::json;

use crate::common::raw::{self, End, Raw};
use crate::common::{Listener, Reply, Rig, until};
use crate::world::{BOTH, Caller, Over, REVISION, World, code, subscription, told};

#[tokio::test]
async fn a_server_of_sessions_is_discovered_listed_and_called() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let caller = world.caller();
        let found = caller.ask("d", "server/discover", json!({})).await;
        let found = &found.messages[0]["result"];
        assert_eq!((&found["resultType"], &found["instructions"]), (&json!("complete"), &json!("be kind")), "{found}");
        assert!(found["supportedVersions"].as_array().expect("a list").contains(&json!(REVISION)));
        assert_eq!(found["capabilities"]["resources"]["subscribe"], true);
        assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "legacy");
        let list = caller.ask("l", "tools/list", json!({})).await;
        let result = &list.messages[0]["result"];
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")), "{over:?}");
        assert!(!result["tools"].as_array().expect("tools").is_empty());
        let params = json!({"name": "meta", "_meta": {"traceparent": "00-1-2-03"}});
        let reply = caller.ask("m", "tools/call", params).await;
        assert_eq!(reply.messages[0]["result"]["resultType"], "complete");
        let seen = told(&reply);
        assert_eq!(seen["params"]["_meta"], json!({"traceparent": "00-1-2-03"}), "the session says the rest");
        assert_eq!(seen["client"]["capabilities"], json!({"elicitation": {}}));
        assert_eq!(seen["client"]["clientInfo"]["name"], "test");
        let missing = caller.ask("r", "resources/read", json!({"uri": "a:/b"})).await;
        assert_eq!((code(&missing), missing.status), (-32602, StatusCode::OK), "{missing:?}");
        let unknown = caller.ask("u", "no/such", json!({})).await;
        assert_eq!((code(&unknown), unknown.status), (-32601, StatusCode::NOT_FOUND), "{unknown:?}");
    }
}

#[tokio::test]
async fn each_caller_has_a_session_of_its_own_up_to_the_bound_of_sessions() {
    for over in BOTH {
        let world = World::start(over, "legacy", &["--max-sessions", "2", "--warm", "0"]).await;
        let (one, other) = (world.caller(), world.caller());
        let pid = one.call(1, "pid", json!({})).await.text().to_owned();
        let pid_of_other = other.call(1, "pid", json!({})).await.text().to_owned();
        assert_eq!(one.call(2, "pid", json!({})).await.text(), pid);
        if over == Over::Pipes {
            assert_ne!(pid, pid_of_other);
        }
        let opened = world.times_said(r#"opened for {"name": "test""#);
        assert_eq!((opened, world.rig.status().await.sessions.active), (2, 2), "{over:?}");
        let refused = world.caller().call(1, "pid", json!({})).await;
        assert_eq!((refused.status, refused.failure()), (StatusCode::SERVICE_UNAVAILABLE, Some("Overloaded")));
        assert!(refused.headers.contains_key("retry-after"));
        let refused = world.rig.client().initialize().await;
        assert_eq!(refused.failure(), Some("Overloaded"), "sessions of clients are under the same bound");
        assert_eq!(world.rig.status().await.counters.refused_sessions, 2);
    }
}

#[tokio::test]
async fn one_caller_never_holds_all_sessions_whatever_the_era_it_speaks() {
    for over in BOTH {
        let flags = ["--max-sessions", "4", "--max-sessions-per-caller", "2", "--warm", "0"];
        let world = World::start(over, "legacy", &flags).await;
        let (greedy, other) = (world.caller(), world.caller());
        let [first, second] = [(); 2].map(|()| world.rig.client());
        assert_eq!(first.initialize_for(&greedy.key).await.status, StatusCode::OK);
        greedy.call(1, "pid", json!({})).await.text();
        for refused in [second.initialize_for(&greedy.key).await, introduced(&greedy).call(2, "pid", json!({})).await] {
            assert_eq!((refused.status, refused.failure()), (StatusCode::SERVICE_UNAVAILABLE, Some("Overloaded")));
            let message = refused.messages[0]["error"]["message"].as_str().expect("a message");
            assert!(message.contains("maxPerCaller") && refused.headers.contains_key("retry-after"), "{refused:?}");
        }
        assert_eq!(world.rig.status().await.counters.refused_sessions, 2);
        other.call(1, "pid", json!({})).await.text();
        assert_eq!(
            world.rig.client().initialize_for(&other.key).await.status,
            StatusCode::OK,
            "there is room for others"
        );
        first.delete().await;
        until("the place of what has ended is free", async || {
            world.rig.client().initialize_for(&greedy.key).await.status == StatusCode::OK
        })
        .await;
    }
}

/// The same caller, which says other things of itself: at a server of sessions that makes another one.
fn introduced<'w>(caller: &Caller<'w>) -> Caller<'w> {
    Caller { rig: caller.rig, key: caller.key.clone(), capabilities: json!({"sampling": {}}), name: "other" }
}

#[tokio::test]
async fn a_question_in_the_middle_of_a_call_is_its_answer_and_the_next_round_finishes_it() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let caller = world.caller();
        let asked = caller.call("first", "ask", json!({})).await;
        let result = &asked.messages.last().expect("an answer")["result"];
        assert_eq!((&result["resultType"], asked.status), (&json!("input_required"), StatusCode::OK), "{over:?}");
        let (key, question) =
            result["inputRequests"].as_object().and_then(|all| all.iter().next()).expect("a question");
        assert_eq!(
            (&question["method"], &question["params"]["message"]),
            (&json!("elicitation/create"), &json!("How many?"))
        );
        let state = &result["requestState"];
        let answers = json!({key: {"action": "accept", "content": {"n": 3}}});
        for foreign in [world.caller(), caller.able(json!({"elicitation": {}, "roots": {}}))] {
            let refused = foreign.come_back(1, "ask", state, answers.clone()).await;
            assert_eq!(code(&refused), -32602, "only whoever was asked may answer: {refused:?}");
        }
        assert_eq!(code(&caller.come_back(1, "echo", state, answers.clone()).await), -32602, "it is another call");
        let again = caller.come_back(2, "ask", state, json!({})).await;
        let again = &again.messages.last().expect("an answer")["result"];
        assert_eq!(again["inputRequests"], result["inputRequests"], "what was not answered is asked again");
        let done = caller.come_back("third", "ask", &again["requestState"], answers.clone()).await;
        assert_eq!(told(&done), json!({"action": "accept", "content": {"n": 3}}));
        assert_eq!(done.messages.last().expect("an answer")["id"], "third");
        assert_eq!(code(&caller.come_back(4, "ask", state, answers).await), -32602, "it is over");
    }
}

#[tokio::test]
async fn a_call_that_waited_when_its_server_died_is_not_taken_for_a_later_one() {
    let world = World::start(Over::Pipes, "legacy", &["--warm", "0"]).await;
    let caller = world.caller();
    let asked = caller.call(1, "ask", json!({})).await;
    let before = asked.messages[0]["result"]["requestState"].clone();
    let died = caller.call(2, "die", json!({})).await;
    assert_eq!((died.error_type(), died.failure()), ("ServerExited", Some("ServerExited")), "{died:?}");
    let asked = caller.call(3, "ask", json!({})).await;
    let after = asked.messages[0]["result"]["requestState"].clone();
    assert!(after.is_string(), "another process is started at once: {asked:?}");
    let answers = json!({"create-1": {"action": "accept"}});
    assert_eq!(code(&caller.come_back(4, "ask", &before, answers.clone()).await), -32602);
    assert_eq!(told(&caller.come_back(5, "ask", &after, answers).await), json!({"action": "accept"}));
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_not() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let reply = world.caller().able(json!({})).call(1, "ask", json!({})).await;
        assert_eq!(told(&reply)["code"], -32601, "{over:?}");
    }
}

#[tokio::test]
async fn whoever_listens_hears_of_what_the_server_was_asked_to_watch() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let caller = world.caller();
        let wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a:/b"]});
        let (mut stream, begun) = caller.listen("l", wanted).await;
        let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["a:/b"]});
        assert_eq!((&begun["params"]["notifications"], subscription(&begun)), (&honoured, &json!("l")));
        world.said("resources/subscribe a:/b").await;
        if over == Over::Http {
            world.said("the standing stream is open").await;
        }
        caller.call(1, "change", json!({"uri": "a:/b"})).await;
        for (method, uri) in [("tools/list_changed", json!(null)), ("resources/updated", json!("a:/b"))] {
            let news = stream.next().await.expect("news");
            assert_eq!(news["method"], format!("notifications/{method}"), "{over:?}");
            assert_eq!((&news["params"]["uri"], subscription(&news)), (&uri, &json!("l")));
        }
        drop(stream);
        world.said("resources/unsubscribe a:/b").await;
    }
}

#[tokio::test]
async fn whoever_hangs_up_cancels_the_call_at_the_server_and_leaves_nothing_open_there() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let caller = world.caller();
        let mut stream = Listener::new(caller.wait("x", "one", "t").await.into_body());
        let progress = stream.next().await.expect("progress");
        assert_eq!(progress["params"]["progressToken"], "t");
        drop(stream);
        world.said("took back one").await;
        if over == Over::Http {
            world.said("nobody waits for one").await;
        }
        assert_eq!(caller.call("x", "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
    }
}

#[tokio::test]
async fn log_messages_are_asked_for_and_come_on_the_stream_of_the_call() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let params = json!({"name": "log", "_meta": {"io.modelcontextprotocol/logLevel": "info"}});
        let reply = world.caller().ask(1, "tools/call", params).await;
        assert_eq!(reply.messages[0]["params"]["data"], "logged", "{over:?}");
        world.said("logging/setLevel info").await;
    }
}

#[tokio::test]
async fn an_idle_caller_ends_and_its_next_request_is_answered_all_the_same() {
    for over in BOTH {
        let world = World::start(over, "legacy", &["--idle-timeout", "300ms"]).await;
        let caller = world.caller();
        let pid = caller.call(1, "pid", json!({})).await.text().to_owned();
        until("it ended", async || world.rig.status().await.sessions.active == 0).await;
        if over == Over::Http {
            world.said("a session was ended").await;
        }
        let again = caller.call(2, "pid", json!({})).await;
        assert_eq!(again.status, StatusCode::OK);
        assert!(over == Over::Http || again.text() != pid);
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_idle_callers_and_does_for_a_call_that_waits_for_its_client() {
    for over in BOTH {
        let mut world = World::start(over, "legacy", &[]).await;
        {
            let (caller, idle) = (world.caller(), world.caller());
            assert_eq!(idle.call(1, "echo", json!({"message": "hi"})).await.text(), "hi");
            let asked = caller.call(1, "ask", json!({})).await;
            let state = asked.messages.last().expect("an answer")["result"]["requestState"].clone();
            world.rig.signal(Signal::SIGTERM);
            until("it drains", async || world.rig.status().await.draining).await;
            let refused = world.caller().call(1, "pid", json!({})).await;
            assert_eq!(refused.failure(), Some("Draining"), "a new caller goes elsewhere: {refused:?}");
            let done = caller.come_back(2, "ask", &state, json!({"create-1": {"action": "decline"}})).await;
            assert_eq!(told(&done), json!({"action": "decline"}), "{over:?}");
        }
        assert!(world.rig.until_ended().await.success());
    }
}

#[tokio::test]
async fn requests_that_come_while_the_session_is_opened_are_all_answered() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let caller = world.caller();
        let calls = (0..8).map(|n| {
            let caller = caller.clone();
            async move { caller.call(n, "echo", json!({"message": n.to_string()})).await }
        });
        for (n, reply) in futures::future::join_all(calls).await.iter().enumerate() {
            assert_eq!(reply.text(), n.to_string(), "{over:?}");
        }
        let kept: Reply = caller.call(9, "pid", json!({})).await;
        assert_eq!((kept.status, world.rig.status().await.sessions.active), (StatusCode::OK, 1));
    }
}

#[tokio::test]
async fn a_call_whose_stream_its_server_ends_is_resumed_where_it_was_and_no_sooner_than_the_server_wants() {
    let server = Raw::speaking("2025-11-25", false).await;
    let rig = Rig::http(&[], &server.url());
    rig.until_ready().await;
    let key = SessionKey::generate().expect("random");
    let caller = Caller { rig: &rig, key, capabilities: json!({}), name: "test" };
    let ended = |events: &str| raw::events("text/event-stream") + &raw::chunk(events) + "0\r\n\r\n";
    let note = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
    server.calls.send_replace((ended("id: first\nretry: 400\ndata: \n\n"), End::Close));
    // It says something and ends again, and then breaks off: each time it goes on from the last event.
    server.streams.send_replace((ended(&format!("id: second\n{note}\n\n")), End::Close));
    let began = Instant::now();
    let waiting = caller.start(7, "tools/call", json!({"name": "x"})).await;
    let resumed = || server.resumed.lock().unwrap().clone();
    until("it is resumed from what came last", async || resumed().ends_with(&["second".to_owned()])).await;
    assert!(began.elapsed() >= Duration::from_millis(800), "twice as long as the server wants to be left alone");
    server.streams.send_replace((String::new(), End::Reset));
    let count = resumed().len();
    until("it is tried again", async || resumed().len() > count + 1).await;
    let answer =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"late"}}]}}}}"#);
    // The session's first call has that id at the server.
    let answers: String = (1..=9).map(|id| format!("data: {}\n\n", answer(&id.to_string()))).collect();
    server.streams.send_replace((ended(&answers), End::Close));
    let reply = Reply::of(waiting).await;
    assert_eq!((reply.text(), &reply.messages.last().expect("an answer")["id"]), ("late", &json!(7)), "{reply:?}");
    assert_eq!(resumed()[0], "first");
    // A stream that cannot be resumed is the end of its call.
    server.calls.send_replace((ended(&format!("{note}\n\n")), End::Close));
    let reply = caller.call(8, "x", json!({})).await;
    assert_eq!(reply.error_type(), "ServerUnreachable", "{reply:?}");
    server.calls.send_replace((ended("id: third\nretry: 0\ndata: \n\n"), End::Close));
    for refused in [(raw::whole("405 Method Not Allowed", "text/plain", ""), End::Close), (String::new(), End::Reset)] {
        server.streams.send_replace(refused);
        let reply = caller.call(9, "x", json!({})).await;
        assert_eq!(reply.error_type(), "ServerUnreachable", "{reply:?}");
    }
}
