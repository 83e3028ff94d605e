//! A leader that stands still for longer than its lease, and goes on as if nothing had been.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::Lease;
use portolan_crds::MCPServer;
use portolan_crds::conditions::is_true;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT};
use portolan_tests::node::Process;
use portolan_tests::operator::{self, leader};
use portolan_tests::stand::manifest;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{on_a_stand, rate, report};

/// The server that is edited meanwhile.
const EDITED: &str = "edited-by-both";

#[tokio::test]
async fn a_leader_that_is_paused_past_its_lease_writes_nothing_when_it_goes_on_and_no_server_flaps() {
    on_a_stand("two-leaders", 2, async |stand| {
        let cluster = &stand.cluster;
        let body = async {
            cluster.serve(&manifest(EDITED, 1)).await;
            operator::replicas(cluster, 2).await;
            let load = stand.load(rate()).await;
            takes_no_notice(cluster, &stand.server).await;
            let tally = load.stop().await;
            report("the leader paused past its lease", &tally);
            tally.assert_nothing_failed();
        };
        finally(deleting(cluster, &[EDITED], body), operator::replicas(cluster, 1)).await;
    })
    .await;
}

async fn takes_no_notice(cluster: &Cluster, untouched: &str) {
    let (first, handed_over) = (leader(cluster).await.expect("somebody leads"), hand_overs(cluster).await);
    assert!(!written_by(&first, Duration::ZERO).is_empty(), "what an operator's pod writes is found in the audit log");
    let pods = cluster.pods(PLATFORM, OPERATOR).await;
    let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&first)).expect("a pod leads");
    let process = Process::of(pod, "operator");
    // It stands still in the middle of what this edit asks for.
    cluster.patch_spec(TENANT, EDITED, &variable("one")).await;
    let paused = process.pause();
    until("another one leads", PATIENCE, || async {
        let now = leader(cluster).await?;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    assert!(process.is_alive(), "nobody has ended it yet");
    // Both have something in hand now: what the one that goes on hears first is as new as can be.
    cluster.patch_spec(TENANT, EDITED, &variable("two")).await;
    let resumed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    drop(paused);
    until("the old leader has ended", PATIENCE, || async {
        if process.is_alive() { Err("it runs".to_owned()) } else { Ok(()) }
    })
    .await;
    cluster.ready(TENANT, EDITED).await;
    let server = cluster.api::<MCPServer>(TENANT).get(untouched).await.expect("there").status.unwrap_or_default();
    for type_ in ["Ready", "Programmed", "Available"] {
        assert!(is_true(&server.conditions, type_), "{:?}", server.conditions);
    }
    let written = written_by(&first, resumed);
    assert!(written.is_empty(), "the old leader wrote after another one had taken over: {written:#?}");
    assert_ne!(leader(cluster).await.expect("somebody leads"), first);
    operator::replicas(cluster, 2).await;
    assert_eq!(hand_overs(cluster).await, handed_over + 1, "the lease went from one to the other and stayed there");
}

/// How often the lease went from one operator to another.
async fn hand_overs(cluster: &Cluster) -> i32 {
    let lease = cluster.api::<Lease>(PLATFORM).get("portolan-operator").await.expect("there is a lease");
    lease.spec.and_then(|spec| spec.lease_transitions).unwrap_or_default()
}

fn variable(value: &str) -> Value {
    json!({"container": {"env": [{"name": "EDIT", "value": value}]}, "rollout": {"drainTimeout": "1s"}})
}

/// Writes of an operator's pod since then that the API server took, its tries for the lease left out, by what was written.
fn written_by(pod: &str, since: Duration) -> BTreeMap<String, usize> {
    let audit = std::env::var("PORTOLAN_AUDIT_LOG").expect("the cluster has an audit log");
    let log = std::fs::read_to_string(audit).expect("the audit log is there");
    let mut written = BTreeMap::new();
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let is_its = event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0] == pod;
        let was_taken = event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        let at = event["stageTimestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let is_later = at.is_some_and(|at| at.as_duration().unsigned_abs() >= since);
        let object = &event["objectRef"];
        if is_its && was_taken && is_later && object["resource"] != "leases" {
            *written.entry(format!("{} {} {}", event["verb"], object["resource"], object["name"])).or_default() += 1;
        }
    }
    written
}
