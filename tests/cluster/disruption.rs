//! Parts that end under load: what goes on, and what is lost.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, WatchEvent, WatchParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::mcp::{Events, Session};
use portolan_tests::pods::is_ready;
use portolan_tests::wait::{PATIENCE, until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

const GATEWAY: &str = "portolan.dev/gateway=default";

/// Deletes a gateway's pod while a call through that very replica is under way.
async fn ends_its_call_first(pods: &Api<Pod>, pod: &Pod, session: &Session) {
    let name = pod.name_any();
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
    let replica = session.at(&format!("http://{ip}:8080/{TENANT}/survivor/mcp"));
    // It takes longer than a replica goes on accepting.
    let slow = json!({"jsonrpc": "2.0", "id": &name, "method": "tools/call", "params": {
        "name": "trigger-long-running-operation", "arguments": {"duration": 12, "steps": 6},
        "_meta": {"progressToken": &name}}});
    let mut events = Events::of(replica.send(&slow).await.expect("answers"));
    events.until(|message| message["method"] == "notifications/progress").await.expect("it is under way");

    let one = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut seen = pods.watch(&one, "0").await.expect("watched").boxed();
    pods.delete(&name, &DeleteParams::default()).await.expect("deleted");
    let gone = async {
        while let Some(event) = seen.try_next().await.expect("watched") {
            if let WatchEvent::Deleted(pod) = event {
                return pod;
            }
        }
        panic!("{name} is still there when the watch ends");
    };
    let (answer, gone) = tokio::join!(timeout(PATIENCE, events.until(|m| m["id"] == *name)), timeout(PATIENCE, gone));
    let answer = answer.expect("the call ends").expect("the stream ends with its answer");
    assert!(answer["result"]["isError"].is_null(), "{answer}");
    assert!(answer["result"].to_string().contains("completed"), "{answer}");
    let gone = serde_json::to_value(gone.expect("the pod goes away")).expect("JSON");
    let ended: &Value = &gone["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 0, "it ended by itself, nothing had to kill it: {ended}");
}

#[tokio::test]
async fn a_replica_ends_its_calls_before_it_goes_and_sessions_survive_it() {
    let (cluster, url, token) = Cluster::serving("survivor").await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    let pods = cluster.api::<Pod>(PLATFORM);
    let original: BTreeSet<_> = cluster.pods(PLATFORM, GATEWAY).await.iter().filter_map(ResourceExt::uid).collect();
    assert_eq!(original.len(), 2, "two replicas");
    for pod in cluster.pods(PLATFORM, GATEWAY).await {
        ends_its_call_first(&pods, &pod, &session).await;
        until(&format!("the gateway goes on without {}", pod.name_any()), PATIENCE, || async {
            let all = pods.list(&ListParams::default().labels(GATEWAY)).await.map_err(|error| error.to_string())?;
            let is_gone = all.items.iter().all(|left| left.uid() != pod.uid());
            let ready = all.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
            let ready = ready.count();
            if is_gone && ready == 2 { Ok(()) } else { Err(format!("gone: {is_gone}, {ready} ready")) }
        })
        .await;
    }
    let now: BTreeSet<_> = cluster.pods(PLATFORM, GATEWAY).await.iter().filter_map(ResourceExt::uid).collect();
    assert!(now.is_disjoint(&original), "every replica is another one: {now:?} after {original:?}");
    for replica in cluster.replica_urls(TENANT, "survivor").await {
        let reply = session.at(&replica).call(1, "echo", json!({"message": "still here"})).await.expect("answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: still here");
    }
    cluster.delete::<MCPServer>(TENANT, "survivor").await;
}

/// Which pod answers a session.
async fn pod_of(session: &Session) -> String {
    let reply = session.call(1, "get-env", json!({})).await.expect("answers");
    let text = reply.answer()["result"]["content"][0]["text"].as_str().expect("text").to_owned();
    let environment: Value = serde_json::from_str(&text).expect("get-env answers with JSON");
    environment["HOSTNAME"].as_str().expect("a pod has a name").to_owned()
}

#[tokio::test]
async fn a_pod_that_dies_ends_its_own_sessions_and_no_others() {
    const NAME: &str = "pair";
    let (cluster, url, token) = Cluster::serving(NAME).await;
    cluster.patch_spec(TENANT, NAME, &json!({"replicas": 2})).await;
    until("two pods serve", PATIENCE, || async {
        let ready = cluster.pods(TENANT, "portolan.dev/server=pair").await.iter().filter(|pod| is_ready(pod)).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} are ready")) }
    })
    .await;
    let mut sessions = BTreeMap::new();
    let each = async {
        while sessions.len() < 2 {
            let session = Session::open(&url, Some(&token)).await.expect("a session");
            let pod = pod_of(&session).await;
            if let Some(spare) = sessions.insert(pod, session) {
                spare.delete().await.expect("it ends");
            }
        }
    };
    timeout(PATIENCE, each).await.expect("each pod has a session");
    let (dies, lost) = sessions.pop_first().expect("two");
    let (stays, kept) = sessions.pop_first().expect("another");
    let at_once = DeleteParams::default().grace_period(0);
    cluster.api::<Pod>(TENANT).delete(&dies, &at_once).await.expect("deleted");
    until("the session is known to be over", PATIENCE, || async {
        assert_eq!(pod_of(&kept).await, stays, "the other session goes on all the while");
        let reply = lost.call(2, "echo", json!({"message": "late"})).await?;
        if reply.status == StatusCode::NOT_FOUND { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    let again = Session::open(&url, Some(&token)).await.expect("its client opens another one");
    assert_ne!(pod_of(&again).await, dies);
    cluster.delete::<MCPServer>(TENANT, NAME).await;
}
