//! `Programmed`: whether every replica of every gateway that selects a server has loaded it.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use portolan_crds::conditions::find;
use portolan_crds::{MCPGateway, MCPServer};
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::front::Front;
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

/// Label of a server, by which gateways select it or leave it out.
const FRONT: &str = "tests/front";

fn labelled(name: &str, front: &str) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["metadata"]["labels"] = json!({FRONT: front});
    manifest
}

#[tokio::test]
async fn programmed_is_true_only_when_every_replica_has_loaded_it() {
    let cluster = Cluster::connect().await;
    deleting(&cluster, &["programmed"], async {
        let (_, _, token) = Cluster::serving("programmed").await;
        for url in cluster.replica_urls(TENANT, "programmed").await {
            Session::open(&url, Some(&token)).await.expect("every replica serves what is Programmed");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_no_gateway_selects_is_not_ready_and_says_so() {
    let cluster = Cluster::connect().await;
    // By this label the default gateway, which takes every other server, leaves it out.
    let name = "unselected";
    finally(
        deleting(&cluster, &[name], async {
            cluster.apply::<MCPServer>(&labelled(name, name)).await.expect("accepted");
            cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
            let programmed = cluster.condition(TENANT, name, "Programmed", "False", "NoGateway", PATIENCE).await;
            assert!(programmed.message.contains("no MCPGateway selects the server"), "{}", programmed.message);
            let ready = cluster.condition(TENANT, name, "Ready", "False", "NoGateway", PATIENCE).await;
            assert_eq!(ready.message, programmed.message);
            let status = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there").status;
            assert!(status.expect("a status").endpoints.is_empty(), "there is no URL to call");

            let spec = json!({"replicas": 1, "authentication": {"anonymous": {}},
                "servers": {"selector": {"matchLabels": {FRONT: name}}}});
            let front = Front::open(name, &spec).await;
            cluster.ready(TENANT, name).await;
            Session::open(&front.direct_url(TENANT, name), None).await.expect("it is served");
        }),
        Front::close(&cluster, name),
    )
    .await;
}

/// Keeps the operator from hearing anything of a gateway: it may go everywhere but to its pods.
async fn silence(cluster: &Cluster, gateway: &str) -> Value {
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await.expect("listed");
    let pods: Vec<_> = nodes.into_iter().filter_map(|node| node.spec?.pod_cidr).collect();
    let others =
        json!({"matchExpressions": [{"key": "portolan.dev/gateway", "operator": "NotIn", "values": [gateway]}]});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": format!("tests-{gateway}"), "namespace": PLATFORM},
    "spec": {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "portolan-operator"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [
            {"namespaceSelector": {}, "podSelector": others},
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": pods}},
        ]}],
    }})
}

#[tokio::test]
async fn a_server_is_not_programmed_while_a_replica_of_a_gateway_that_selects_it_has_not_told_that_it_has_it() {
    let cluster = Cluster::connect().await;
    let name = "unseen";
    finally(
        async {
            cluster.apply::<NetworkPolicy>(&silence(&cluster, name).await).await.expect("accepted");
            cluster.serve(&labelled(name, name)).await;
            let spec = json!({"replicas": 1, "authentication": {"anonymous": {}},
                "servers": {"selector": {"matchLabels": {FRONT: name}}}});
            let gateway = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
                "metadata": {"name": name, "namespace": PLATFORM}, "spec": spec});
            cluster.apply::<MCPGateway>(&gateway).await.expect("accepted");
            until("the silent replica is named", PATIENCE, || async {
                let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
                let conditions = server.status.map(|status| status.conditions).unwrap_or_default();
                let is_named = |type_: &str| {
                    find(&conditions, type_).is_some_and(|condition| {
                        condition.status == "False"
                            && condition.reason == "NotLoaded"
                            && condition.message.contains(&format!("portolan-gateway-{name}-"))
                            && condition.message.contains("has not reported yet")
                    })
                };
                if is_named("Programmed") && is_named("Ready") { Ok(()) } else { Err(format!("{conditions:?}")) }
            })
            .await;
            cluster.delete::<NetworkPolicy>(PLATFORM, &format!("tests-{name}")).await;
            cluster.ready(TENANT, name).await;
            let front = Front::open(name, &spec).await;
            Session::open(&front.direct_url(TENANT, name), None).await.expect("it serves what is Programmed");
        },
        async {
            cluster.delete::<NetworkPolicy>(PLATFORM, &format!("tests-{name}")).await;
            Front::close(&cluster, name).await;
            cluster.delete::<MCPServer>(TENANT, name).await;
        },
    )
    .await;
}
