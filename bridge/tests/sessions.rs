//! Sessions of a stdio server: many at once, and each alone with its troubles.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use std::time::{Duration, Instant};

use common::{Rig, exists, python, third_party, until};
use http::StatusCode;
use portolan_mcp::wire::{ExitCause, ProbeState};
use serde_json::json;

#[tokio::test]
async fn sixty_four_sessions_of_a_real_server_each_answer() {
    let command = [third_party("mcp-server-everything"), "stdio".into()];
    let rig = Rig::ready(&["--max-sessions", "64", "--request-timeout", "60s"], &command).await;
    let open = futures::future::join_all((0..64).map(|_| rig.open())).await;
    assert_eq!(rig.status().await.sessions.active, 64);
    let answers = futures::future::join_all(open.iter().enumerate().map(|(n, client)| async move {
        let message = format!("hello from {n}");
        (client.call(1, "echo", json!({ "message": message })).await, message)
    }))
    .await;
    for (reply, message) in answers {
        assert_eq!(reply.text(), format!("Echo: {message}"));
    }
    let refused = rig.client().initialize().await;
    assert_eq!((refused.status, refused.failure()), (StatusCode::SERVICE_UNAVAILABLE, Some("Overloaded")));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(rig.status().await.counters.refused_sessions, 1);
}

#[tokio::test]
async fn a_killed_server_fails_its_call_at_once_and_leaves_the_others_untouched() {
    let rig = Rig::ready(&[], &python("well")).await;
    let (victim, other) = (rig.open().await, rig.open().await);
    let pid = victim.call(1, "pid", json!({})).await.text().to_owned();
    let hanging = victim.call(2, "hang", json!({}));
    let killing = async {
        rig.logged("hanging").await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        Instant::now()
    };
    let (reply, killed) = tokio::join!(hanging, killing);
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!((reply.status, reply.failure()), (StatusCode::OK, Some("ServerExited")));
    assert_eq!(reply.error_type(), "ServerExited");
    assert_eq!(reply.messages[0]["result"]["structuredContent"]["retryable"], true);
    assert!(reply.messages[0].to_string().contains("signal 9"), "{reply:?}");
    assert!(!exists(&pid), "a zombie is left");
    assert_eq!(victim.call(3, "echo", json!({"message": "x"})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.call(1, "echo", json!({"message": "still here"})).await.text(), "still here");
    let exit = rig.status().await.exits.into_iter().find(|exit| exit.session == victim.key.as_str()).expect("told");
    assert_eq!((exit.cause, exit.signal), (ExitCause::ServerExited, Some(9)));
}

#[tokio::test]
async fn a_server_that_ends_during_a_call_is_reported_with_code_and_last_words() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let reply = client.call(1, "die", json!({"code": 7})).await;
    assert_eq!(reply.error_type(), "ServerExited");
    let text = reply.messages[0].to_string();
    assert!(text.contains("code 7") && text.contains("out of cheese"), "{text}");
    let exit = rig.status().await.exits.into_iter().find(|exit| exit.session == client.key.as_str()).expect("told");
    assert_eq!((exit.code, exit.last_stderr.as_str()), (Some(7), "out of cheese"));
    let logged: serde_json::Value = serde_json::from_str(&rig.logged("\"out of cheese\"").await).expect("JSON");
    assert_eq!(logged["session"], client.key.as_str(), "the pod's log says whose it is");
}

#[tokio::test]
async fn a_call_that_hangs_is_answered_after_the_callers_timeout_and_cancelled() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let reply = client.call_within(1, "hang", json!({}), Some(300)).await;
    assert_eq!((reply.failure(), reply.error_type()), (Some("RequestTimeout"), "RequestTimeout"));
    assert_eq!(client.call(2, "echo", json!({"message": "alive"})).await.text(), "alive");
    assert_eq!(rig.status().await.counters.timeouts, 1);
    until("the server was told", async || rig.log.lock().unwrap().contains("cancelled 1")).await;
}

#[tokio::test]
async fn a_child_that_forked_away_ends_with_its_session() {
    let rig = Rig::ready(&["--grace", "2s"], &python("well")).await;
    let client = rig.open().await;
    let stray = client.call(1, "fork", json!({})).await.text().to_owned();
    assert!(exists(&stray));
    assert_eq!(client.delete().await.status, StatusCode::NO_CONTENT);
    assert!(exists(&stray), "DELETE does not wait for what ignores SIGTERM");
    until("the stray child is gone", async || !exists(&stray)).await;
}

#[tokio::test]
async fn a_child_that_forked_away_ends_when_the_server_ends_by_itself() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    let stray = client.call(1, "fork", json!({})).await.text().to_owned();
    client.call(2, "die", json!({"code": 0})).await;
    until("the stray child is gone", async || !exists(&stray)).await;
}

#[tokio::test]
async fn what_a_killed_guard_guarded_is_found_and_ended() {
    let rig = Rig::ready(&["--warm", "0"], &python("well")).await;
    let client = rig.open().await;
    let server = client.call(1, "pid", json!({})).await.text().to_owned();
    let stray = client.call(2, "fork", json!({})).await.text().to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap();
    let guard: i32 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("both are gone", async || !exists(&server) && !exists(&stray)).await;
    until("the session is gone", async || client.call(3, "pid", json!({})).await.status == StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn an_endless_line_ends_its_session_alone_and_is_never_held() {
    let rig = Rig::ready(&["--max-message-bytes", "1048576"], &python("well")).await;
    let (client, other) = (rig.open().await, rig.open().await);
    let reply = client.call(1, "endless", json!({"bytes": 1u64 << 30})).await;
    assert_eq!(reply.error_type(), "BadServerReply");
    assert!(common::resident_kib(rig.bridge_pid()) < 24 * 1024, "{} KiB", common::resident_kib(rig.bridge_pid()));
    assert_eq!(client.call(2, "pid", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.call(1, "echo", json!({"message": "fine"})).await.text(), "fine");
    assert_eq!(rig.status().await.counters.oversized_messages, 1);
}

#[tokio::test]
async fn a_flood_on_stderr_is_cut_and_counted() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    assert_eq!(client.call(1, "flood", json!({"lines": 50_000})).await.text(), "written");
    until("the flood is counted", async || rig.status().await.counters.dropped_stderr_lines > 40_000).await;
    until("the log says so", async || rig.log.lock().unwrap().contains("lines of stderr: more than 100 a second"))
        .await;
    let logged = rig.log.lock().unwrap().lines().filter(|line| line.contains("\"line ")).count();
    assert!((1..10_000).contains(&logged), "{logged} lines were logged");
    assert_eq!(client.call(2, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn lines_that_are_not_json_rpc_are_skipped_and_counted() {
    let rig = Rig::ready(&[], &python("well")).await;
    let client = rig.open().await;
    assert_eq!(client.call(1, "garbage", json!({})).await.text(), "written");
    assert_eq!(rig.status().await.counters.skipped_lines, 2);
}

#[tokio::test]
async fn calls_past_the_bound_are_refused_counted_and_do_no_harm() {
    let rig = Rig::ready(&["--request-timeout", "60s"], &python("well")).await;
    let client = rig.open().await;
    let open = futures::future::join_all((1..=256).map(|id| client.start(id, "wait", &[]))).await;
    let refused = client.call(1000, "echo", json!({"message": "x"})).await;
    assert_eq!((refused.status, refused.failure()), (StatusCode::SERVICE_UNAVAILABLE, Some("Overloaded")));
    assert_eq!(rig.status().await.counters.refused_calls, 1);
    client.post(&json!({"jsonrpc": "2.0", "method": "test/release"})).await;
    for mut answer in open {
        let mut text = String::new();
        while let Some(more) = common::chunk(&mut answer).await {
            text += &more;
        }
        assert!(text.contains("released"), "{text}");
    }
    assert_eq!(client.call(1001, "echo", json!({"message": "fine"})).await.text(), "fine");
}

#[tokio::test]
async fn a_memory_hog_is_ended_alone() {
    let group = MemoryGroup::new(256 << 20);
    let path = group.0.display().to_string();
    let rig = Rig::ready(&["--warm", "0", "--cgroup", &path], &python("well")).await;
    let (hog, other) = (rig.open().await, rig.open().await);
    for client in [&hog, &other] {
        group.add(client.call(1, "pid", json!({})).await.text());
    }
    let hanging = hog.call(2, "hang", json!({}));
    let hogging = hog.call(3, "hog", json!({"bytes": 236u64 << 20}));
    let (hanging, hogging) = tokio::join!(hanging, hogging);
    assert_eq!(hanging.error_type(), "MemoryPressure");
    assert!(
        ["held", "MemoryPressure"]
            .contains(&hogging.messages[0]["result"]["structuredContent"]["error_type"].as_str().unwrap_or("held"))
    );
    assert_eq!(other.call(2, "echo", json!({"message": "fine"})).await.text(), "fine");
    let status = rig.status().await;
    assert_eq!((status.counters.memory_ends, status.sessions.active), (1, 1));
    drop(rig);
}

#[tokio::test]
async fn the_process_of_all_that_hogs_memory_is_started_again_and_its_calls_fail_at_once() {
    let group = MemoryGroup::new(256 << 20);
    let path = group.0.display().to_string();
    let rig = Rig::ready(&["--session-type", "stateless", "--cgroup", &path], &python("well")).await;
    let (one, other) = (rig.open().await, rig.open().await);
    let before = one.call(1, "pid", json!({})).await.text().to_owned();
    group.add(&before);
    let hanging = one.call(2, "hang", json!({}));
    let hogging = async {
        rig.logged("hanging").await;
        other.call(2, "hog", json!({"bytes": 236u64 << 20})).await
    };
    let (hanging, _) = tokio::join!(hanging, hogging);
    assert_eq!((hanging.error_type(), hanging.failure()), ("MemoryPressure", Some("MemoryPressure")), "{hanging:?}");
    assert_eq!(hanging.messages[0]["result"]["structuredContent"]["retryable"], true);
    until("it is back", async || {
        let reply = other.call(3, "pid", json!({})).await;
        reply.failure().is_none() && reply.text() != before
    })
    .await;
    let status = rig.status().await;
    assert_eq!(status.counters.memory_ends, 1);
    assert_eq!(status.exits.last().map(|exit| exit.cause), Some(ExitCause::MemoryPressure));
    drop(rig);
}

#[tokio::test]
async fn a_probe_that_hogs_memory_is_started_again_and_sessions_go_on() {
    let group = MemoryGroup::new(256 << 20);
    let path = group.0.display().to_string();
    let flags = ["--warm", "0", "--unhealthy-threshold", "1", "--cgroup", &path];
    let rig = Rig::ready(&flags, &python("well")).await;
    let probe = rig.servers()[0];
    let client = rig.open().await;
    group.add(client.call(1, "pid", json!({})).await.text());
    group.add(&probe.to_string());
    nix::sys::signal::kill(probe, nix::sys::signal::Signal::SIGUSR1).unwrap();
    until("it is ended", async || rig.status().await.counters.memory_ends == 1).await;
    until("another is ready", async || {
        let ready = rig.log.lock().unwrap().matches("the server is ready").count();
        ready == 2 && rig.status().await.probe.state == ProbeState::Ready
    })
    .await;
    assert!(!exists(&probe.to_string()));
    rig.logged("the container's memory ran short and it held the most").await;
    assert_eq!(client.call(2, "echo", json!({"message": "fine"})).await.text(), "fine");
    let status = rig.status().await;
    let told = status.exits.iter().map(|exit| (exit.session.as_str(), exit.cause)).collect::<Vec<_>>();
    assert_eq!((told, status.sessions.active), (vec![("probe", ExitCause::MemoryPressure)], 1));
    drop(rig);
}

#[tokio::test]
async fn a_session_takes_the_process_that_was_warm_and_another_gets_warm() {
    let rig = Rig::ready(&["--warm", "1"], &python("well")).await;
    until("one is warm", async || rig.servers().len() == 2 && rig.status().await.sessions.warm == 1).await;
    let [_, warm] = rig.servers()[..] else { panic!("a probe and a warm process") };
    let client = rig.open().await;
    assert_eq!(client.call(1, "pid", json!({})).await.text(), warm.to_string());
    until("another is warm", async || rig.servers().len() == 3 && rig.status().await.sessions.warm == 1).await;
}

#[tokio::test]
async fn a_warm_process_that_hogs_memory_is_replaced() {
    let group = MemoryGroup::new(256 << 20);
    let path = group.0.display().to_string();
    let rig = Rig::ready(&["--cgroup", &path], &python("well")).await;
    until("one is warm", async || rig.servers().len() == 2).await;
    let [probe, warm] = rig.servers()[..] else { panic!("a probe and a warm process") };
    // What it is told before its handler is there would end it.
    until("it listens", async || catches_usr1(warm)).await;
    group.add(&probe.to_string());
    group.add(&warm.to_string());
    nix::sys::signal::kill(warm, nix::sys::signal::Signal::SIGUSR1).unwrap();
    until("it is ended", async || rig.status().await.counters.memory_ends == 1).await;
    until("another is warm", async || rig.servers().len() == 2 && !rig.servers().contains(&warm)).await;
    assert_eq!(rig.servers()[0], probe, "the probe was not touched");
    until("the exit is told", async || !rig.status().await.exits.is_empty()).await;
    let exits = rig.status().await.exits;
    assert_eq!(exits.iter().map(|exit| exit.cause).collect::<Vec<_>>(), [ExitCause::MemoryPressure]);
    drop(rig);
}

/// Whether the process has a handler for SIGUSR1.
fn catches_usr1(pid: nix::unistd::Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|set| set & (1 << (nix::libc::SIGUSR1 - 1)) != 0)
}

/// A memory control group of the test's own.
struct MemoryGroup(std::path::PathBuf);

impl MemoryGroup {
    fn new(limit: u64) -> Self {
        static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let nth = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("/sys/fs/cgroup/memory/portolan-test-{}-{nth}", std::process::id());
        let path = std::path::PathBuf::from(name);
        std::fs::create_dir(&path).expect("root on cgroup v1");
        std::fs::write(path.join("memory.limit_in_bytes"), limit.to_string()).expect("a limit");
        Self(path)
    }

    fn add(&self, pid: &str) {
        std::fs::write(self.0.join("cgroup.procs"), pid).expect("root on cgroup v1");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let started = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && started.elapsed() < Duration::from_secs(5) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}
