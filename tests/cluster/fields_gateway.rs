//! Every field of an `MCPGateway`, by what it does to the running system, on gateways of the tests' own.
//! `docs/fields.md` says which test shows which.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use k8s_openapi::api::core::v1::Secret;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, OTHER_TENANT, PLATFORM, TENANT, kubectl};
use portolan_tests::front::Front;
use portolan_tests::mcp;
use portolan_tests::puppet;
use portolan_tests::wait::{PATIENCE, until};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// An API key and its SHA-256.
const KEY: (&str, &str) = (
    "ptl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "sha256:6eedf177be8a2ccfda27f22fa4d3a576b3f6178479b7ea3ca2e600b395c8adb4",
);
/// Another one.
const OTHER_KEY: (&str, &str) = (
    "ptl_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBE",
    "sha256:aa454f9388ba153ca82cdafbd7996d87781c6e634d3273c26b2d8ef14a10b9da",
);

async fn serve(cluster: &Cluster, namespace: &str, name: &str, labels: &Value) {
    let mut manifest = puppet::stdio(namespace, name);
    manifest["metadata"]["labels"] = labels.clone();
    // Sessions that a test leaves open do not outlive its server.
    manifest["spec"]["rollout"]["drainTimeout"] = "0s".into();
    cluster.apply::<MCPServer>(&manifest).await.expect("accepted");
    cluster.ready(namespace, name).await;
}

#[tokio::test]
async fn each_way_of_authentication_lets_in_those_it_names_and_nobody_else() {
    let server = "fields-access";
    let cluster = Cluster::connect().await;
    serve(&cluster, TENANT, server, &json!({})).await;
    for (list, hash) in [("fields-keys", KEY.1), ("fields-other-keys", OTHER_KEY.1)] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": list, "namespace": PLATFORM},
            "stringData": {"alice": hash}});
        cluster.apply::<Secret>(&secret).await.expect("made");
    }
    let keys = |name: &str, secret: &str| json!({"name": name, "secretRef": {"name": secret}});
    let front = Front::open(
        "fields-access",
        &json!({"replicas": 1, "authentication": {"apiKeys": [keys("ours", "fields-keys")]}}),
    )
    .await;
    let audience = |name: &'static str| async move {
        let token = kubectl(&["create", "token", "default", "--namespace", TENANT, "--audience", name]).await;
        token.expect("a token").trim().to_owned()
    };
    let (meant, other) = (audience("fields").await, audience("portolan").await);
    let all = [None, Some(KEY.0), Some(OTHER_KEY.0), Some(meant.as_str()), Some(other.as_str())];
    // Keys reach the gateway in a Secret beside its object, in no order.
    let expect = async |what: &str, let_in: [bool; 5]| {
        until(what, PATIENCE, || async {
            let mut seen = Vec::new();
            for credential in all {
                seen.push(front.initialize(TENANT, server, credential).await);
            }
            let expected = let_in.map(|yes| if yes { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    expect("one list of keys", [false, true, false, false, false]).await;

    front
        .change(
            &json!({"authentication": {"apiKeys": [keys("ours", "fields-keys"), keys("theirs", "fields-other-keys")]}}),
        )
        .await;
    expect("two lists of keys", [false, true, true, false, false]).await;
    same_subject_of_two_lists_is_two_callers(&front, server).await;

    front
        .change(&json!({"authentication": {"apiKeys": null, "serviceAccounts": {"audiences": ["another", "fields"]}}}))
        .await;
    expect("tokens of an audience", [false, false, false, true, false]).await;

    front.change(&json!({"authentication": {"serviceAccounts": null, "anonymous": {}}})).await;
    until("anonymous callers", PATIENCE, || async {
        let status = front.initialize(TENANT, server, None).await;
        if status == StatusCode::OK { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    Front::close(&cluster, "fields-access").await;
    for list in ["fields-keys", "fields-other-keys"] {
        cluster.delete::<Secret>(PLATFORM, list).await;
    }
    cluster.delete::<MCPServer>(TENANT, server).await;
}

/// Both Secrets call their key's owner alice; the lists' names tell them apart.
async fn same_subject_of_two_lists_is_two_callers(front: &Front, server: &str) {
    let url = front.url(TENANT, server);
    let opened = mcp::post(&front.http, &url, Some(KEY.0), &mcp::initialize()).await.expect("answers");
    let session = opened.headers()["mcp-session-id"].clone();
    let ping = |key: &'static str| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let request = front.http.post(&url).bearer_auth(key).header("accept", "application/json, text/event-stream");
        request.header("mcp-session-id", session.clone()).json(&message).send()
    };
    assert_eq!(ping(KEY.0).await.expect("answers").status(), StatusCode::OK);
    assert_eq!(ping(OTHER_KEY.0).await.expect("answers").status(), StatusCode::NOT_FOUND, "another alice");
}

#[tokio::test]
async fn hosts_origins_and_bodies_are_let_in_as_listed() {
    let server = "fields-http";
    let cluster = Cluster::connect().await;
    serve(&cluster, TENANT, server, &json!({})).await;
    let front = Front::open("fields-http", &json!({"replicas": 1, "authentication": {"anonymous": {}}})).await;
    let send = async |headers: &[(&'static str, &'static str)], padding: usize| {
        let mut message = mcp::initialize();
        message["params"]["padding"] = "x".repeat(padding).into();
        let all: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        let request =
            front.http.post(front.url(TENANT, server)).header("accept", "application/json, text/event-stream");
        request.headers(all).json(&message).send().await.expect("answers")
    };
    let (host, origin) = (("host", "mcp.example"), ("origin", "https://app.example"));
    assert_eq!(send(&[host], 0).await.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(send(&[origin], 0).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(send(&[], 2048).await.status(), StatusCode::OK);

    let http =
        json!({"allowedHosts": ["mcp.example"], "allowedOrigins": ["https://app.example"], "maxBodyBytes": 1024});
    front.change(&json!({"http": http})).await;
    assert_eq!(send(&[host], 0).await.status(), StatusCode::OK);
    assert_eq!(send(&[("host", "evil.example")], 0).await.status(), StatusCode::MISDIRECTED_REQUEST);
    let page = send(&[origin], 0).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["access-control-allow-origin"], "https://app.example");
    assert_eq!(send(&[("origin", "https://evil.example")], 0).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(send(&[], 2048).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    Front::close(&cluster, "fields-http").await;
    cluster.delete::<MCPServer>(TENANT, server).await;
}

#[tokio::test]
async fn selectors_decide_which_servers_are_served_and_replicas_how_many_pods_serve_them() {
    let cluster = Cluster::connect().await;
    let (ours, others, theirs) = ((TENANT, "fields-ours"), (TENANT, "fields-others"), (OTHER_TENANT, "fields-theirs"));
    for ((namespace, name), team) in [(ours, "one"), (others, "two"), (theirs, "one")] {
        serve(&cluster, namespace, name, &json!({"fields-team": team})).await;
    }
    let front = Front::open("fields-servers", &json!({"replicas": 1, "authentication": {"anonymous": {}}})).await;
    let expect = async |servers: Value, expected: [bool; 3]| {
        front.change(&json!({"servers": servers})).await;
        let expected = expected.map(|served| if served { StatusCode::OK } else { StatusCode::NOT_FOUND });
        until(&format!("{servers} selects"), PATIENCE, || async {
            let mut seen = Vec::new();
            for (namespace, name) in [ours, others, theirs] {
                seen.push(front.initialize(namespace, name, None).await);
            }
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    let expressions = |key: &str, operator: &str, value: &str| json!({"matchLabels": null, "matchExpressions": [{"key": key, "operator": operator, "values": [value]}]});
    let namespace = "kubernetes.io/metadata.name";
    expect(json!({}), [true, true, true]).await;
    expect(json!({"selector": {"matchLabels": {"fields-team": "one"}}}), [true, false, true]).await;
    expect(json!({"selector": expressions("fields-team", "NotIn", "one")}), [false, true, false]).await;
    let in_team_a = json!({"matchLabels": {namespace: OTHER_TENANT}});
    expect(json!({"selector": null, "namespaceSelector": in_team_a}), [false, false, true]).await;
    expect(json!({"namespaceSelector": expressions(namespace, "In", TENANT)}), [true, true, false]).await;
    expect(json!({"selector": {"matchLabels": {"fields-team": "one"}}}), [true, false, false]).await;

    let serving = async || {
        let mut serving = 0;
        for pod in cluster.pods(PLATFORM, "portolan.dev/gateway=fields-servers").await {
            let address = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
            let answer = front.http.get(format!("http://{address}:8081/readyz")).send().await;
            serving += usize::from(answer.is_ok_and(|answer| answer.status() == StatusCode::OK));
        }
        serving
    };
    assert_eq!(serving().await, 1);
    front.change(&json!({"replicas": 2})).await;
    until("two pods serve", PATIENCE, || async {
        let pods = serving().await;
        if pods == 2 { Ok(()) } else { Err(format!("{pods} do")) }
    })
    .await;
    Front::close(&cluster, "fields-servers").await;
    for (namespace, name) in [ours, others, theirs] {
        cluster.delete::<MCPServer>(namespace, name).await;
    }
}
