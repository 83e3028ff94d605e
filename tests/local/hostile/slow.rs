//! Clients that take their time: Debian's `slowhttptest`.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;
use tokio::process::Command;

use crate::stand::{HOSTILE, KIB, Stand};

/// Connections of one attack.
const CONNECTIONS: u64 = 5000;
/// The same of calls: fewer than one server has places for requests (200), so that whoever else calls it is not told to
/// come back.
const CALLS: u64 = 150;
/// How long an attack may go on, in seconds: longer than any bound on what it does, of which 15 s for a body is the
/// longest.
const SECONDS: &str = "40";
/// Longest head of a request.
const HEAD: u64 = 32 * KIB;
/// What a gateway has read of an answer and not written yet: what is queued for the client, a part behind that, and the next
/// one, which is read meanwhile.
const ON_ITS_WAY: u64 = 64 * KIB + 32 * KIB + 32 * KIB;
/// What a connection takes by itself: its task, and what hyper keeps of it.
const TASK: u64 = 32 * KIB;

/// The tool, with what all of its attacks have in common.
fn slowhttptest(mode: &str, connections: u64, seconds: &str, url: &str) -> Command {
    let connections = connections.to_string();
    let mut command = Command::new("slowhttptest");
    command
        .args([mode, "-c", &connections, "-r", &connections, "-l", seconds, "-p", "10", "-u", url])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end, which comes when every connection was closed by the server.
async fn is_closed(mut attack: Command) {
    let output = tokio::time::timeout(PATIENCE, attack.output()).await.expect("it ends in time").expect("it starts");
    let said = plain(&String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("No open connections left"), "the server has not closed them: {said}");
    // It asks now and then whether others are still answered.
    let answers: Vec<_> =
        said.lines().filter_map(|line| line.strip_prefix("service available:")).map(str::trim).collect();
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == "YES"), "{said}");
}

/// What a terminal would show, without its colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[tokio::test]
async fn heads_that_never_end_are_closed_in_time() {
    let stand = Stand::start().await;
    let mut attack = slowhttptest("-H", CONNECTIONS, SECONDS, &stand.url("/default/everything/mcp"));
    attack.args(["-i", "1", "-x", "16"]);
    stand.during(CONNECTIONS * (HEAD + TASK), is_closed(attack)).await;
    assert_eq!(stand.hits("HeadTimeout").await, CONNECTIONS as f64);
    stand.end().await;
}

#[tokio::test]
async fn bodies_that_never_end_are_closed_in_time() {
    const BODY: u64 = 64 * KIB;
    let stand = Stand::start().await;
    let mut attack = slowhttptest("-B", CONNECTIONS, SECONDS, &stand.url("/default/everything/mcp"));
    // Without a key it would be told so before its body is read.
    let key = format!("a=b\r\nAuthorization: Bearer {HOSTILE}");
    attack.args(["-i", "1", "-x", "16", "-s", &BODY.to_string(), "-j", &key]);
    attack.args(["-f", "application/json", "-m", "application/json, text/event-stream"]);
    stand.during(CONNECTIONS * (HEAD + BODY + TASK), is_closed(attack)).await;
    assert_eq!(stand.hits("BodyTimeout").await, CONNECTIONS as f64);
    stand.end().await;
}

#[tokio::test]
async fn heads_of_a_thousand_ranges_are_refused() {
    let stand = Stand::start().await;
    let mut attack = slowhttptest("-R", CONNECTIONS, SECONDS, &stand.url("/default/everything/mcp"));
    attack.args(["-a", "1", "-b", "1000"]);
    stand.during(CONNECTIONS * (HEAD + TASK), is_closed(attack)).await;
    let refused = stand.dev.metrics().await.requests(&[r#"outcome="Unauthenticated""#]);
    assert!(refused >= CONNECTIONS as f64, "{refused} were refused");
    stand.end().await;
}

/// Reads so little that the kernel of the reader never opens its window again.
#[tokio::test]
async fn answers_that_are_hardly_read_end_their_connections() {
    /// One answer: the server says what it read twice, as text and as structured content.
    const ANSWER: u64 = 512 * KIB;
    const PATH: &str = "/default/filesystem/mcp";
    let stand = Stand::start().await;
    let file = stand.scratch.path().join("big.txt");
    std::fs::write(&file, "x".repeat(ANSWER as usize / 2)).expect("written");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "read_text_file", "arguments": {"path": file},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}}}})
    .to_string();
    // The tool sends GET and nothing else. What it takes for a cookie ends that request and is a second one.
    let call = format!(
        "a=b\r\n\r\nPOST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {HOSTILE}\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: read_text_file\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(call.len() < 1023, "the tool takes no longer cookie");
    let mut attack = slowhttptest("-X", CALLS, "600", &stand.url("/nowhere"));
    attack.args(["-w", "10", "-y", "20", "-n", "5", "-z", "32", "-j", &call]).stdout(Stdio::null());
    let attack = async {
        let mut attack = attack.spawn().expect("it starts");
        until("every call is under way", PATIENCE, || async {
            let calls = stand.dev.metrics().await.connections();
            if calls >= CALLS as f64 { Ok(()) } else { Err(format!("{calls} connections")) }
        })
        .await;
        // A minute after the last byte that the reader's kernel took.
        let kept = AtomicU64::new(0);
        until("every connection was given up", 2 * PATIENCE, || async {
            let metrics = stand.dev.metrics().await;
            kept.fetch_max(metrics.value("portolan_gateway_buffered_bytes") as u64, Ordering::Relaxed);
            let hits = metrics.hits("Unread");
            if hits >= CALLS as f64 { Ok(()) } else { Err(format!("{hits} of {CALLS}")) }
        })
        .await;
        // Nobody told the tool: what gives up on a shut window says nothing.
        assert!(attack.try_wait().expect("its state is known").is_none(), "the tool has ended");
        attack.kill().await.expect("it ends");
        kept.into_inner()
    };
    // The bridge has every answer whole before it hands it on.
    let kept = stand.during(CALLS * (HEAD + ANSWER + ON_ITS_WAY + TASK), attack).await;
    assert!(kept > 0, "nothing waited for its reader");
    assert!(kept <= CALLS * ON_ITS_WAY, "the gateway kept {kept} bytes for who does not read");
    stand.end().await;
}
