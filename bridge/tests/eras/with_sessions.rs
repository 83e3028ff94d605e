//! Clients with sessions of a server with sessions: what passes is theirs, and when a call is over the server hears so.

use serde_json::json;

use crate::to_modern::{begin, tell};
use crate::world::{BOTH, World};

const LONG: [&str; 2] = ["--request-timeout", "60s"];

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_taken_back() {
    for over in BOTH {
        let world = World::start(over, "legacy", &LONG).await;
        let client = world.rig.open().await;
        let late = client.call_within(1, "wait", json!({"name": "too long"}), Some(300)).await;
        assert_eq!(late.error_type(), "RequestTimeout", "{over:?}");
        world.said("took back too long").await;
        assert_eq!(client.call(2, "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
    }
}

#[tokio::test]
async fn a_call_whose_client_hangs_up_goes_on_until_that_is_said() {
    for over in BOTH {
        let world = World::start(over, "legacy", &LONG).await;
        let client = world.rig.open().await;
        drop(begin(&client, 7, "wait", "one").await);
        world.said("waits for one").await;
        assert_eq!(client.call(8, "echo", json!({"message": "fine"})).await.text(), "fine", "{over:?}");
        assert_eq!(world.times_said("took back"), 0, "{over:?}");
        tell(&client, json!({"method": "notifications/cancelled", "params": {"requestId": 7}})).await;
        world.said("took back one").await;
        assert_eq!(world.times_said("told notifications/cancelled"), 1, "nobody else took it back: {over:?}");
    }
}
