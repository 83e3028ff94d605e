//! How many pods a server has, where its load decides; and which of them go.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::time::{Duration, Instant};

use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::puppet;
use portolan_tests::sized::{pod_of, pods, session, session_at_another, until_pods};
use portolan_tests::tidy::deleting;
use portolan_tests::wait::PATIENCE;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A puppet whose load decides.
fn scaled(name: &str, autoscaling: &Value) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["autoscaling"] = autoscaling.clone();
    manifest["spec"]["rollout"] = json!({"drainTimeout": "10m"});
    manifest
}

#[tokio::test]
async fn a_rush_of_calls_has_more_pods_within_seconds_and_when_it_is_over_those_without_sessions_go() {
    let cluster = Cluster::connect().await;
    let name = "scaled-calls";
    deleting(&cluster, &[name], rush(&cluster, name)).await;
}

async fn rush(cluster: &Cluster, name: &str) {
    let by_calls = json!({
        "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "InFlight", "target": 2}], "scaleDownDelay": "10s",
    });
    let revision = cluster.serve(&scaled(name, &by_calls)).await;
    assert_eq!(pods(cluster, name).await.len(), 1);
    let sessions: Vec<_> = futures::future::join_all((0..12).map(|_| session(cluster, name))).await;
    let mut calls = JoinSet::new();
    let began = Instant::now();
    for session in sessions {
        calls.spawn(async move {
            while began.elapsed() < Duration::from_secs(25) {
                let slow = "new Promise(done => setTimeout(() => done('late'), 1000))";
                assert_eq!(puppet::eval(&session, 2, slow).await, Ok(json!("late")));
            }
            session.delete().await.expect("the session ends");
        });
    }
    until_pods(cluster, name, 3, PATIENCE).await;
    let took = began.elapsed();
    println!("from 1 to 3 pods that answer {:.1} s after twelve calls at once began", took.as_secs_f64());
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "it is no other revision");
    while let Some(ended) = calls.join_next().await {
        ended.expect("no call fails");
    }
    let held = session_at_another(cluster, name).await;
    until_pods(cluster, name, 1, Duration::from_secs(240)).await;
    println!("back to 1 pod {:.0} s after the first call", began.elapsed().as_secs_f64());
    assert_eq!(pods(cluster, name).await, [pod_of(&held).await], "the one with a session stays");
    let refused = kubectl(&["scale", "-n", TENANT, "mcps", name, "--replicas", "2"]).await.expect_err("it is refused");
    assert!(refused.contains("autoscaling says how many pods there are"), "{refused}");
}

#[tokio::test]
async fn sessions_have_as_many_pods_as_they_need_and_bounds_hold() {
    let cluster = Cluster::connect().await;
    let name = "scaled-sessions";
    deleting(&cluster, &[name], async {
        let by_sessions = json!({"minReplicas": 1, "maxReplicas": 5, "metrics": [{"type": "Sessions", "target": 2}]});
        cluster.serve(&scaled(name, &by_sessions)).await;
        let sessions: Vec<_> = futures::future::join_all((0..5).map(|_| session(&cluster, name))).await;
        until_pods(&cluster, name, 3, PATIENCE).await;
        cluster.patch_spec(TENANT, name, &json!({"autoscaling": {"maxReplicas": 2}})).await;
        until_pods(&cluster, name, 2, PATIENCE).await;
        cluster.patch_spec(TENANT, name, &json!({"autoscaling": {"minReplicas": 4, "maxReplicas": 4}})).await;
        until_pods(&cluster, name, 4, PATIENCE).await;
        for session in &sessions {
            assert_eq!(puppet::eval(session, 3, "6 * 7").await, Ok(json!(42)), "none is lost");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_told_to_have_fewer_pods_keeps_those_with_sessions() {
    let cluster = Cluster::connect().await;
    let name = "fewer";
    deleting(&cluster, &[name], async {
        let mut manifest = puppet::stdio(TENANT, name);
        manifest["spec"]["rollout"] = json!({"drainTimeout": "10m"});
        cluster.serve(&manifest).await;
        for _ in 0..2 {
            kubectl(&["scale", "-n", TENANT, "mcps", name, "--replicas", "3"]).await.expect("more");
            until_pods(&cluster, name, 3, PATIENCE).await;
            // The youngest are those that would go if nobody had a session.
            let held = session_at_another(&cluster, name).await;
            kubectl(&["scale", "-n", TENANT, "mcps", name, "--replicas", "1"]).await.expect("fewer");
            until_pods(&cluster, name, 1, PATIENCE).await;
            assert_eq!(pods(&cluster, name).await, [pod_of(&held).await]);
            held.delete().await.expect("the session ends");
        }
    })
    .await;
}
