//! Scenes between the Python SDK's client and server-everything, both unmodified, through `portolan dev`: the server asks
//! its client, logs to it and tells how far it is, over stdio, streamable HTTP and SSE.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;

use nix::sys::signal::Signal;
use portolan_tests::dev::{Dev, free_port};
use portolan_tests::thirdparty::{Place, scenario, server};
use serde_json::{Value, json};

/// The ways in which server-everything is reached.
const SERVERS: [&str; 3] = ["everything", "everything-http", "everything-sse"];

/// Plays a scene against each of [`SERVERS`] and hands what came to `check`.
async fn plays(name: &str, options: &[&str], check: impl Fn(&Value)) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in SERVERS {
        write(folder.path(), name, free_port());
    }
    let mut dev = Dev::start(folder.path());
    let (mut urls, mut ports_left) = (Vec::new(), 5);
    // Lines come as servers get ready, in an order of their own.
    while urls.len() < SERVERS.len() {
        let line = dev.line("every server is ready", |line| is_through(line) && !urls.contains(&line["url"])).await;
        if line["ready"] == true {
            urls.push(line["url"].clone());
        } else {
            // Someone else took its port before it did.
            assert!(ports_left > 0, "it gets no port: {line}");
            ports_left -= 1;
            write(folder.path(), line["name"].as_str().expect("a name"), free_port());
        }
    }
    for url in urls {
        let url = url.as_str().expect("a URL");
        let played = scenario(name, url, options).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(played["protocolVersion"], "2025-11-25", "{url}: {played}");
        assert_ne!(played["isError"], true, "{url}: {played}");
        check(&played);
    }
    assert!(dev.end(Signal::SIGTERM).await.success());
}

/// Writes a server's manifest. Scenes play at the same time, and a server over HTTP takes a port of this machine.
fn write(folder: &Path, name: &str, port: u16) {
    let mut server = server(name, Place::Local("/tmp"));
    if server.port.is_some() {
        server.port = Some(port);
        server.env.insert("PORT".into(), port.to_string());
    }
    let manifest = server.manifest("default", name);
    std::fs::write(folder.join(format!("{name}.yaml")), manifest.to_string()).expect("written");
}

/// Whether a server got ready, or did not start.
fn is_through(line: &Value) -> bool {
    line["ready"] == true || ["SpawnFailed", "ServerExited"].iter().any(|reason| line["reason"] == *reason)
}

fn text(played: &Value) -> &str {
    played["text"].as_str().expect("text")
}

#[tokio::test]
async fn a_server_asks_its_client_for_a_completion() {
    plays("sampling", &[], |played| {
        assert!(text(played).contains("The tide turns at six."), "{played}");
        let asked = played["asked"].as_array().expect("a list");
        assert_eq!(asked.len(), 1, "{played}");
        assert_eq!(asked[0]["maxTokens"], 20);
        assert!(
            asked[0]["prompt"].as_str().is_some_and(|prompt| prompt.contains("When does the tide turn?")),
            "{played}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_asks_its_clients_user_for_input() {
    plays("elicitation", &[], |played| {
        assert!(text(played).contains("Name: Harbour Master"), "{played}");
        let asked = played["asked"].as_array().expect("a list");
        assert_eq!(asked.len(), 1, "{played}");
        assert!(asked[0]["fields"].as_array().is_some_and(|fields| fields.contains(&json!("email"))), "{played}");
    })
    .await;
}

#[tokio::test]
async fn a_server_asks_for_roots_outside_of_any_call() {
    plays("roots", &[], |played| {
        assert!(text(played).contains("file:///harbour/pier"), "{played}");
        assert_eq!(played["requests"], 1, "{played}");
    })
    .await;
}

#[tokio::test]
async fn a_server_logs_to_its_client_outside_of_any_call() {
    plays("logging", &[], |played| {
        assert!(played["messages"].as_array().is_some_and(|messages| !messages.is_empty()), "{played}");
    })
    .await;
}

#[tokio::test]
async fn a_call_tells_its_client_how_far_it_is() {
    plays("progress", &["--count", "3", "--seconds", "0.3"], |played| {
        assert_eq!(played["steps"], json!([[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]]), "{played}");
    })
    .await;
}

#[tokio::test]
async fn sessions_live_side_by_side() {
    plays("sessions", &["--count", "8"], |played| assert_eq!(played["ok"], 8, "{played}")).await;
}
