//! What Prometheus reads, and who may read it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::PostParams;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use portolan_tests::mcp::{self, Session};
use portolan_tests::puppet;
use portolan_tests::refusal::{lift, refuse};
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address")
}

/// The name of every metric of a text for Prometheus, and of every label with the values that it has.
fn names(text: &str) -> (BTreeSet<&str>, BTreeMap<&str, BTreeSet<&str>>) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let metrics = types.filter_map(|line| line.split(' ').next()).collect();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.filter_map(|line| line.split_once('{')?.1.rsplit_once('}').map(|(pairs, _)| pairs));
    let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
    for (label, value) in pairs.flat_map(|pairs| pairs.split("\",")).filter_map(|pair| pair.split_once("=\"")) {
        labels.entry(label).or_default().insert(value.trim_end_matches('"'));
    }
    (metrics, labels)
}

/// Makes the API server take no Event about a server.
async fn refuse_events(cluster: &Cluster, server: &str) {
    let rule = json!({"apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["events"]});
    let which = format!("has(object.regarding.name) && object.regarding.name == '{server}'");
    let trial = json!({"metadata": {"name": format!("tests-{server}"), "namespace": TENANT},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Trial", "action": "Trial",
        "reportingController": "portolan-tests", "reportingInstance": "portolan-tests",
        "regarding": {"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer", "namespace": TENANT, "name": server}});
    let trial: Event = serde_json::from_value(trial).expect("an Event");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    refuse(cluster, server, (&rule, &which), "there are Events enough", async || {
        cluster.api::<Event>(TENANT).create(&dry, &trial).await.map(drop)
    })
    .await;
}

/// How many Events of the operator were not taken so far, as the node reads it.
async fn refused_events(cluster: &Cluster) -> u64 {
    let operator = cluster.pods(PLATFORM, OPERATOR).await.remove(0);
    let read = mcp::http().get(format!("http://{}:8082/metrics", address(&operator))).send().await.expect("answers");
    let text = read.text().await.expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix("portolan_operator_refused_total{what=\"event\"} "));
    line.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn peers_that_the_installation_names_read_metrics_and_nobody_else_does() {
    let cluster = Cluster::connect().await;
    let servers = ["scraper", "stranger"];
    finally(
        deleting(&cluster, &servers, async {
            let refused = refused_events(&cluster).await;
            refuse_events(&cluster, "scraper").await;
            for name in servers {
                let mut manifest = puppet::stdio(TENANT, name);
                manifest["spec"]["pod"] = json!({"labels": {"scraper": if name == "scraper" { "yes" } else { "no" }}});
                cluster.serve(&manifest).await;
            }
            let token = cluster.token(TENANT, "default").await;
            let gateway = cluster.pods(PLATFORM, "portolan.dev/gateway=default").await.remove(0);
            let url = format!("http://{}:8080/{TENANT}/scraper/mcp", address(&gateway));
            Session::open(&url, Some(&token)).await.expect("a session, which is counted");
            let operator = cluster.pods(PLATFORM, OPERATOR).await.remove(0);

            let read = async |reader: &'static str, url: String| {
                let pod = cluster.pods(TENANT, &format!("portolan.dev/server={reader}")).await.remove(0);
                let pod = pod.metadata.name.expect("a name");
                let code = format!(
                    "fetch('{url}', {{signal: AbortSignal.timeout(5000)}}).then(r => r.text()).then(console.log, () => console.log('blocked'))"
                );
                let command = ["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &code];
                kubectl(&command).await.expect("exec")
            };
            for (pod, port) in [(&gateway, 8081), (&operator, 8082)] {
                let said = read("stranger", format!("http://{}:{port}/metrics", address(pod))).await;
                assert_eq!(said.trim(), "blocked", "port {port}");
            }
            until("the refused Event is counted", PATIENCE, || async {
                let now = refused_events(&cluster).await;
                if now > refused { Ok(()) } else { Err(format!("{now} after {refused}")) }
            })
            .await;
            of_the_operator(&read("scraper", format!("http://{}:8082/metrics", address(&operator))).await);
            of_a_gateway(&read("scraper", format!("http://{}:8081/metrics", address(&gateway))).await);
        }),
        lift(&cluster, "scraper"),
    )
    .await;
}

fn of_the_operator(text: &str) {
    let (metrics, labels) = names(text);
    let known =
        ["child_writes_total", "leader", "reconcile_duration_seconds", "reconcile_total", "refused_total", "resources"];
    for known in known {
        assert!(metrics.contains(format!("portolan_operator_{known}").as_str()), "{known}: {metrics:?}");
    }
    assert!(text.contains("portolan_operator_leader 1"), "{text}");
    let bounded = BTreeMap::from([
        ("direction", &["down", "up"][..]),
        ("kind", &["MCPGateway", "MCPServer"]),
        ("operation", &["apply", "create", "delete", "patch", "replace"]),
        (
            "outcome",
            &[
                "error",
                "failed",
                "late",
                "no_session",
                "not_run",
                "passed",
                "stalled",
                "success",
                "transient",
                "unchanged",
                "unknown_tool",
                "waiting",
                "written",
                "wrong",
            ],
        ),
        ("state", &["malformed", "not_ready", "ready", "under_way", "waiting"]),
        ("what", &["event", "probe_line", "stream_line"]),
    ]);
    assert_eq!(labels.keys().filter(|label| **label != "le").collect::<Vec<_>>(), bounded.keys().collect::<Vec<_>>());
    for (label, values) in labels.iter().filter(|(label, _)| **label != "le") {
        assert!(values.iter().all(|value| bounded[label].contains(value)), "{label}: {values:?}");
    }
    assert!(!text.contains("scraper"), "an object is named: {text}");
}

fn of_a_gateway(text: &str) {
    let (metrics, labels) = names(text);
    for known in ["config_generation", "connections", "overhead_seconds", "request_duration_seconds", "requests_total"]
    {
        assert!(metrics.contains(format!("portolan_gateway_{known}").as_str()), "{known}: {metrics:?}");
    }
    // A route is the only label that names an object: there are as many as servers.
    let bounded = ["bound", "kind", "le", "listener", "method", "outcome", "reason", "route"];
    assert!(labels.keys().all(|label| bounded.contains(label)), "{:?}", labels.keys());
    let counted = "portolan_gateway_requests_total{method=\"initialize\",outcome=\"OK\",route=\"default/scraper\"}";
    assert!(text.contains(counted), "{text}");
    for line in text.lines().filter(|line| line.contains("scraper")) {
        assert!(line.contains("route=\"default/scraper\""), "an object is named beside its route: {line}");
    }
}
