//! Replicas of the gateway that go, in good order or not.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::sys::signal::Signal;
use portolan_tests::cluster::PLATFORM;
use portolan_tests::load::{Load, Outcome, Plan};
use portolan_tests::mcp::{Events, Session};
use portolan_tests::node::Process;
use portolan_tests::pods::is_ready;
use portolan_tests::stand::Stand;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;
use tokio::time::timeout;

use crate::{amount, on_a_stand, rate, replica_url, replicas, report};

/// Standing streams of each era.
const STREAMS: usize = 4;

#[tokio::test]
async fn a_rolling_update_of_the_gateway_fails_no_call_and_streams_are_told_to_come_back_and_find_another_replica() {
    on_a_stand("rolled-front", 2, async |stand| {
        let load = Load::start(Plan { streams: STREAMS, ..stand.plan(rate()) }).await;
        let times = amount(3, 10);
        for _ in 0..times {
            stand.restart_gateway().await;
        }
        until("every stream is open at another replica", PATIENCE, || async {
            let seen = load.so_far().streams;
            if seen.open == 2 * STREAMS as u64 { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        let tally = load.stop().await;
        report(&format!("{times} rolling updates of the gateway"), &tally);
        tally.assert_nothing_failed();
        assert_eq!(tally.unconnected, 0, "every connection was taken");
        assert_eq!(tally.streams.broken, 0, "{tally}");
        assert!(tally.streams.farewells >= times * 2 * STREAMS as u64, "each stream moves each time: {tally}");
    })
    .await;
}

/// Within this a client knows that its call will not be answered.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_gateway_replica_that_is_killed_fails_what_it_had_in_flight_within_a_second_and_sessions_go_on_at_its_peer() {
    on_a_stand("killed-front", 2, async |stand| {
        let plan = stand.plan(rate());
        let load = Load::start(Plan { sessions: amount(50, 300), ..plan }).await;
        let [dies, stays] = replicas(&stand.cluster).await.try_into().expect("two replicas");
        let (key, lost_url) = (Stand::key(), replica_url(&dies, &stand.server));
        let held = Session::open(&lost_url, Some(&key)).await.expect("a session through the one that dies");
        let slow = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "slow", "arguments": {"seconds": 60}, "_meta": {"progressToken": 1}}});
        let mut answer = Events::of(held.send(&slow).await.expect("it is taken"));
        answer.until(|message| message["method"] == "notifications/progress").await.expect("it is under way");

        let killed = Instant::now();
        Process::of(&dies, "gateway").signal(Signal::SIGKILL);
        let failed = timeout(AT_ONCE, answer.until(|message| message["id"] == 1)).await;
        let failed = failed.expect("the call fails at once").expect_err("nobody is left to answer it");
        println!("a call in flight at the replica that was killed: {failed}");
        let there = held.at(&replica_url(&stays, &stand.server)).anew();
        let reply = there.call(2, "echo", json!({"message": "still here"})).await.expect("the peer answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: still here");
        held.at(&replica_url(&stays, &stand.server)).anew().delete().await.expect("the session ends");

        until("its container is started again", PATIENCE, || async {
            let pod =
                stand.cluster.api::<Pod>(PLATFORM).get(&dies.name_any()).await.map_err(|error| error.to_string())?;
            let statuses = pod.status.clone().and_then(|status| status.container_statuses).unwrap_or_default();
            let is_another = statuses.iter().all(|status| status.restart_count == 1);
            if is_another && is_ready(&pod) { Ok(()) } else { Err(format!("{statuses:?}")) }
        })
        .await;
        let tally = load.stop().await;
        report("a gateway replica killed", &tally);
        assert_eq!(tally.lost, 0, "no session is lost: {tally}");
        for failed in &tally.failures {
            assert!(matches!(failed.outcome, Outcome::BrokeOff(_)), "{tally}");
            assert!(failed.ended <= killed + AT_ONCE, "what fails does so at once: {tally}");
        }
    })
    .await;
}
