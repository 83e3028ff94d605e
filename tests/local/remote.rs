//! Third-party servers that run by themselves, reached by URL through `portolan dev`, called by third-party clients in both
//! eras.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use portolan_tests::authority::Authority;
use portolan_tests::dev::Dev;
use portolan_tests::mcp::Session;
use portolan_tests::paths;
use portolan_tests::ports::free_port;
use portolan_tests::thirdparty::{
    Place, assert_calls, assert_serves, client, in_each_era, prefix_of_all, server, url_of_all,
};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// The server's name.
const ELSEWHERE: &str = "elsewhere";

/// Starts a program of the third-party servers and waits until it listens on `port`. It ends with what is returned.
async fn start(program: &Path, args: &[&str], env: &[(&str, &str)], port: u16) -> Child {
    let path =
        format!("{}:{}", paths::repo("target/thirdparty/bin").display(), std::env::var("PATH").unwrap_or_default());
    let child = Command::new(program)
        .args(args)
        .env("PATH", path)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    until(&format!("{} listens", program.display()), PATIENCE, || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    child
}

/// server-everything by itself, and its port.
async fn everything(mode: &str) -> (Child, u16) {
    let port = free_port();
    let program = paths::repo("target/thirdparty/bin/mcp-server-everything");
    (start(&program, &[mode], &[("PORT", &port.to_string())], port).await, port)
}

fn write(folder: &Path, objects: &[Value]) {
    for (index, object) in objects.iter().enumerate() {
        std::fs::write(folder.join(format!("{index}.yaml")), object.to_string()).expect("written");
    }
}

fn remote(remote: &Value) -> Value {
    json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": ELSEWHERE},
        "spec": {"remote": remote}})
}

/// Serves `objects` by `portolan dev` and lets every client use what is known of the server `name`, at its own endpoint and
/// at that of all.
async fn every_client_uses(name: &str, objects: &[Value]) {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), objects);
    let mut dev = Dev::start(folder.path());
    let url = dev.ready(ELSEWHERE).await;
    let server = server(name, Place::Local("/tmp"));
    for client in in_each_era() {
        assert_serves(&server, client, &url, None).await;
        assert_calls(&server, client, &url_of_all(&url, ELSEWHERE), None, &prefix_of_all(ELSEWHERE)).await;
    }
    assert!(dev.end(Signal::SIGTERM).await.success());
}

#[tokio::test]
async fn every_client_uses_a_streamable_http_server_elsewhere() {
    let (_everything, port) = everything("streamableHttp").await;
    let url = format!("http://127.0.0.1:{port}/mcp");
    every_client_uses("everything-http", &[remote(&json!({"url": url}))]).await;
}

#[tokio::test]
async fn every_client_uses_an_sse_server_elsewhere() {
    let (_everything, port) = everything("sse").await;
    let url = format!("http://localhost:{port}/sse");
    every_client_uses("everything-sse", &[remote(&json!({"url": url, "transport": "SSE"}))]).await;
}

#[tokio::test]
async fn every_client_uses_servers_behind_tls_of_a_private_authority_that_want_a_certificate_and_a_credential() {
    let authority = Authority::new();
    let (front, relay) = (authority.sign("localhost"), authority.sign("relay"));
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("ca.crt", &authority.pem), ("tls.crt", &front.certificate), ("tls.key", &front.key)] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let folder = folder.path().display().to_string();
    for (mode, name, path, transport) in
        [("streamableHttp", "everything-http", "/mcp", "StreamableHTTP"), ("sse", "everything-sse", "/sse", "SSE")]
    {
        let (_everything, to) = everything(mode).await;
        let port = free_port();
        let fronts = json!([{"port": port, "to": to, "clients": true, "header": "x-api-key", "value": "open sesame"}])
            .to_string();
        let script = paths::repo("tests/elsewhere/front.js").display().to_string();
        let node = paths::repo("target/thirdparty/bin/node");
        let _front = start(&node, &[&script], &[("DIR", &folder), ("FRONTS", &fronts)], port).await;
        let objects = [
            remote(&json!({
                "url": format!("https://localhost:{port}{path}"),
                "transport": transport,
                "tls": {"caCertificateRef": {"configMapKeyRef": {"name": "trust", "key": "ca.crt"}},
                    "clientCertificateRef": {"name": "relay"}},
                "backendAuth": {"type": "Header",
                    "header": {"name": "X-API-Key", "secretKeyRef": {"name": "key", "key": "value"}}},
            })),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "trust"},
                "data": {"ca.crt": authority.pem}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "relay"}, "type": "kubernetes.io/tls",
                "stringData": {"tls.crt": relay.certificate, "tls.key": relay.key}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
                "stringData": {"value": "open sesame\n"}}),
        ];
        every_client_uses(name, &objects).await;
    }
}

#[tokio::test]
async fn every_client_uses_a_fastmcp_server_elsewhere() {
    let (port, script) = (free_port(), paths::repo("tests/elsewhere/fast.py"));
    let python = paths::repo("target/thirdparty/python/clients/bin/python");
    let script = script.display().to_string();
    let _fast = start(&python, &[&script, &port.to_string()], &[], port).await;
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &[remote(&json!({"url": format!("http://127.0.0.1:{port}/mcp")}))]);
    let mut dev = Dev::start(folder.path());
    let url = dev.ready(ELSEWHERE).await;
    for by in in_each_era() {
        for (url, prefix) in [(url.clone(), String::new()), (url_of_all(&url, ELSEWHERE), prefix_of_all(ELSEWHERE))] {
            let call = ["call", &format!("{prefix}add"), r#"{"a":2,"b":40}"#];
            let answer = client(by, &url, None, &call).await.expect("answers");
            assert_eq!(
                (&answer["isError"], &answer["text"]),
                (&json!(false), &json!("The sum is 42.")),
                "{by} at {url}"
            );
        }
    }
    assert!(dev.end(Signal::SIGTERM).await.success());
}

#[tokio::test]
async fn what_is_wrong_with_a_remote_is_its_row_and_mending_its_file_serves_it() {
    let (_everything, port) = everything("streamableHttp").await;
    let folder = tempfile::tempdir().expect("a folder");
    let plain = format!("http://127.0.0.1:{port}/mcp");
    let wrong = [
        (json!({"url": plain.replace("http:", "https:")}), "TLSFailed", "does not speak TLS"),
        (json!({"url": "http://169.254.169.254/latest"}), "AddressNotAllowed", "--allow-private-host"),
        (
            json!({"url": plain, "backendAuth": {"type": "Header",
            "header": {"name": "X-Key", "secretKeyRef": {"name": "gone", "key": "a"}}}}),
            "SecretNotFound",
            "default/gone",
        ),
    ];
    let mut dev: Option<Dev> = None;
    for (spec, reason, words) in wrong {
        write(folder.path(), &[remote(&spec)]);
        let dev = dev.get_or_insert_with(|| Dev::start(folder.path()));
        let line = dev.line(reason, |line| line["name"] == ELSEWHERE && line["reason"] == reason).await;
        assert!(line["message"].as_str().is_some_and(|message| message.contains(words)), "{line}");
    }
    let mut dev = dev.expect("started");
    write(folder.path(), &[remote(&json!({"url": plain}))]);
    let url = dev.ready(ELSEWHERE).await;
    let session = Session::open(&url, None).await.expect("a session");
    session.call(1, "echo", json!({"message": "hi"})).await.expect("answers");
    assert!(dev.end(Signal::SIGTERM).await.success());
}
