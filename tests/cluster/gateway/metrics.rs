//! What Prometheus reads, and who may read it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::tidy::finally;
use serde_json::json;

fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address")
}

/// The name of every metric of a text for Prometheus, and of every label.
fn names(text: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let metrics = types.filter_map(|line| line.split(' ').next()).collect();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let labels = samples.filter_map(|line| line.split_once('{')?.1.rsplit_once('}').map(|(labels, _)| labels));
    let labels = labels.flat_map(|labels| labels.split("\",")).filter_map(|label| label.split('=').next()).collect();
    (metrics, labels)
}

#[tokio::test]
async fn peers_that_the_installation_names_read_metrics_and_nobody_else_does() {
    let cluster = Cluster::connect().await;
    let servers = ["scraper", "stranger"];
    finally(
        async {
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
            of_the_operator(&read("scraper", format!("http://{}:8082/metrics", address(&operator))).await);
            of_a_gateway(&read("scraper", format!("http://{}:8081/metrics", address(&gateway))).await);
        },
        async {
            for name in servers {
                cluster.delete::<MCPServer>(TENANT, name).await;
            }
        },
    )
    .await;
}

fn of_the_operator(text: &str) {
    let (metrics, labels) = names(text);
    for known in ["child_writes_total", "leader", "reconcile_duration_seconds", "reconcile_total", "resources"] {
        assert!(metrics.contains(format!("portolan_operator_{known}").as_str()), "{known}: {metrics:?}");
    }
    assert!(text.contains("portolan_operator_leader 1"), "{text}");
    assert_eq!(labels, BTreeSet::from(["kind", "le", "operation", "outcome", "state"]));
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
    assert!(labels.is_subset(&BTreeSet::from(bounded)), "{labels:?}");
    let counted = "portolan_gateway_requests_total{method=\"initialize\",outcome=\"OK\",route=\"default/scraper\"}";
    assert!(text.contains(counted), "{text}");
    for line in text.lines().filter(|line| line.contains("scraper")) {
        assert!(line.contains("route=\"default/scraper\""), "an object is named beside its route: {line}");
    }
}
