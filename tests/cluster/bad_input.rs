//! Servers that cannot work: each says why by a reason of its own, gets no traffic, and recovers by itself.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::images::Image;
use portolan_tests::mcp::{self, Session};
use portolan_tests::puppet;
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::PATIENCE;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Never answers.
const SILENT: &str = "process.stdin.resume()";
/// Answers what is no MCP.
const GARBAGE: &str = "process.stdin.on('data', () => console.log('Welcome to the shell!'))";
/// Knows a revision that nobody speaks yet, and no other.
const LATER_ONLY: &str = r"
        require('readline').createInterface({input: process.stdin}).on('line', line => {
          const {id} = JSON.parse(line);
          if (id === undefined) return;
          const data = {supported: ['2031-01-01'], requested: '2026-07-28'};
          const error = {code: -32022, message: 'Unsupported protocol version', data};
          console.log(JSON.stringify({jsonrpc: '2.0', id, error}));
        })";

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
    deleting(&cluster, &[name.as_str()], async {
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");

        let ready = cluster.condition(TENANT, &name, "Ready", "False", reason, PATIENCE).await;
        for word in words {
            assert!(ready.message.contains(word), "{reason} says {word:?}: {}", ready.message);
        }
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, &name).await;
        let refused =
            mcp::post(&mcp::http(), &url, Some(&token), &mcp::initialize()).await.expect("the gateway answers");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));

        cluster
            .apply::<MCPServer>(&server("everything", Place::Container).manifest(TENANT, &name))
            .await
            .expect("the repair is accepted");
        cluster.ready(TENANT, &name).await;
        Session::open(&url, Some(&token)).await.expect("the mended server is served");
    })
    .await;
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
    says_why_and_recovers(
        script("exits-at-once", code),
        "ServerExited",
        &["exited with code 3", "no database at db:5432"],
    )
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_a_handshake_timeout() {
    says_why_and_recovers(script("never-answers", SILENT), "HandshakeTimeout", &["initialize"]).await;
}

#[tokio::test]
async fn a_server_that_prints_garbage_is_not_mcp() {
    says_why_and_recovers(script("prints-garbage", GARBAGE), "NotMCP", &["Welcome to the shell!"]).await;
}

#[tokio::test]
async fn a_server_that_speaks_no_revision_that_is_served_is_an_unsupported_protocol() {
    let words = ["-32022", "Unsupported protocol version"];
    says_why_and_recovers(script("later-only", LATER_ONLY), "UnsupportedProtocol", &words).await;
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
    let body = async {
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
    };
    let secret = cluster.delete::<Secret>(TENANT, "absent-credentials");
    deleting(&cluster, &[name], finally(body, secret)).await;
}

#[tokio::test]
async fn a_bad_edit_leaves_the_old_revision_serving() {
    let cluster = Cluster::connect().await;
    let name = "bad-edit";
    deleting(&cluster, &[name], async {
        cluster
            .apply::<MCPServer>(&server("everything", Place::Container).manifest(TENANT, name))
            .await
            .expect("accepted");
        cluster.ready(TENANT, name).await;
        cluster.apply::<MCPServer>(&script(name, "process.exit(1)")).await.expect("accepted");
        cluster.condition(TENANT, name, "Ready", "False", "ServerExited", PATIENCE).await;
        cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
        let token = cluster.token(TENANT, "default").await;
        let session = Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token))
            .await
            .expect("the old revision serves");
        let reply = session.call(1, "echo", json!({"message": "old"})).await.expect("answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "Echo: old");
    })
    .await;
}

/// Waits until a server is Ready, by the revision that was not, and of the spec that it had.
async fn recovers_by_itself(cluster: &Cluster, name: &str, generation: Option<i64>) {
    cluster.ready(TENANT, name).await;
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there");
    assert_eq!(server.metadata.generation, generation, "nobody edited it");
    let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
    assert_eq!(revisions.len(), 1, "{revisions:?}");
    let token = cluster.token(TENANT, "default").await;
    Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("it is served");
}

/// A server that does as `broken` says until what it needs is there, and then works: `reason` is told, and nobody edits it.
async fn works_once_it_can(name: &str, broken: &str, reason: &str, words: &str) {
    let cluster = Cluster::connect().await;
    deleting(&cluster, &[name], async {
        let mut manifest = puppet::stdio(TENANT, name);
        let code = manifest["spec"]["container"]["command"][2].as_str().expect("code").to_owned();
        let code = format!("if (!require('fs').existsSync('/tmp/database')) {{ {broken} }} else {{ {code} }}");
        manifest["spec"]["container"]["command"][2] = code.into();
        let server = cluster.apply::<MCPServer>(&manifest).await.expect("accepted");
        let ready = cluster.condition(TENANT, name, "Ready", "False", reason, PATIENCE).await;
        assert!(ready.message.contains(words), "{}", ready.message);

        let pod = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await.remove(0).name_any();
        let mend = "require('fs').writeFileSync('/tmp/database', '')";
        kubectl(&["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", mend])
            .await
            .expect("what it needs is there");
        recovers_by_itself(&cluster, name, server.metadata.generation).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_no_longer_exits_is_served_without_an_edit() {
    works_once_it_can("exits-at-first", "process.exit(5)", "ServerExited", "exited with code 5").await;
}

#[tokio::test]
async fn a_server_that_answers_initialize_at_last_is_served_without_an_edit() {
    works_once_it_can("silent-at-first", SILENT, "HandshakeTimeout", "initialize").await;
}

#[tokio::test]
async fn a_server_that_no_longer_prints_garbage_is_served_without_an_edit() {
    works_once_it_can("garbage-at-first", GARBAGE, "NotMCP", "Welcome to the shell!").await;
}

#[tokio::test]
async fn a_server_that_speaks_a_revision_that_is_served_at_last_is_served_without_an_edit() {
    works_once_it_can("later-at-first", LATER_ONLY, "UnsupportedProtocol", "-32022").await;
}

#[tokio::test]
async fn an_image_that_comes_late_is_served_without_an_edit() {
    let cluster = Cluster::connect().await;
    let name = "image-late";
    let image = Image::of_demo("late");
    let body = async {
        let server = cluster.apply::<MCPServer>(&image.manifest(TENANT, name)).await.expect("accepted");
        let ready = cluster.condition(TENANT, name, "Ready", "False", "ImagePullFailed", PATIENCE).await;
        assert!(ready.message.contains(&image.name), "{}", ready.message);

        image.load().await;
        recovers_by_itself(&cluster, name, server.metadata.generation).await;
    };
    // The image goes after the pods that run it.
    finally(deleting(&cluster, &[name], body), image.remove()).await;
}
