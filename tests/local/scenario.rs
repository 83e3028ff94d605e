//! Third-party servers and clients, unmodified, through `portolan dev`: each server at its own endpoint and all of them at
//! `/mcp`, in both eras. Scenes between the Python SDK's client and server-everything, over stdio, streamable HTTP and SSE,
//! in which the server asks its client, logs to it and tells how far it is; and every client with every server as one.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;

use futures::stream::{self, StreamExt};
use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::ports::free_port;
use portolan_tests::thirdparty::{
    Place, Server, assert_calls, client, in_each_era, prefix_of_all, scenario, server, servers, url_of_all,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The ways in which server-everything is reached.
const EVERYTHING: [&str; 3] = ["everything", "everything-http", "everything-sse"];

/// What `--era` takes, with the revision that is spoken then.
const ERAS: [(&str, &str); 2] = [("legacy", "2025-11-25"), ("modern", "2026-07-28")];

/// Servers behind one `portolan dev`.
struct Serving {
    dev: Dev,
    servers: Vec<(Server, String)>,
    _folder: TempDir,
}

impl Serving {
    /// Starts them, and waits until each is ready.
    async fn start(servers: Vec<Server>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for server in &servers {
            write(folder.path(), server, free_port());
        }
        let mut dev = Dev::start(folder.path());
        let (mut ready, mut ports_left): (Vec<(Server, String)>, _) = (Vec::new(), 5);
        // Lines come as servers get ready, in an order of their own.
        while ready.len() < servers.len() {
            let is_new = |line: &Value| !ready.iter().any(|(server, _)| line["name"] == server.name.as_str());
            let line = dev.line("every server is ready", |line| is_through(line) && is_new(line)).await;
            let server = servers.iter().find(|server| line["name"] == server.name.as_str()).expect("one of them");
            if line["ready"] == true {
                ready.push((server.clone(), line["url"].as_str().expect("a URL").to_owned()));
            } else {
                // Someone else took its port before it did.
                assert!(ports_left > 0, "it gets no port: {line}");
                ports_left -= 1;
                write(folder.path(), server, free_port());
            }
        }
        Self { dev, servers: ready, _folder: folder }
    }

    /// The endpoint of all of them.
    fn all(&self) -> String {
        let (server, url) = &self.servers[0];
        url_of_all(url, &server.name)
    }

    async fn end(self) {
        assert!(self.dev.end(Signal::SIGTERM).await.success());
    }
}

async fn everything() -> Serving {
    Serving::start(EVERYTHING.map(|name| server(name, Place::Local("/tmp"))).into()).await
}

async fn play(name: &str, url: &str, options: &[&str], revision: &str, check: impl Fn(&Value)) {
    let what = format!("{name} at {url} with {options:?}");
    let played = scenario(name, url, options).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(played["protocolVersion"], revision, "{what}: {played}");
    assert_ne!(played["isError"], true, "{what}: {played}");
    check(&played);
}

/// Plays a scene against each of [`EVERYTHING`], at its own endpoint and at that of all, in both eras, and hands what came
/// to `check`.
async fn plays(name: &str, options: &[&str], check: impl Fn(&Value)) {
    let serving = everything().await;
    let all = serving.all();
    for (server, url) in &serving.servers {
        let prefix = prefix_of_all(&server.name);
        for (era, revision) in ERAS {
            let own: Vec<&str> = options.iter().copied().chain(["--era", era]).collect();
            play(name, url, &own, revision, &check).await;
            let of_all: Vec<&str> = own.iter().copied().chain(["--prefix", &prefix]).collect();
            play(name, &all, &of_all, revision, &check).await;
        }
    }
    serving.end().await;
}

/// The same of a scene outside of any call, which has its place in a session with the server alone.
async fn plays_in_its_own_session(name: &str, check: impl Fn(&Value)) {
    let serving = everything().await;
    for (_, url) in &serving.servers {
        play(name, url, &[], "2025-11-25", &check).await;
    }
    serving.end().await;
}

/// Writes a server's manifest. Scenes play at the same time, and a server over HTTP takes a port of this machine.
fn write(folder: &Path, server: &Server, port: u16) {
    let mut server = server.clone();
    if server.port.is_some() {
        server.port = Some(port);
        server.env.insert("PORT".into(), port.to_string());
    }
    let manifest = server.manifest("default", &server.name);
    std::fs::write(folder.join(format!("{}.yaml", server.name)), manifest.to_string()).expect("written");
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
    plays_in_its_own_session("roots", |played| {
        assert!(text(played).contains("file:///harbour/pier"), "{played}");
        assert_eq!(played["requests"], 1, "{played}");
    })
    .await;
}

#[tokio::test]
async fn a_server_logs_to_its_client_outside_of_any_call() {
    plays_in_its_own_session("logging", |played| {
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

#[tokio::test]
async fn every_client_lists_all_servers_as_one_and_calls_each_of_them() {
    let scratch = tempfile::tempdir().expect("a folder");
    let scratch = scratch.path().display().to_string();
    let serving = Serving::start(servers(Place::Local(&scratch))).await;
    let all = serving.all();
    let shown = |(server, _): &(Server, String)| {
        let prefix = prefix_of_all(&server.name);
        // What a server shows to some clients only is in no list for everyone.
        server.tools.iter().map(|tool| format!("{prefix}{tool}")).collect::<Vec<_>>()
    };
    let mut tools: Vec<String> = serving.servers.iter().flat_map(shown).collect();
    tools.sort();
    for by in in_each_era() {
        let listed = client(by, &all, None, &["list-tools"]).await.expect("the client lists tools");
        assert_eq!(listed["tools"], json!(tools), "{by}");
        let calls = serving.servers.iter().map(async |(server, _)| {
            assert_calls(server, by, &all, None, &prefix_of_all(&server.name)).await;
        });
        stream::iter(calls).buffer_unordered(2).collect::<()>().await;
    }
    serving.end().await;
}
