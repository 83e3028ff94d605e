//! What no client of good will would send: `mcp-fuzzer`, with an API key that is let in.

use std::process::Stdio;
use std::time::Duration;

use portolan_tests::paths;
use serde_json::Value;
use tokio::process::Command;

use crate::stand::{HOSTILE, MIB, Stand};

/// Longest time of one run; each takes some ten seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// What a run may make the process hold. One message has at most 4 MiB, and the tool sends so many at once.
const ALLOWED: u64 = AT_ONCE * 4 * MIB;
/// Calls that the tool has under way.
const AT_ONCE: u64 = 5;
/// The endpoint of one server, and of all.
const ENDPOINTS: [&str; 2] = ["/default/everything/mcp", "/mcp"];

/// Runs the tool against an endpoint and returns its summary.
async fn run(stand: &Stand, endpoint: &str, mode: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().join("reports");
    let mut tool = Command::new(paths::repo("target/thirdparty/bin/mcp-fuzzer"));
    tool.args(["--protocol", "streamablehttp", "--endpoint", &stand.url(endpoint), "--auth-env", "--seed", "7"])
        .args(["--timeout", "2", "--tool-timeout", "1", "--max-concurrency", &AT_ONCE.to_string()])
        .args(["--no-network", "--no-corpus", "--fail-if-no-tools"])
        .args(mode)
        .arg("--output-dir")
        .arg(&reports)
        .arg("--fs-root")
        .arg(folder.path())
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .env("MCP_API_KEY", HOSTILE)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, tool.output()).await.expect("it ends in time").expect("it starts");
    let said = || [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{endpoint} {mode:?}: {} {}", output.status, said());
    let summary = std::fs::read(reports.join("run_summary.json"));
    let summary = summary.unwrap_or_else(|error| panic!("{endpoint} {mode:?}: no summary ({error}): {}", said()));
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!(summary["status"], "completed", "{endpoint} {mode:?}: {summary}");
    summary
}

#[tokio::test]
async fn tools_that_are_called_with_anything_crash_nothing() {
    let stand = Stand::start().await;
    for endpoint in ENDPOINTS {
        let before = calls(&stand).await;
        let mode = ["--mode", "tools", "--phase", "aggressive", "--runs", "5"];
        let summary = stand.during(ALLOWED, run(&stand, endpoint, &mode)).await;
        let tools = summary["tools"]["by_name"].as_object().expect("results by tool");
        assert!(tools.len() >= 13, "every tool of the server: {:?}", tools.keys());
        for (tool, results) in tools {
            assert_eq!(results["total_runs"], 5, "{endpoint} {tool}: {results}");
            assert_eq!(results["outcomes"]["crashed"], 0, "{endpoint} {tool}: {results}");
        }
        // What the tool keeps back, as unsafe, is little.
        let made = calls(&stand).await - before;
        assert!(made >= tools.len() as f64, "{endpoint}: {made} calls have come");
    }
    stand.end().await;
}

#[tokio::test]
async fn messages_of_every_kind_that_are_nearly_right_crash_nothing() {
    let stand = Stand::start().await;
    for endpoint in ENDPOINTS {
        let before = stand.dev.metrics().await.requests(&[]);
        let mode = ["--mode", "protocol", "--protocol-phase", "aggressive", "--runs-per-type", "5"];
        let summary = stand.during(ALLOWED, run(&stand, endpoint, &mode)).await;
        let kinds = summary["protocols"]["by_type"].as_object().expect("results by kind of message");
        assert!(kinds.len() >= 20, "every kind of message: {:?}", kinds.keys());
        let sent: f64 = kinds.values().map(|results| results["total_runs"].as_f64().expect("a number")).sum();
        let come = stand.dev.metrics().await.requests(&[]) - before;
        assert!(come >= sent, "{endpoint}: {come} requests have come, of {sent}");
        // It goes on in its session: what `initialize` is refused gives it no other.
        let lost = stand.dev.metrics().await.requests(&[r#"outcome="UnknownSession""#]);
        assert!(lost < sent / 2.0, "{endpoint}: {lost} requests of {sent} had no session");
    }
    stand.end().await;
}

/// Calls of tools that have ended.
async fn calls(stand: &Stand) -> f64 {
    stand.dev.metrics().await.requests(&[r#"method="tools/call""#])
}
