//! Where the scheduler puts the pods, on two nodes that exist for it alone: no kubelet stands behind them, so nothing
//! runs there, and their taint keeps every other pod away.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{apply_global, delete_global, puppet_with};

const FAKE: &str = "fields.test/fake";
const RESERVED: &str = "fields.test/reserved";
const ZONE: &str = "fields.test/zone";

/// A node for the scheduler, in a zone of its own, whose taints keep pods away that do not tolerate them.
async fn node(cluster: &Cluster, name: &str, zone: &str, taints: &[&str]) {
    let taints: Vec<_> = taints.iter().map(|key| json!({"key": key, "value": "yes", "effect": "NoSchedule"})).collect();
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {FAKE: "yes", ZONE: zone, "fields.test/node": name}},
        "spec": {"taints": taints}});
    apply_global::<Node>(cluster, &node).await;
    let now = Timestamp::now().to_string();
    let amounts = json!({"cpu": "8", "memory": "8Gi", "pods": "50", "ephemeral-storage": "8Gi"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready",
        "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("it looks alive");
}

/// Tolerations for what keeps other pods away from the test's nodes.
fn tolerations() -> Value {
    json!([{"key": FAKE, "operator": "Exists"}, {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}])
}

/// Waits until the scheduler has decided on all `wanted` pods of a server, and returns the nodes of those it placed.
async fn placed(cluster: &Cluster, name: &str, wanted: usize) -> Vec<String> {
    until(&format!("the scheduler has decided on {name}"), PATIENCE, || async {
        let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
        let nodes: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
        let refused = pods.iter().filter(|pod| is_refused(pod)).count();
        if pods.len() == wanted && nodes.len() + refused == wanted {
            Ok(nodes)
        } else {
            Err(format!("{} pods, {nodes:?}, {refused} refused", pods.len()))
        }
    })
    .await
}

fn is_refused(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })
}

/// Deletes the servers whose names begin so, and the nodes.
async fn tidy(cluster: &Cluster, hosts: &[&str], servers: &str) {
    for server in cluster.api::<MCPServer>(TENANT).list(&ListParams::default()).await.expect("listed") {
        if server.name_any().starts_with(servers) {
            abandon(cluster, &server.name_any()).await;
        }
    }
    for host in hosts {
        delete_global::<Node>(cluster, host).await;
    }
}

/// Deletes a server with its pods, which no kubelet would ever report as ended.
async fn abandon(cluster: &Cluster, name: &str) {
    let servers = cluster.api::<MCPServer>(TENANT);
    servers.delete(name, &DeleteParams::background()).await.expect("deleted");
    let pods = cluster.api::<Pod>(TENANT);
    let of_it = ListParams::default().labels(&format!("portolan.dev/server={name}"));
    until(&format!("nothing of {name} is left"), PATIENCE, || async {
        let left = pods.list(&of_it).await.map_err(|error| error.to_string())?.items;
        for pod in &left {
            match pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
                Err(kube::Error::Api(status)) if !status.is_not_found() => return Err(status.to_string()),
                _ => {}
            }
        }
        let server = servers.get_opt(name).await.map_err(|error| error.to_string())?;
        if left.is_empty() && server.is_none() { Ok(()) } else { Err(format!("{} pods", left.len())) }
    })
    .await;
}

#[tokio::test]
async fn pods_go_to_tainted_nodes_that_they_tolerate_and_for_as_long_as_they_do() {
    let cluster = Cluster::connect().await;
    finally(tainted(&cluster), tidy(&cluster, &["fields-tainted"], "fields-tolerates")).await;
}

async fn tainted(cluster: &Cluster) {
    let (host, taint) = ("fields-tainted", "fields.test/tainted");
    node(cluster, host, "t", &[taint]).await;
    let manifest = |name: &str, tolerations: Value| {
        puppet_with(name, &json!({"pod": {"nodeSelector": {"fields.test/node": host}, "tolerations": tolerations}}))
    };
    let equal = |value: &str, effect: &str| {
        json!([{"key": taint, "operator": "Equal", "value": value, "effect": effect},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
            {"key": "fields.test/drain", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}])
    };
    let cases = [
        ("fields-tolerates", equal("yes", "NoSchedule"), 1),
        ("fields-tolerates-none", json!([]), 0),
        ("fields-tolerates-value", equal("no", "NoSchedule"), 0),
        ("fields-tolerates-effect", equal("yes", "NoExecute"), 0),
    ];
    for (name, tolerations, _) in &cases {
        cluster.apply::<MCPServer>(&manifest(name, tolerations.clone())).await.expect("accepted");
    }
    for (name, _, expected) in &cases {
        assert_eq!(placed(cluster, name, 1).await.len(), *expected, "{name}");
    }

    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let drain = json!({"spec": {"taints": [
        {"key": taint, "value": "yes", "effect": "NoSchedule"},
        {"key": "fields.test/drain", "value": "now", "effect": "NoExecute"}]}});
    let before = cluster.pods(TENANT, "portolan.dev/server=fields-tolerates").await.remove(0);
    nodes.patch(host, &PatchParams::default(), &Patch::Merge(drain)).await.expect("tainted");
    let started = std::time::Instant::now();
    until("the pod is evicted when its seconds are over", PATIENCE, || async {
        match cluster.api::<Pod>(TENANT).get_opt(&before.name_any()).await.map_err(|error| error.to_string())? {
            Some(pod) if pod.metadata.deletion_timestamp.is_none() => Err("it is there".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    assert!(started.elapsed().as_secs() >= 2, "it was tolerated for a while: {:?}", started.elapsed());
}

/// Two pods on two nodes of a zone each, the second of which they do not tolerate: a constraint decides how many of
/// them the first may have.
#[tokio::test]
async fn pods_spread_as_each_part_of_the_constraint_says() {
    let cluster = Cluster::connect().await;
    finally(spread(&cluster), tidy(&cluster, &["fields-zone-a", "fields-zone-b"], "fields-spread-")).await;
}

async fn spread(cluster: &Cluster) {
    node(cluster, "fields-zone-a", "a", &[FAKE]).await;
    node(cluster, "fields-zone-b", "b", &[FAKE, RESERVED]).await;
    let base = |name: &str| {
        json!({"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"portolan.dev/server": name}}})
    };
    let zones = json!({FAKE: "yes"});
    let zone_a = json!({ZONE: "a"});
    let others = json!({"matchExpressions": [{"key": "portolan.dev/server", "operator": "In", "values": ["another"]}]});
    // How the constraint differs from the base, the node selector, and how many of two pods find a place.
    let cases = [
        ("skew-1", json!({}), &zones, 1),
        ("skew-2", json!({"maxSkew": 2}), &zones, 2),
        ("anyway", json!({"whenUnsatisfiable": "ScheduleAnyway"}), &zones, 2),
        ("no-key", json!({"topologyKey": "fields.test/absent"}), &zones, 0),
        ("labels", json!({"labelSelector": {"matchLabels": {"portolan.dev/server": "another"}}}), &zones, 2),
        ("expressions", json!({"labelSelector": others}), &zones, 2),
        ("taints", json!({"nodeTaintsPolicy": "Honor"}), &zones, 2),
        ("domains", json!({"nodeTaintsPolicy": "Honor", "minDomains": 2}), &zones, 1),
        ("affinity", json!({}), &zone_a, 2),
        ("affinity-ignored", json!({"nodeAffinityPolicy": "Ignore"}), &zone_a, 1),
    ];
    let manifest = |name: &str, constraint: &Value, selector: &Value, replicas: usize| {
        let pod = json!({"topologySpreadConstraints": [constraint], "nodeSelector": selector,
            "tolerations": tolerations(), "labels": {"fields-group": "one"}});
        puppet_with(name, &json!({"replicas": replicas, "pod": pod}))
    };
    let name = |case: &str| format!("fields-spread-{case}");
    for (case, differs, selector, _) in &cases {
        let mut constraint = base(&name(case));
        for (field, value) in differs.as_object().expect("fields") {
            constraint[field] = value.clone();
        }
        cluster.apply::<MCPServer>(&manifest(&name(case), &constraint, selector, 2)).await.expect("accepted");
    }
    for (case, _, _, expected) in &cases {
        let nodes = placed(cluster, &name(case), 2).await;
        assert_eq!(nodes.len(), *expected, "{case}: {nodes:?}");
        assert!(nodes.iter().all(|node| node == "fields-zone-a"), "{case}: {nodes:?}");
    }

    // Zone a has more pods of the group than zone b: another is taken only where its own kind alone is counted.
    let group = json!({"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"fields-group": "one"}}});
    let mut keyed = group.clone();
    keyed["matchLabelKeys"] = json!(["portolan.dev/server"]);
    for (case, constraint, expected) in [("grouped", group, 0), ("keyed", keyed, 1)] {
        cluster.apply::<MCPServer>(&manifest(&name(case), &constraint, &zones, 1)).await.expect("accepted");
        assert_eq!(placed(cluster, &name(case), 1).await.len(), expected, "{case}");
    }
}
