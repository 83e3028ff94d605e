//! Servers that cannot work: each says why by a reason of its own, gets no traffic, and recovers by itself.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use k8s_openapi::api::core::v1::Secret;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::{self, Session};
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::PATIENCE;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// A server in the image of server-everything whose command is a line of JavaScript.
fn script(name: &str, code: &str) -> Value {
    json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {"container": {
            "image": "localhost/portolan-test/everything:1",
            "imagePullPolicy": "Never",
            "transport": "Stdio",
            "command": ["node", "-e", code],
        }},
    })
}

/// Applies a server that cannot work, checks its reason and that it gets no traffic, mends it, and waits until it is Ready.
async fn says_why_and_recovers(manifest: Value, reason: &str, words: &[&str]) {
    let cluster = Cluster::connect().await;
    let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
    cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");

    let ready = cluster.condition(TENANT, &name, "Ready", "False", reason, PATIENCE).await;
    for word in words {
        assert!(ready.message.contains(word), "{reason} says {word:?}: {}", ready.message);
    }
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, &name).await;
    let refused = mcp::post(&mcp::http(), &url, Some(&token), &mcp::initialize()).await.expect("the gateway answers");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));

    cluster
        .apply::<MCPServer>(&server("everything", Place::Container).manifest(TENANT, &name))
        .await
        .expect("the repair is accepted");
    cluster.ready(TENANT, &name).await;
    Session::open(&url, Some(&token)).await.expect("the mended server is served");
    cluster.delete::<MCPServer>(TENANT, &name).await;
}

#[tokio::test]
async fn an_image_that_is_absent_is_named() {
    let mut manifest = script("image-absent", "");
    manifest["spec"]["container"]["image"] = "localhost/portolan-test/no-such-image:1".into();
    says_why_and_recovers(manifest, "ImagePullFailed", &["localhost/portolan-test/no-such-image:1"]).await;
}

#[tokio::test]
async fn a_process_that_exits_at_once_is_told_with_code_and_last_stderr_line() {
    let code = "console.error('first'); console.error('no database at db:5432'); process.exit(3)";
    says_why_and_recovers(script("exits-at-once", code), "ServerExited", &["exited with code 3", "no database at db:5432"]).await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_a_handshake_timeout() {
    says_why_and_recovers(script("never-answers", "process.stdin.resume()"), "HandshakeTimeout", &["initialize"]).await;
}

#[tokio::test]
async fn a_server_that_prints_garbage_is_not_mcp() {
    let code = "process.stdin.on('data', () => console.log('Welcome to the shell!'))";
    says_why_and_recovers(script("prints-garbage", code), "NotMCP", &["Welcome to the shell!"]).await;
}

#[tokio::test]
async fn a_server_of_the_sessionless_era_only_is_an_unsupported_protocol() {
    let code = r"
        require('readline').createInterface({input: process.stdin}).on('line', line => {
          const {id, method} = JSON.parse(line);
          if (id === undefined) return;
          const answer = method === 'server/discover'
            ? {result: {resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities: {tools: {}}, ttlMs: 0, cacheScope: 'private'}}
            : {error: {code: -32022, message: 'Unsupported protocol version', data: {supported: ['2026-07-28'], requested: '2025-11-25'}}};
          console.log(JSON.stringify({jsonrpc: '2.0', id, ...answer}));
        })";
    says_why_and_recovers(script("modern-only", code), "UnsupportedProtocol", &["-32022", "without sessions"]).await;
}

#[tokio::test]
async fn a_command_that_is_not_in_the_image_is_named() {
    let mut manifest = script("no-command", "");
    manifest["spec"]["container"]["command"] = json!(["no-such-program"]);
    says_why_and_recovers(manifest, "SpawnFailed", &["no-such-program"]).await;
}

#[tokio::test]
async fn an_http_server_that_ends_is_told_with_its_code_and_last_line() {
    let mut manifest = script("http-exits", "console.error('port is taken'); process.exit(4)");
    manifest["spec"]["container"]["transport"] = "StreamableHTTP".into();
    manifest["spec"]["container"]["port"] = 3001.into();
    says_why_and_recovers(manifest, "ServerExited", &["exited with code 4", "port is taken"]).await;
}

#[tokio::test]
async fn an_unknown_secret_is_named_and_nothing_running_is_torn_down() {
    let cluster = Cluster::connect().await;
    let name = "unknown-secret";
    let mut manifest = server("everything", Place::Container).manifest(TENANT, name);
    cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
    cluster.ready(TENANT, name).await;
    let token = cluster.token(TENANT, "default").await;
    let session = Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session");

    manifest["spec"]["container"]["envFrom"] = json!([{"secretRef": {"name": "absent-credentials"}}]);
    cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
    let refs = cluster.condition(TENANT, name, "ResolvedRefs", "False", "SecretNotFound", PATIENCE).await;
    assert!(refs.message.contains("absent-credentials"), "{}", refs.message);
    cluster.condition(TENANT, name, "Ready", "False", "SecretNotFound", PATIENCE).await;
    cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
    let reply = session.call(1, "echo", json!({"message": "still here"})).await.expect("the session goes on");
    assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: still here");

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent-credentials", "namespace": TENANT}, "stringData": {"TOKEN": "x"}});
    cluster.apply::<Secret>(&secret).await.expect("the Secret is made");
    cluster.ready(TENANT, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
    cluster.delete::<Secret>(TENANT, "absent-credentials").await;
}

#[tokio::test]
async fn a_bad_edit_leaves_the_old_revision_serving() {
    let cluster = Cluster::connect().await;
    let name = "bad-edit";
    cluster.apply::<MCPServer>(&server("everything", Place::Container).manifest(TENANT, name)).await.expect("accepted");
    cluster.ready(TENANT, name).await;
    cluster.apply::<MCPServer>(&script(name, "process.exit(1)")).await.expect("accepted");
    cluster.condition(TENANT, name, "Ready", "False", "ServerExited", PATIENCE).await;
    cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
    let token = cluster.token(TENANT, "default").await;
    let session =
        Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("the old revision serves");
    let reply = session.call(1, "echo", json!({"message": "old"})).await.expect("answers");
    assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: old");
    cluster.delete::<MCPServer>(TENANT, name).await;
}
