//! Start, verdicts of the probe, drain and end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use common::{Rig, exists, python, third_party, until};
use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use portolan_mcp::revision::Era;
use portolan_mcp::wire::{self, ProbeReason, ProbeState};
use serde_json::json;

async fn verdict(flags: &[&str], command: &[String]) -> (ProbeReason, String) {
    let rig = Rig::start(flags, command);
    until("there is a verdict", async || rig.status().await.probe.state != ProbeState::Starting).await;
    let probe = rig.status().await.probe;
    assert_eq!(probe.state, ProbeState::Failing);
    assert_eq!(rig.admin_get("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.admin_get("/livez").await, StatusCode::OK);
    (probe.reason.expect("a reason"), probe.message)
}

#[tokio::test]
async fn bad_servers_are_told_apart() {
    let quick = ["--handshake-timeout", "700ms"];
    let (reason, message) = verdict(&[], &python("exits")).await;
    assert_eq!(reason, ProbeReason::ServerExited);
    assert!(message.contains("code 3") && message.contains("no configuration found"), "{message}");
    let (reason, message) = verdict(&[], &["no-such-command".to_owned()]).await;
    assert_eq!(reason, ProbeReason::SpawnFailed);
    assert!(message.contains("no-such-command") && message.contains("No such file"), "{message}");
    let (reason, _) = verdict(&quick, &python("silent")).await;
    assert_eq!(reason, ProbeReason::HandshakeTimeout);
    let (reason, message) = verdict(&quick, &python("garbage")).await;
    assert_eq!(reason, ProbeReason::NotMcp);
    assert!(message.contains("Welcome to my server!"), "{message}");
    let (reason, message) = verdict(&[], &python("unknown")).await;
    assert_eq!(reason, ProbeReason::UnsupportedProtocol);
    assert!(message.contains("1999-12-31"), "{message}");
    let (reason, message) = verdict(&[], &python("later")).await;
    assert_eq!(reason, ProbeReason::UnsupportedProtocol);
    assert!(message.contains("-32022") && message.contains("Unsupported protocol version"), "{message}");
}

#[tokio::test]
async fn the_eras_that_a_server_speaks_are_found_out() {
    let rig = Rig::start(&[], &python("both"));
    until("both eras are found", async || {
        let server = rig.status().await.probe.server;
        server
            .is_some_and(|server| server.era == Era::Both && server.supported_versions == ["2025-11-25", "2026-07-28"])
    })
    .await;
    let legacy = Rig::start(&[], &python("well"));
    legacy.until_ready().await;
    assert_eq!(legacy.status().await.probe.server.expect("found").era, Era::Legacy);
}

#[tokio::test]
async fn a_server_that_ends_over_a_question_is_asked_once_and_gets_ready() {
    let rig = Rig::start(&["--probe-interval", "100ms"], &python("touchy"));
    until("it ended over the question", async || !rig.status().await.exits.is_empty()).await;
    rig.until_ready().await;
    until("it stays", async || rig.status().await.probe.state == ProbeState::Ready).await;
    assert_eq!(rig.status().await.exits.len(), 1);
}

#[tokio::test]
async fn a_server_that_comes_to_its_senses_becomes_ready_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("present");
    let mut command = python("recovers");
    command.push(file.display().to_string());
    let rig = Rig::start(&[], &command);
    until("it fails", async || rig.status().await.probe.state == ProbeState::Failing).await;
    std::fs::write(&file, "").unwrap();
    rig.until_ready().await;
    assert_eq!(rig.admin_get("/readyz").await, StatusCode::OK);
    let tools = rig.status().await.probe.tools.expect("listed");
    assert_eq!(tools.count, 12, "both pages");
    assert!(tools.hash.starts_with("sha256:") && tools.definitions.is_none());
}

#[tokio::test]
async fn a_drain_takes_no_new_sessions_keeps_the_old_ones_and_ends_with_code_zero() {
    let mut rig = Rig::ready(&[], &python("well")).await;
    let key = {
        let client = rig.open().await;
        rig.signal(Signal::SIGTERM);
        until("it drains", async || rig.status().await.draining).await;
        let refused = rig.client().initialize().await;
        assert_eq!((refused.status, refused.failure()), (StatusCode::SERVICE_UNAVAILABLE, Some("Draining")));
        assert_eq!(rig.admin_get("/readyz").await, StatusCode::OK, "existing sessions go on");
        assert_eq!(client.call(1, "echo", json!({"message": "still"})).await.text(), "still");
        let admin = rig.admin.to_string();
        let mut waiter = std::process::Command::new(env!("CARGO_BIN_EXE_portolan-bridge"))
            .args(["wait-drained", "--admin", &admin, "--timeout", "30s"])
            .spawn()
            .unwrap();
        assert!(waiter.try_wait().unwrap().is_none(), "it waits for the session");
        assert_eq!(client.delete().await.status, StatusCode::NO_CONTENT);
        assert!(waiter.wait().unwrap().success());
        client.key.clone()
    };
    assert!(rig.until_ended().await.success(), "session {key}");
}

#[tokio::test]
async fn a_drain_takes_calls_without_a_session_to_their_end() {
    let mut rig = Rig::ready(&["--session-type", "stateless"], &python("well")).await;
    let reply = {
        let client = rig.open().await;
        let call = client.call(1, "wait", json!({"name": "here"}));
        let draining = async {
            rig.logged("waiting here as").await;
            rig.signal(Signal::SIGTERM);
            until("it drains", async || rig.status().await.draining).await;
            let late = client.call(2, "echo", json!({"message": "late"})).await;
            assert_eq!(late.text(), "late", "a gateway may not have seen yet that the pod goes");
            rig.logged("the drain waits for what is under way").await;
            client.post(&json!({"jsonrpc": "2.0", "method": "test/release"})).await;
        };
        tokio::join!(call, draining).0
    };
    assert_eq!(reply.text(), "released");
    assert!(rig.until_ended().await.success());
}

#[tokio::test]
async fn the_drain_timeout_a_second_signal_and_the_loss_of_every_way_to_the_sessions_each_end_everything() {
    for (drain_timeout, then) in [("200ms", ""), ("10m", "signal"), ("10m", "abandon"), ("10m", "abandoned before")] {
        let mut rig = Rig::ready(&["--drain-timeout", drain_timeout, "--grace", "200ms"], &python("well")).await;
        let stray = {
            let client = rig.open().await;
            client.call(1, "fork", json!({})).await.text().to_owned()
        };
        let processes = rig.processes();
        assert!(processes.len() >= 6, "{processes:?}");
        let abandon = async || rig.request(Method::POST, rig.admin, wire::ABANDON, "", None, &[]).await.status;
        if then == "abandoned before" {
            assert_eq!(abandon().await, StatusCode::NO_CONTENT);
            assert!(!rig.status().await.draining, "that alone ends nothing");
        }
        rig.signal(Signal::SIGTERM);
        if matches!(then, "signal" | "abandon") {
            until("it drains", async || rig.status().await.draining).await;
        }
        match then {
            "signal" => rig.signal(Signal::SIGTERM),
            "abandon" => assert_eq!(abandon().await, StatusCode::NO_CONTENT),
            _ => {}
        }
        assert!(rig.until_ended().await.success());
        assert!(!exists(&stray), "a stray child is left");
        for process in processes.into_iter().filter(|pid| *pid != rig.pid()) {
            assert!(!exists(&process.to_string()), "{process} is left");
        }
    }
}

#[tokio::test]
async fn nothing_outlives_a_bridge_that_is_killed() {
    let mut rig = Rig::ready(&[], &python("well")).await;
    let stray = rig.open().await.call(1, "fork", json!({})).await.text().to_owned();
    let processes = rig.processes();
    nix::sys::signal::kill(rig.bridge_pid(), Signal::SIGKILL).unwrap();
    assert_eq!(rig.until_ended().await.code(), Some(137));
    until("all are gone", async || {
        !exists(&stray) && processes.iter().filter(|pid| **pid != rig.pid()).all(|pid| !exists(&pid.to_string()))
    })
    .await;
}

#[tokio::test]
async fn the_bridge_stays_small() {
    let rig = Rig::ready(&["--warm", "0"], &[third_party("mcp-server-everything"), "stdio".into()]).await;
    let bridge = common::resident_kib(rig.bridge_pid());
    println!("bridge with one probe session: {bridge} KiB");
    // What is shipped is optimised; a debug build carries twice the code.
    let bound = if cfg!(debug_assertions) { 16 } else { 8 };
    assert!(bridge < bound * 1024, "{bridge} KiB");
}

#[tokio::test]
async fn why_the_bridge_ended_is_left_as_json_where_the_kubelet_looks() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let left = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(file.path()).unwrap()).expect("JSON");
    let mut rig =
        Rig::ready(&["--warm", "0", "--drain-timeout", "100ms", "--termination-log", &path], &python("well")).await;
    let key = {
        let client = rig.open().await;
        client.call(1, "die", json!({"code": 7})).await;
        client.key.clone()
    };
    rig.signal(Signal::SIGTERM);
    assert!(rig.until_ended().await.success());
    let told = left();
    assert_eq!(told["reason"], "Drained", "{told}");
    let exits = told["exits"].as_array().expect("exits");
    let exit = exits.iter().find(|exit| exit["session"] == key.as_str()).expect("the session's");
    assert_eq!((&exit["code"], &exit["lastStderr"]), (&json!(7), &json!("out of cheese")));
    assert!(exits.iter().any(|exit| exit["session"] == "probe" && exit["cause"] == "Shutdown"), "{told}");

    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_portolan-bridge"))
        .args(["stdio", "--mac-key-file", "/no/such/key", "--termination-log", &path, "--", "true"])
        .status()
        .unwrap();
    assert!(!refused.success());
    let told = left();
    assert_eq!(told["reason"], "StartFailed");
    assert!(told["message"].as_str().unwrap().contains("/no/such/key"), "{told}");
}
