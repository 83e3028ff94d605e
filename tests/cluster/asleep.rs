//! A server that has no pods while nobody calls, and what a call finds then.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::time::Instant;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT};
use portolan_tests::mcp::{Session, http, initialize, post, post_alone};
use portolan_tests::pods::is_ready;
use portolan_tests::puppet;
use portolan_tests::sized;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

/// A puppet that sleeps when nobody has called for ten seconds. Those that are told to end have three for their sessions.
fn sleeper(name: &str) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["autoscaling"] = json!({
        "minReplicas": 0, "maxReplicas": 2, "metrics": [{"type": "InFlight", "target": 100}],
        "scaleToZeroAfter": "10s", "activationTimeout": "1m",
    });
    manifest["spec"]["rollout"] = json!({"drainTimeout": "3s"});
    manifest["spec"]["sessions"] = json!({"maxPerReplica": 100, "maxPerCaller": 100});
    manifest
}

/// How many pods there are, those too that were told to end.
async fn pods(cluster: &Cluster, name: &str) -> usize {
    let all = ListParams::default().labels(&format!("portolan.dev/server={name}"));
    cluster.api::<Pod>(TENANT).list(&all).await.expect("pods can be listed").items.len()
}

/// Waits until no pod is there, not even one that ends, and status says that this is well.
async fn until_asleep(cluster: &Cluster, name: &str) {
    cluster.condition(TENANT, name, "Available", "True", "Asleep", PATIENCE).await;
    until("no pod is there", PATIENCE, || async {
        let pods = pods(cluster, name).await;
        if pods == 0 { Ok(()) } else { Err(format!("{pods} are")) }
    })
    .await;
    cluster.ready(TENANT, name).await;
}

#[tokio::test]
async fn a_server_that_nobody_calls_has_no_pod_and_those_who_call_then_wait_for_one() {
    let cluster = Cluster::connect().await;
    let name = "sleeper";
    deleting(&cluster, &[name], async {
        let revision = cluster.serve(&sleeper(name)).await;
        let session = sized::session(&cluster, name).await;
        let answer = async |session: &Session| puppet::eval(session, 1, "6 * 7").await;
        assert_eq!(answer(&session).await, Ok(json!(42)));
        until_asleep(&cluster, name).await;

        lists_do_not_wake(&cluster, name, &session).await;

        let began = Instant::now();
        assert_eq!(answer(&session).await, Ok(json!(42)), "its session goes on");
        println!("a held call was served after {:.2} s", began.elapsed().as_secs_f64());
        assert_eq!(cluster.serving_revision(TENANT, name).await, revision, "it is no other revision");
        until_asleep(&cluster, name).await;

        let crowd = join_all((0..60).map(|_| sized::session(&cluster, name))).await;
        let began = Instant::now();
        for answered in join_all(crowd.iter().map(answer)).await {
            assert_eq!(answered, Ok(json!(42)));
        }
        println!("sixty held calls were served after {:.2} s", began.elapsed().as_secs_f64());
    })
    .await;
}

/// Everything that tells of a server, in both eras and at every replica, is answered, and no pod comes of it.
async fn lists_do_not_wake(cluster: &Cluster, name: &str, session: &Session) {
    let token = cluster.token(TENANT, "default").await;
    let http = http();
    for url in cluster.replica_urls(TENANT, name).await {
        for message in [
            json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}),
            json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {}}),
        ] {
            let reply = session.at(&url).send(&message).await.expect("answers");
            let answer: Value = reply.json().await.expect("JSON");
            assert!(answer["result"].is_object(), "{answer}");
            assert!(message["method"] != "tools/list" || answer["result"]["tools"][0]["name"] == "eval", "{answer}");
        }
        let opened = post(&http, &url, Some(&token), &initialize()).await.expect("answers");
        let opened: Value = opened.json().await.expect("JSON");
        assert!(opened["result"]["capabilities"]["tools"].is_object(), "{opened}");
        let listed = json!({"jsonrpc": "2.0", "id": 4, "method": "tools/list", "params": {}});
        let listed = post_alone(&http, &url, Some(&token), listed).await.expect("answers");
        let listed: Value = listed.json().await.expect("JSON");
        assert_eq!(listed["result"]["tools"][0]["name"], "eval", "{listed}");
    }
    assert_eq!(pods(cluster, name).await, 0);
}

#[tokio::test]
async fn a_revision_of_a_server_that_sleeps_is_seen_to_answer_before_it_serves() {
    let cluster = Cluster::connect().await;
    let name = "sleeper-edited";
    deleting(&cluster, &[name], async {
        let first = cluster.serve(&sleeper(name)).await;
        until_asleep(&cluster, name).await;
        cluster.patch_spec(TENANT, name, &json!({"container": {"command": ["/none"]}})).await;
        cluster.condition(TENANT, name, "Ready", "False", "SpawnFailed", PATIENCE).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
        let env = json!([{"name": "VERSION", "value": "2"}]);
        let command = puppet::stdio(TENANT, name)["spec"]["container"]["command"].clone();
        cluster.patch_spec(TENANT, name, &json!({"container": {"command": command, "env": env}})).await;
        cluster.ready(TENANT, name).await;
        assert_ne!(cluster.serving_revision(TENANT, name).await, first);
        until_asleep(&cluster, name).await;
        let answer = puppet::eval(&sized::session(&cluster, name).await, 1, "process.env.VERSION").await;
        assert_eq!(answer, Ok(json!("2")));
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_begins_anew_lets_a_server_sleep_on_and_wakes_it_for_a_call() {
    let cluster = Cluster::connect().await;
    let name = "sleeper-kept";
    deleting(&cluster, &[name], async {
        cluster.serve(&sleeper(name)).await;
        let session = sized::session(&cluster, name).await;
        until_asleep(&cluster, name).await;
        let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there");
        begin_operator_anew(&cluster).await;
        let after = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there");
        assert_eq!(server.metadata.resource_version, after.metadata.resource_version, "nothing was written");
        assert_eq!(puppet::eval(&session, 1, "6 * 7").await, Ok(json!(42)));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_no_pod_takes_in_time_is_told_so() {
    let cluster = Cluster::connect().await;
    let name = "sleeper-late";
    deleting(&cluster, &[name], async {
        let mut manifest = sleeper(name);
        manifest["spec"]["autoscaling"]["activationTimeout"] = json!("1s");
        // It takes longer than that to be ready.
        let script = manifest["spec"]["container"]["command"][2].as_str().expect("a script").to_owned();
        let late = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4000);";
        manifest["spec"]["container"]["command"][2] = format!("{late}{script}").into();
        cluster.serve(&manifest).await;
        let session = sized::session(&cluster, name).await;
        until_asleep(&cluster, name).await;
        let reply = session.call(1, "eval", json!({"code": "6 * 7"})).await.expect("answers");
        assert_eq!((reply.status.as_u16(), &reply.answer()["error"]["data"]["error_type"]), (503, &json!("NotReady")));
        until("it has woken meanwhile", PATIENCE, || puppet::eval(&session, 2, "6 * 7")).await;
    })
    .await;
}

/// Ends the operator and waits for another.
async fn begin_operator_anew(cluster: &Cluster) {
    let before = cluster.pods(PLATFORM, OPERATOR).await;
    for pod in &before {
        cluster.api::<Pod>(PLATFORM).delete(&pod.name_any(), &DeleteParams::default()).await.expect("deleted");
    }
    until("another operator is ready", PATIENCE, || async {
        let now = cluster.pods(PLATFORM, OPERATOR).await;
        let are_others = now.iter().all(|pod| before.iter().all(|old| old.uid() != pod.uid()) && is_ready(pod));
        if are_others && !now.is_empty() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}
