//! The protocol's conformance suite against a server by itself, and against the same server behind `portolan dev`: what
//! it passes there it passes here. What may differ is in [`RUNS`].

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use portolan_tests::dev::{Dev, free_port};
use portolan_tests::suite::{self, Findings};
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{mcp, paths};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SERVER: &str = "portolan-everything";

/// Protocol revisions, and how many checks of each the server passes by itself.
const REVISIONS: [(&str, usize); 2] = [("2025-11-25", 83), ("2026-07-28", 197)];

/// How the server is reached through `portolan dev`.
#[derive(Clone, Copy, Debug)]
enum Way {
    Http,
    Stdio,
}

/// One run of the suite behind the gateway.
struct Run {
    revision: &'static str,
    way: Way,
    /// What goes otherwise than by itself, and may.
    unlike: &'static [&'static str],
}

const RUNS: &[Run] = &[
    Run { revision: "2025-11-25", way: Way::Http, unlike: &[] },
    Run { revision: "2025-11-25", way: Way::Stdio, unlike: BRIDGED },
];

/// To a quick call the bridge answers with JSON, so that there is no stream to look at; and it says when to come back not
/// where a stream begins but where it closes one.
const BRIDGED: &[&str] = &[
    "server-sse-multiple-streams server-sse-streams-functional ServerSSEStreamsFunctional: [Success] by itself, [Info] here",
    "server-sse-polling server-sse-retry-field ServerSendsRetryField: [Success] by itself, [Warning] here",
];

#[tokio::test]
async fn by_itself_the_server_passes_every_check() {
    for (revision, passed) in REVISIONS {
        let findings = by_itself(revision).await;
        assert_eq!(findings.faults(), Vec::<String>::new(), "{revision}");
        assert_eq!(findings.passed(), passed, "{revision}");
    }
}

#[tokio::test]
async fn behind_the_gateway_every_check_goes_as_it_does_by_itself() {
    let mut wrong = Vec::new();
    for (revision, _) in REVISIONS {
        let runs: Vec<_> = RUNS.iter().filter(|run| run.revision == revision).collect();
        if runs.is_empty() {
            continue;
        }
        let direct = by_itself(revision).await;
        for run in runs {
            let differences = behind_the_gateway(run).await.unlike(&direct);
            let lines: Vec<_> = differences.iter().map(|difference| &*difference.line).collect();
            if lines != run.unlike {
                let said = differences.iter().map(|difference| format!("\n  {difference}"));
                wrong.push(format!("{revision} over {:?}:{}", run.way, said.collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "not what was to be expected:\n{}", wrong.join("\n"));
}

async fn by_itself(revision: &str) -> Findings {
    let (mut server, url) = start().await;
    let findings = suite::run(revision, &url).await;
    server.kill().await.expect("the server ends");
    findings
}

/// Starts the server on a port of its own and returns its URL.
async fn start() -> (Child, String) {
    let mut server = Command::new(paths::binary(SERVER))
        .args(["--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it listens in time");
    (server, line.expect("stdout can be read").expect("a URL"))
}

async fn behind_the_gateway(run: &Run) -> Findings {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), run.way);
    let mut dev = Dev::start(folder.path());
    let url = ready(&mut dev, folder.path(), run.way).await;
    admit_own_origin(folder.path(), &url).await;
    let findings = suite::run(run.revision, &url).await;
    assert!(dev.end(Signal::SIGTERM).await.success());
    findings
}

/// Writes the server's manifest, over HTTP with a port that is free.
fn write(folder: &Path, way: Way) {
    let mut container = json!({"image": "localhost/portolan-test/conformance:1", "command": [paths::binary(SERVER)]});
    match way {
        Way::Stdio => {
            container["transport"] = "Stdio".into();
            container["args"] = json!(["--stdio"]);
        }
        Way::Http => {
            let port = free_port();
            container["transport"] = "StreamableHTTP".into();
            container["port"] = port.into();
            container["path"] = "/mcp".into();
            container["args"] = json!(["--listen", format!("127.0.0.1:{port}")]);
        }
    }
    write_object(folder, "MCPServer", "everything", &json!({"container": container}));
}

fn write_object(folder: &Path, kind: &str, name: &str, spec: &Value) {
    let object = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec});
    std::fs::write(folder.join(format!("{kind}.yaml")), object.to_string()).expect("written");
}

/// Waits until the server is ready and returns its URL. Someone else may take the server's port before it does.
async fn ready(dev: &mut Dev, folder: &Path, way: Way) -> String {
    for _ in 0..5 {
        let line =
            dev.line("the server is ready", |line| line["ready"] == true || line["reason"] == "ServerExited").await;
        if line["ready"] == true {
            return line["url"].as_str().expect("a URL").to_owned();
        }
        write(folder, way);
    }
    panic!("the server gets no port");
}

/// Lets in pages of the gateway's own origin, as the suite would have it, and waits until that is so.
async fn admit_own_origin(folder: &Path, url: &str) {
    let origin = reqwest::Url::parse(url).expect("a URL").origin().ascii_serialization();
    let spec = json!({"authentication": {"anonymous": {}}, "http": {"allowedOrigins": [origin]}});
    write_object(folder, "MCPGateway", "dev", &spec);
    let client = reqwest::Client::new();
    until("the gateway admits its own origin", PATIENCE, || async {
        let ping = client.post(url).header("origin", &origin).json(&mcp::initialize());
        let ping = ping.header("accept", "application/json, text/event-stream");
        let answer = ping.send().await.map_err(|error| error.to_string())?;
        answer.status().is_success().then_some(()).ok_or_else(|| answer.status().to_string())
    })
    .await;
}
