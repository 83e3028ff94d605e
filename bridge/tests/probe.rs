//! What the kept probe session finds out about a server that changes, and how that is told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use common::{PATIENCE, Rig, python, until};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::sys::signal::Signal;
use portolan_mcp::wire::{self, ProbeReason, ProbeState, ProbeStatus};

/// Checks that come quickly, and two of which must fail.
const FLAGS: [&str; 3] = ["--probe-interval=100ms", "--probe-timeout=100ms", "--unhealthy-threshold=2"];

/// A bridge, and what its server becomes.
struct Moody {
    rig: Rig,
    folder: tempfile::TempDir,
}

impl Moody {
    async fn ready() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mood");
        std::fs::write(&file, "").unwrap();
        let mut command = python("moody");
        command.push(file.display().to_string());
        Self { rig: Rig::ready(&FLAGS, &command).await, folder }
    }

    fn becomes(&self, mood: &str) {
        // In one step: the server reads it at any moment.
        let next = self.folder.path().join("next");
        std::fs::write(&next, mood).unwrap();
        std::fs::rename(next, self.folder.path().join("mood")).unwrap();
    }
}

/// What a probe tells, line by line.
struct Told {
    body: Incoming,
    read: Vec<u8>,
}

impl Told {
    async fn by(rig: &Rig) -> Self {
        let answer = rig.send(Method::GET, rig.admin, wire::PROBE, "", None, &[]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        Self { body: answer.into_body(), read: Vec::new() }
    }

    /// The next line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time")?;
            self.read.extend_from_slice(&frame.expect("whole").into_data().expect("data"));
        }
    }

    /// The next line that says something.
    async fn verdict(&mut self) -> ProbeStatus {
        loop {
            let line = self.line().await.expect("the bridge runs");
            if !line.is_empty() {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_has_lost_its_tools_fails_its_check_until_it_has_tools_again() {
    let moody = Moody::ready().await;
    moody.becomes("forgets");
    let failing = async || moody.rig.status().await.probe.state == ProbeState::Failing;
    until("the loss is a failure", failing).await;
    let probe = moody.rig.status().await.probe;
    assert_eq!(probe.reason, Some(ProbeReason::ToolsListFailed));
    let expected = "answered with no tools, where there were 12 before: ask, die, echo and 9 more";
    assert!(probe.message.contains(expected), "{}", probe.message);
    assert_eq!(moody.rig.admin_get(wire::READYZ).await, StatusCode::SERVICE_UNAVAILABLE);
    moody.becomes("");
    moody.rig.until_ready().await;
}

#[tokio::test]
async fn what_a_probe_finds_is_told_when_it_changes_and_an_empty_line_says_that_nothing_did() {
    let moody = Moody::ready().await;
    let mut told = Told::by(&moody.rig).await;
    let first = told.verdict().await;
    assert_eq!((first.state, first.tools.as_ref().unwrap().count), (ProbeState::Ready, 12));
    assert!(first.tools.unwrap().definitions.is_none(), "definitions are large, and asked for by themselves");
    assert_eq!(told.line().await.as_deref(), Some(""), "a check that found the same");

    moody.becomes("hangs");
    let fallen = told.verdict().await;
    assert_eq!((fallen.state, fallen.reason), (ProbeState::Failing, Some(ProbeReason::ProbeTimeout)));
    assert!(fallen.message.contains("did not answer tools/list within 100 ms"), "{}", fallen.message);
    moody.becomes("");
    while told.verdict().await.state != ProbeState::Ready {}

    moody.rig.signal(Signal::SIGTERM);
    while told.line().await.is_some() {}
}

#[tokio::test]
async fn a_check_is_all_pages_of_the_list_within_one_timeout() {
    let moody = Moody::ready().await;
    let mut told = Told::by(&moody.rig).await;
    told.verdict().await;
    // Each of the two pages takes less than the timeout, and both take more.
    moody.becomes("dawdles");
    let fallen = told.verdict().await;
    assert_eq!((fallen.state, fallen.reason), (ProbeState::Failing, Some(ProbeReason::ProbeTimeout)));
}
