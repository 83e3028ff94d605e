//! Stateless servers of either era: everyone has the same link.

use http::StatusCode;
use serde_json::json;

use crate::world::{BOTH, Over, World, told};

const STATELESS: [&str; 2] = ["--session-type", "stateless"];

#[tokio::test]
async fn callers_share_one_process_and_none_of_them_is_asked_anything() {
    for script in ["legacy", "modern"] {
        let world = World::start(Over::Pipes, script, &STATELESS).await;
        let (one, other) = (world.caller(), world.caller());
        let pid = one.call(1, "pid", json!({})).await.text().to_owned();
        assert_eq!(other.call(1, "pid", json!({})).await.text(), pid, "{script}");
        assert_eq!(world.rig.status().await.sessions.active, 0, "what is everyone's is nobody's session");
    }
    for over in BOTH {
        let world = World::start(over, "legacy", &STATELESS).await;
        let reply = world.caller().call(1, "ask", json!({})).await;
        assert_eq!(told(&reply)["code"], -32601, "{over:?}");
    }
}

#[tokio::test]
async fn ids_and_progress_of_callers_who_share_a_process_do_not_cross() {
    for script in ["legacy", "modern"] {
        for over in BOTH {
            let world = World::start(over, script, &STATELESS).await;
            let (one, other) = (world.caller(), world.caller());
            let streams = [("one", one.wait("x", "one", "t").await), ("other", other.wait("x", "other", "t").await)];
            world.said("waits for other").await;
            other.call("x", "release", json!({})).await;
            for (name, stream) in streams {
                let reply = crate::common::Reply::of(stream).await;
                assert_eq!((reply.text(), reply.messages.len()), (name, 2), "{script} {over:?}");
                assert_eq!(reply.messages[0]["params"]["message"], name);
            }
        }
    }
}

#[tokio::test]
async fn clients_of_sessions_are_answered_by_a_server_without_them_over_one_link() {
    for over in BOTH {
        let world = World::start(over, "modern", &STATELESS).await;
        let (one, other) = (world.rig.open().await, world.rig.open().await);
        let pid = one.call(1, "pid", json!({})).await.text().to_owned();
        assert_eq!(other.call(1, "pid", json!({})).await.text(), pid, "{over:?}");
        assert_eq!(one.call(2, "route", json!({"region": "us-west1"})).await.text(), "us-west1");
        let refused = one.call(3, "ask", json!({})).await;
        assert_eq!(refused.messages[0]["error"]["code"], -32021, "nobody can be asked: {refused:?}");
        assert_eq!(one.stream(&[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(one.delete().await.status, StatusCode::NO_CONTENT);
        assert_eq!(other.call(4, "echo", json!({"message": "fine"})).await.text(), "fine");
    }
}
