//! What the operator does when nothing changed: nothing, and it tells each thing once. Alone in its suite, because it
//! counts all that the operator writes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::operator::{counted, looks_again};
use portolan_tests::puppet;
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The last one is left to an autoscaler, whose status changes all the time.
const NAMES: [&str; 3] = ["quiet-a", "quiet-b", BY_USAGE];
const BY_USAGE: &str = "quiet-by-usage";

fn manifest(name: &str) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    if name == BY_USAGE {
        manifest["spec"]["container"]["resources"] = json!({"requests": {"cpu": "100m"}});
        manifest["spec"]["autoscaling"] = json!({"maxReplicas": 2, "metrics": [{"type": "CPU", "target": 1000}]});
    }
    manifest
}

async fn versions<K>(cluster: &Cluster, seen: &mut BTreeMap<String, String>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let selector = ListParams::default().labels(&format!("portolan.dev/server in ({})", NAMES.join(",")));
    for object in cluster.api::<K>(TENANT).list(&selector).await.expect("listed") {
        seen.insert(format!("{}/{}", K::kind(&()), object.name_any()), object.resource_version().unwrap_or_default());
    }
}

/// All that can be seen of the operator's writes so far: versions of what it wrote, and its own count.
async fn written(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    versions::<Deployment>(cluster, &mut seen).await;
    versions::<ControllerRevision>(cluster, &mut seen).await;
    versions::<Service>(cluster, &mut seen).await;
    versions::<ConfigMap>(cluster, &mut seen).await;
    versions::<Secret>(cluster, &mut seen).await;
    versions::<ServiceAccount>(cluster, &mut seen).await;
    versions::<NetworkPolicy>(cluster, &mut seen).await;
    versions::<Pod>(cluster, &mut seen).await;
    for name in NAMES {
        let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there");
        seen.insert(format!("status of {name}"), serde_json::to_string(&server.status).expect("JSON"));
        seen.insert(format!("events of {name}"), format!("{:?}", events(cluster, name).await));
    }
    for counter in ["portolan_operator_child_writes_total", "portolan_operator_status_patch_total{outcome=\"written\"}"]
    {
        let count = counted(cluster, counter).await.expect("counted");
        seen.insert(counter.to_owned(), count.to_string());
    }
    // A cluster of one's own also has an audit log, in which nothing can hide.
    if let Ok(audit) = std::env::var("PORTOLAN_AUDIT_LOG") {
        seen.insert("writes in the audit log".into(), audited(&audit).to_string());
    }
    seen
}

/// Writes of the operator's account so far, its Lease aside, as the API server recorded them.
fn audited(audit: &str) -> usize {
    let log = std::fs::read_to_string(audit).expect("the audit log is there");
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["user"]["username"].as_str().is_some_and(|user| user.ends_with(":portolan-operator")))
        .filter(|event| event["objectRef"]["resource"] != "leases")
        .filter(|event| {
            matches!(event["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        })
        .count()
}

/// What was told of a server, as type, reason and note, with how often.
async fn events(cluster: &Cluster, name: &str) -> BTreeMap<String, i32> {
    let uid = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there").uid();
    let all = cluster.api::<Event>(TENANT).list(&ListParams::default()).await.expect("listed");
    let mut told = BTreeMap::new();
    for event in all {
        if event.regarding.and_then(|regarding| regarding.uid) == uid {
            let key = [event.type_, event.reason, event.note].map(Option::unwrap_or_default).join(" ");
            *told.entry(key).or_default() += 1 + event.series.map_or(0, |series| series.count);
        }
    }
    told
}

#[tokio::test]
async fn unchanged_servers_cost_no_write_and_each_transition_is_told_once() {
    let cluster = Cluster::connect().await;
    finally(
        async {
            for name in NAMES {
                cluster.serve(&manifest(name)).await;
            }
            // The last news of what was just made are written: the operator looked again, and there was nothing.
            let settled = until("the operator has nothing to write", PATIENCE, || async {
                let before = written(&cluster).await;
                looks_again(&cluster, 2).await;
                let after = written(&cluster).await;
                if before == after { Ok(after) } else { Err(difference(&before, &after)) }
            })
            .await;
            for name in NAMES {
                let told = events(&cluster, name).await;
                let ready = told.iter().filter(|(event, _)| event.starts_with("Normal Ready Ready is True"));
                assert_eq!(ready.count(), 1, "{told:#?}");
                assert!(told.values().all(|times| *times == 1), "each transition is told once: {told:#?}");
                assert!(!told.keys().any(|event| event.starts_with("Warning")), "nothing went wrong: {told:#?}");
            }
            // An unrelated label makes the operator look at once, and time does every half a minute.
            for name in NAMES {
                kubectl(&["label", "--namespace", TENANT, "--overwrite", "mcps", name, "looked-at=yes"])
                    .await
                    .expect("labelled");
            }
            looks_again(&cluster, 4).await;
            let after = written(&cluster).await;
            assert_eq!(settled, after, "the operator wrote: {}", difference(&settled, &after));
        },
        async {
            for name in NAMES {
                cluster.delete::<MCPServer>(TENANT, name).await;
            }
        },
    )
    .await;
}

fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let all = before.keys().chain(after.keys());
    let differs = all.filter(|key| before.get(*key) != after.get(*key));
    differs.map(|key| format!("{key}: {:?} became {:?}\n", before.get(key), after.get(key))).collect()
}
