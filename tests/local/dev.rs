//! Third-party servers, unmodified, on one machine through `portolan dev`, called by third-party clients in both eras.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::Path;

use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::mcp::Session;
use portolan_tests::thirdparty::{Place, Server, assert_serves, in_each_era, server};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

fn write(folder: &Path, server: &Server) {
    let manifest = server.manifest("default", &server.name);
    std::fs::write(folder.join(format!("{}.yaml", server.name)), manifest.to_string()).expect("written");
}

async fn every_client_uses(name: &str) {
    let (folder, scratch) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let scratch = scratch.path().display().to_string();
    let server = server(name, Place::Local(&scratch));
    write(folder.path(), &server);
    let mut dev = Dev::start(folder.path());
    let url = dev.ready(name).await;
    for client in in_each_era() {
        assert_serves(&server, client, &url, None).await;
    }
    assert!(dev.end(Signal::SIGTERM).await.success());
}

#[tokio::test]
async fn every_client_uses_server_everything_over_stdio() {
    every_client_uses("everything").await;
}

#[tokio::test]
async fn every_client_uses_server_everything_over_streamable_http() {
    every_client_uses("everything-http").await;
}

#[tokio::test]
async fn every_client_uses_server_everything_over_sse() {
    every_client_uses("everything-sse").await;
}

#[tokio::test]
async fn every_client_uses_server_filesystem() {
    every_client_uses("filesystem").await;
}

#[tokio::test]
async fn every_client_uses_server_memory() {
    every_client_uses("memory").await;
}

#[tokio::test]
async fn every_client_uses_mcp_server_time() {
    every_client_uses("time").await;
}

#[tokio::test]
async fn every_client_uses_mcp_server_git() {
    every_client_uses("git").await;
}

/// Processes below `pid`: children belong to the thread that started them.
fn descendants(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> = children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.iter().flat_map(|child| std::iter::once(*child).chain(descendants(*child))).collect()
}

#[tokio::test]
async fn every_child_ends_with_portolan_dev_however_it_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &server("everything", Place::Local("/tmp")));
        let mut dev = Dev::start(folder.path());
        let url = dev.ready("everything").await;
        let session = Session::open(&url, None).await.expect("a session");
        session.call(1, "echo", json!({"message": "hi"})).await.expect("answers");
        let children = descendants(dev.pid());
        assert!(!children.is_empty(), "the server's processes are below portolan dev");
        dev.end(signal).await;
        until(&format!("no child is left after {signal}"), PATIENCE, || async {
            let left: Vec<_> = children.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}
