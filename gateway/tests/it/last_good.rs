//! A gateway that starts while the API server is away.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use portolan_gateway::Source;
use portolan_gateway::config::{Cluster, Namespaces, Seal};
use portolan_tests::api_server::ApiServer;
use serde_json::json;

use crate::bridge::Bridge;
use crate::client::{initialize, until};
use crate::log::Log;
use crate::world::{Gateway, MAC_KEY, OTHER_ROUTE, Objects, ROUTE, config};

const FILE: &str = "inputs.sealed";
const STALE_SINCE: &str = "portolan_gateway_config_stale_since_timestamp_seconds";

/// A gateway of the cluster whose API server is, or was, at `api`.
async fn start(api: SocketAddr, name: &str, directory: &Path) -> Gateway {
    let client = kube::Config::new(format!("http://{api}").parse().expect("an address"));
    let cluster = Cluster {
        client: kube::Client::try_from(client).expect("a client"),
        namespace: "portolan".into(),
        name: name.into(),
        namespaces: Namespaces::Listed(vec!["default".into()]),
        cluster_domain: "corp.example".parse().expect("a domain"),
        seal: Some(Seal { directory: directory.into(), key_file: directory.join("key") }),
    };
    Gateway::start_from(config(), Source::Cluster(Box::new(cluster))).await
}

async fn sealed(gateway: &Gateway, outcome: &str) -> bool {
    gateway.metric(&format!(r#"portolan_gateway_config_sealed_total{{outcome="{outcome}"}}"#)).await >= 1.0
}

/// A folder with a key and what a gateway of these objects sealed with it, and the address where its API server was.
async fn with_sealed_inputs(objects: &Objects) -> (tempfile::TempDir, SocketAddr) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("key"), [3; 32]).expect("written");
    let api = ApiServer::start(objects.inputs()).await;
    let mut gateway = start(api.address, "default", directory.path()).await;
    gateway.until_ready().await;
    assert_eq!(gateway.metric(STALE_SINCE).await, 0.0);
    until("its inputs are sealed", async || sealed(&gateway, "Sealed").await).await;
    gateway.shut_down();
    gateway.ended().await;
    (directory, api.address)
}

#[tokio::test]
async fn a_gateway_that_starts_while_the_api_server_is_away_serves_its_last_good_inputs_and_says_so() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    let (directory, api) = with_sealed_inputs(&objects).await;
    let before = std::fs::read(directory.path().join(FILE)).expect("is there");
    let log = Log::capture();
    let gateway = start(api, "default", directory.path()).await;
    assert_eq!(gateway.admin().get("/readyz").await.status, 503, "the API server is asked first");
    gateway.until_ready().await;
    assert!(sealed(&gateway, "Loaded").await);
    assert!(log.says("serving the last good configuration"), "{:?}", log.lines());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let since = gateway.metric(STALE_SINCE).await;
    assert!((1.0..=now).contains(&since), "{since} of {now}");
    let own_name = gateway.client().with("host", "portolan-gateway-default.portolan.svc.corp.example");
    let answer = own_name.post(ROUTE, initialize()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    assert_eq!(gateway.client().session(&session).call("echo", json!({})).await.status, 200);
    assert_eq!(gateway.client().key("ptl_unknown").post(ROUTE, initialize()).await.status, 401);
    let after = std::fs::read(directory.path().join(FILE)).expect("is there");
    assert_eq!(before, after, "what comes from disk is not sealed again: it would look new");
    // The API server is back, and one server is gone meanwhile.
    objects.gateway["servers"] = json!({"selector": {"matchLabels": {"expose": "yes"}}});
    let _api = ApiServer::on(api, objects.inputs()).await;
    until("the API server's word is served", async || {
        gateway.client().post(OTHER_ROUTE, initialize()).await.status == 404
    })
    .await;
    assert_eq!(gateway.metric(STALE_SINCE).await, 0.0);
    assert!(log.says("the API server answers"));
    until("and sealed", async || sealed(&gateway, "Sealed").await).await;
}

#[tokio::test]
async fn a_sealed_file_that_is_forged_foreign_or_of_an_unknown_version_is_refused() {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let (good, api) = with_sealed_inputs(&Objects::new(&[&bridge])).await;
    let bytes = std::fs::read(good.path().join(FILE)).expect("is there");
    let forged = bytes.iter().copied().rev().enumerate().map(|(at, byte)| if at == 0 { byte ^ 1 } else { byte });
    let forged: Vec<u8> = forged.rev().collect();
    let later = [&[bytes[0] + 1], &bytes[1..]].concat();
    let cases = [
        ("forged", "default", [3; 32], Some(forged), "Foreign"),
        ("another gateway's", "other", [3; 32], Some(bytes.clone()), "Foreign"),
        ("sealed with another key", "default", [4; 32], Some(bytes), "Foreign"),
        ("of a later release", "default", [3; 32], Some(later), "UnknownVersion"),
        ("absent", "default", [3; 32], None, "Absent"),
    ];
    let log = Log::capture();
    join_all(cases.map(|(what, name, key, file, outcome)| async move {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("key"), key).expect("written");
        if let Some(file) = file {
            std::fs::write(directory.path().join(FILE), file).expect("written");
        }
        let gateway = start(api, name, directory.path()).await;
        until(what, async || sealed(&gateway, outcome).await).await;
        assert!(!sealed(&gateway, "Loaded").await, "{what}");
        let answer = gateway.client().post(ROUTE, initialize()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{what}");
        assert_eq!(gateway.admin().get("/readyz").await.status, 503, "{what}");
        assert_eq!(gateway.metric(STALE_SINCE).await, 0.0, "{what}");
    }))
    .await;
    assert!(bridge.seen().is_empty());
    assert!(log.says("the sealed inputs are not used"));
    let reasons: Vec<String> = log.lines().iter().filter_map(|line| line["error"].as_str().map(Into::into)).collect();
    for reason in ["the sealed inputs are not this gateway's", "the sealed inputs have the unknown version 2"] {
        assert!(reasons.iter().any(|said| said == reason), "{reason}: {reasons:?}");
    }
}
