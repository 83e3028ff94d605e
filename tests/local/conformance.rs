//! The protocol's conformance suite against a server by itself, and against the same server behind `portolan dev` and
//! behind two gateways of which each gets every other request: what it passes there it passes here. What may differ is
//! in [`RUNS`].

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use portolan_tests::api_server::ApiServer;
use portolan_tests::bridge::Bridge;
use portolan_tests::dev::Dev;
use portolan_tests::objects::{Objects, ROUTE};
use portolan_tests::paths;
use portolan_tests::ports::free_port;
use portolan_tests::replica::Replica;
use portolan_tests::round_robin::RoundRobin;
use portolan_tests::suite::{self, Findings};
use portolan_tests::wait::PATIENCE;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SERVER: &str = "portolan-everything";

/// Protocol revisions, and how many checks of each the server passes by itself.
const REVISIONS: [(&str, usize); 2] = [("2025-11-25", 83), ("2026-07-28", 197)];

/// What stands in front of the server's bridge.
#[derive(Clone, Copy, Debug)]
enum Front {
    /// `portolan dev`.
    Dev,
    /// Two gateways, which share what they read and nothing else.
    Replicas,
}

/// How the bridge reaches the server.
#[derive(Clone, Copy, Debug)]
enum Way {
    Http,
    Stdio,
}

/// One run of the suite behind the gateway.
struct Run {
    revision: &'static str,
    front: Front,
    way: Way,
    /// The one era that the server speaks there, as its option says it.
    era: &'static str,
    /// What goes otherwise than by itself, and may.
    unlike: &'static [&'static str],
    /// Beginnings of scenarios that are not compared.
    leaves: &'static [&'static str],
}

/// Every revision over every transport, in front of a server of both eras, and of the other one only.
const RUNS: &[Run] = &[
    Run { revision: "2025-11-25", front: Front::Dev, way: Way::Http, era: "both", unlike: &[], leaves: &[] },
    Run { revision: "2025-11-25", front: Front::Dev, way: Way::Stdio, era: "both", unlike: BRIDGED, leaves: &[] },
    Run { revision: "2025-11-25", front: Front::Dev, way: Way::Http, era: "modern", unlike: BRIDGED, leaves: &[] },
    Run { revision: "2025-11-25", front: Front::Dev, way: Way::Stdio, era: "modern", unlike: BRIDGED, leaves: &[] },
    Run { revision: "2026-07-28", front: Front::Dev, way: Way::Http, era: "both", unlike: &[], leaves: &[] },
    Run { revision: "2026-07-28", front: Front::Dev, way: Way::Stdio, era: "both", unlike: BRIDGED, leaves: &[] },
    Run { revision: "2026-07-28", front: Front::Dev, way: Way::Http, era: "legacy", unlike: TRANSLATED, leaves: TASKS },
    Run {
        revision: "2026-07-28",
        front: Front::Dev,
        way: Way::Stdio,
        era: "legacy",
        unlike: TRANSLATED,
        leaves: TASKS,
    },
    Run { revision: "2025-11-25", front: Front::Replicas, way: Way::Http, era: "both", unlike: &[], leaves: &[] },
    Run { revision: "2025-11-25", front: Front::Replicas, way: Way::Stdio, era: "both", unlike: BRIDGED, leaves: &[] },
    Run { revision: "2026-07-28", front: Front::Replicas, way: Way::Http, era: "both", unlike: &[], leaves: &[] },
    Run { revision: "2026-07-28", front: Front::Replicas, way: Way::Stdio, era: "both", unlike: BRIDGED, leaves: &[] },
];

/// To a quick call the bridge answers with JSON, so that there is no stream to look at.
const BRIDGED: &[&str] = &[
    "server-sse-multiple-streams server-sse-streams-functional ServerSSEStreamsFunctional: [Success] by itself, [Info] here",
];

/// A server of sessions asks one thing after the other, and gives its questions no names that the suite could know.
const TRANSLATED: &[&str] = &[
    "input-required-result-basic-elicitation sep-2322-elicitation-complete InputRequiredResultElicitationComplete: [Success] by itself, [] here",
    "input-required-result-basic-elicitation sep-2322-elicitation-incomplete InputRequiredResultElicitationIncomplete: [Success] by itself, [Failure] here",
    "input-required-result-ignore-extra-params sep-2322-ignore-unexpected-params IgnoreUnexpectedParams: [Success] by itself, [Warning] here",
    "input-required-result-multiple-input-requests sep-2322-multiple-inputs-complete InputRequiredResultMultipleInputsComplete: [Success] by itself, [] here",
    "input-required-result-multiple-input-requests sep-2322-multiple-inputs-incomplete InputRequiredResultMultipleInputsIncomplete: [Success] by itself, [Failure] here",
    "server-sse-multiple-streams server-sse-streams-functional ServerSSEStreamsFunctional: [Success] by itself, [Info] here",
];

/// Tasks of the two eras have nothing in common: behind a server of sessions there are none of the later ones.
const TASKS: &[&str] = &["tasks-"];

#[tokio::test]
async fn by_itself_the_server_passes_every_check() {
    for (revision, passed) in REVISIONS {
        let findings = by_itself(revision).await;
        assert_eq!(findings.faults(), [], "{revision}");
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
            let findings = match run.front {
                Front::Dev => behind_dev(run).await,
                Front::Replicas => behind_replicas(run).await,
            };
            let differences = findings.unlike(&direct);
            let is_compared = |line: &str| !run.leaves.iter().any(|leaves| line.starts_with(leaves));
            let differences: Vec<_> =
                differences.into_iter().filter(|difference| is_compared(&difference.line)).collect();
            let lines: Vec<_> = differences.iter().map(|difference| &*difference.line).collect();
            if lines != run.unlike {
                let said = differences.iter().map(|difference| format!("\n  {difference}"));
                let (front, way, era) = (run.front, run.way, run.era);
                let said: String = said.collect();
                wrong.push(format!("{revision} behind {front:?} over {way:?}, server of {era}:{said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not what was to be expected:\n{}", wrong.join("\n"));
}

async fn by_itself(revision: &str) -> Findings {
    let (mut server, url) = start("both").await;
    let findings = suite::run(revision, &url).await;
    server.kill().await.expect("the server ends");
    findings
}

/// Starts the server of an era on a port of its own and returns its URL.
async fn start(era: &str) -> (Child, String) {
    let mut server = Command::new(paths::binary(SERVER))
        .args(["--listen", "127.0.0.1:0", "--era", era])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it listens in time");
    (server, line.expect("stdout can be read").expect("a URL"))
}

async fn behind_replicas(run: &Run) -> Findings {
    let portolan_bridge = paths::binary("portolan-bridge");
    let (_server, bridge) = match run.way {
        Way::Stdio => {
            let command = paths::binary(SERVER);
            let behind = ["--", command.to_str().expect("text"), "--stdio", "--era", run.era];
            (None, Bridge::start(&portolan_bridge, "stdio", &behind).await)
        }
        Way::Http => {
            let (server, url) = start(run.era).await;
            (Some(server), Bridge::start(&portolan_bridge, "http", &["--upstream", &url]).await)
        }
    };
    let mut objects = Objects::new(&[&bridge]);
    objects.gateway = json!({"authentication": {"anonymous": {}}});
    let api = ApiServer::start(objects.inputs()).await;
    let portolan = paths::binary("portolan");
    let mut replicas = [Replica::start(&portolan, api.address).await, Replica::start(&portolan, api.address).await];
    let front = RoundRobin::start(&replicas.each_ref().map(|replica| replica.address)).await;
    let findings = suite::run(run.revision, &format!("http://{}{ROUTE}", front.address)).await;
    for replica in &mut replicas {
        replica.assert_well().await;
    }
    let forwarded = front.forwarded();
    assert!(forwarded[0].abs_diff(forwarded[1]) <= 1 && forwarded[0] > 0, "each got its half: {forwarded:?}");
    findings
}

async fn behind_dev(run: &Run) -> Findings {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), run);
    let mut dev = Dev::start(folder.path());
    let url = ready(&mut dev, folder.path(), run).await;
    let findings = suite::run(run.revision, &url).await;
    assert!(dev.end(Signal::SIGTERM).await.success());
    findings
}

/// Writes the server's manifest, over HTTP with a port that is free.
fn write(folder: &Path, run: &Run) {
    let mut container = json!({"image": "localhost/portolan-test/conformance:1", "command": [paths::binary(SERVER)]});
    match run.way {
        Way::Stdio => {
            container["transport"] = "Stdio".into();
            container["args"] = json!(["--stdio", "--era", run.era]);
        }
        Way::Http => {
            let port = free_port();
            container["transport"] = "StreamableHTTP".into();
            container["port"] = port.into();
            container["path"] = "/mcp".into();
            container["args"] = json!(["--listen", format!("127.0.0.1:{port}"), "--era", run.era]);
        }
    }
    write_object(folder, "MCPServer", "everything", &json!({"container": container}));
    write_object(folder, "MCPGateway", "dev", &json!({"authentication": {"anonymous": {}}}));
}

fn write_object(folder: &Path, kind: &str, name: &str, spec: &Value) {
    let object = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec});
    std::fs::write(folder.join(format!("{kind}.yaml")), object.to_string()).expect("written");
}

/// Waits until the server is ready and returns its URL. Someone else may take the server's port before it does.
async fn ready(dev: &mut Dev, folder: &Path, run: &Run) -> String {
    for _ in 0..5 {
        let line =
            dev.line("the server is ready", |line| line["ready"] == true || line["reason"] == "ServerExited").await;
        if line["ready"] == true {
            return line["url"].as_str().expect("a URL").to_owned();
        }
        write(folder, run);
    }
    panic!("the server gets no port");
}
