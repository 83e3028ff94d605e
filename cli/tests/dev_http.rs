//! `portolan dev` with servers that speak HTTP: their process is started here, too.

#![allow(clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "../../tests/support/ports.rs"]
mod ports;
mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ports::free_port;
use support::{Dev, Ending, assert_exit, eventually, marked, run, stdout};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/http_server.py");

fn server(port: u16, word: &str) -> String {
    format!(
        "apiVersion: portolan.dev/v1alpha1\nkind: MCPServer\nmetadata: {{name: web}}\nspec:\n  container:\n    \
         image: localhost/none:1\n    transport: StreamableHTTP\n    port: {port}\n    path: /mcp\n    \
         command: [python3]\n    args: [{SCRIPT}, $(PORT), {word}]\n    \
         env: [{{name: PORT, value: \"{port}\"}}, {{name: MARK, value: {}}}]\n  healthCheck: {{interval: 1s, timeout: 1s}}\n",
        marker(port)
    )
}

/// `server`, whose command fails as long as there is a file `flag`.
fn unless(flag: &Path, server: &str) -> String {
    let script = format!("if [ -e {} ]; then echo out of luck >&2; exit 3; fi; exec python3 $@", flag.display());
    server.replace("command: [python3]", &format!("command: [sh, -c, {script:?}, sh]"))
}

fn marker(port: u16) -> String {
    format!("cli-test-http-{}-{port}", std::process::id())
}

fn word(url: &str) -> Option<String> {
    let output = run(&["call", url, "word"]);
    output.status.success().then(|| stdout(&output).trim().to_owned())
}

#[test]
fn a_server_that_speaks_http_is_started_replaced_and_ended_with_all_that_it_started() {
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("web.yaml");
    let port = free_port();
    std::fs::write(&file, server(port, "one")).expect("writes");
    let mut dev = Dev::start(files.path());
    let url = dev.ready("web");
    assert_eq!(word(&url).as_deref(), Some("one"));

    std::fs::write(&file, server(port, "two")).expect("writes");
    eventually("the new version on the same port", || word(&url).as_deref() == Some("two"));
    let mark = format!("MARK={}", marker(port));
    assert!(!marked(&mark).is_empty());
    assert_eq!(dev.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert_eq!(marked(&mark), Vec::<i32>::new());
}

#[test]
fn a_server_of_the_older_sse_transport_is_served_at_its_usual_path() {
    let files = tempfile::tempdir().expect("a directory");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bridge/tests/servers/sse.py");
    let port = free_port();
    let text = server(port, "one")
        .replace("StreamableHTTP", "SSE")
        .replace("    path: /mcp\n", "")
        .replace(SCRIPT, script)
        .replace("$(PORT), one", "well, $(PORT)");
    std::fs::write(files.path().join("web.yaml"), text).expect("writes");
    let mut dev = Dev::start(files.path());
    let url = dev.ready("web");
    let output = run(&["call", &url, "echo", "message=ahoy"]);
    assert_eq!((output.status.success(), stdout(&output).trim()), (true, "ahoy"), "{output:?}");
    let session = || stdout(&run(&["call", &url, "session", "--protocol", "2025-11-25"]));
    assert_ne!(session(), session(), "every session has an event stream of its own");
    let mark = format!("MARK={}", marker(port));
    assert!(!marked(&mark).is_empty());
    assert_eq!(dev.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert_eq!(marked(&mark), Vec::<i32>::new());
}

#[test]
fn a_server_that_ends_by_itself_is_told_with_its_last_words_and_started_again() {
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("web.yaml");
    let flag = files.path().join("broken");
    std::fs::write(&flag, "").expect("writes");
    let port = free_port();
    std::fs::write(&file, unless(&flag, &server(port, "one"))).expect("writes");
    let mut dev = Dev::start(files.path());
    let row = dev.row("the end", |row| row["reason"] == "ServerExited");
    let message = row["message"].as_str().expect("a message");
    assert!(message.contains("exit status: 3") && message.contains("out of luck"), "{message}");
    std::fs::remove_file(&flag).expect("removes");
    let url = dev.ready("web");
    assert_eq!(word(&url).as_deref(), Some("one"));
}

#[test]
fn a_port_that_a_stranger_holds_is_told_and_the_stranger_is_not_served() {
    let files = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("binds");
    std::fs::write(files.path().join("web.yaml"), server(port, "one")).expect("writes");
    let mut dev = Dev::start(files.path());
    let row = dev.row("a verdict", |row| row["reason"] == "SpawnFailed");
    assert!(row["message"].as_str().is_some_and(|message| message.contains(&format!("port {port} "))), "{row}");
    assert_exit(&run(&["tools", row["url"].as_str().expect("a URL")]), 4);
    drop(stranger);
    dev.ready("web");
}

#[test]
fn a_stranger_that_takes_the_port_of_a_server_that_ended_is_told_and_not_served() {
    let files = tempfile::tempdir().expect("a directory");
    let (port, flag) = (free_port(), files.path().join("broken"));
    std::fs::write(files.path().join("web.yaml"), unless(&flag, &server(port, "one"))).expect("writes");
    let mut dev = Dev::start(files.path());
    let url = dev.ready("web");
    std::fs::write(&flag, "").expect("writes");
    for pid in marked(&format!("MARK={}", marker(port))) {
        // The guard may have been quicker.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    dev.row("the end", |row| row["reason"] == "ServerExited");
    let stranger = Command::new("python3").args([SCRIPT, &port.to_string(), "stranger", "alone"]).spawn();
    let stranger = Ending(stranger.expect("starts"));
    eventually("the stranger listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    std::fs::remove_file(&flag).expect("removes");
    let row = dev.row("a verdict", |row| row["reason"] == "SpawnFailed");
    assert!(row["message"].as_str().is_some_and(|message| message.contains(&format!("port {port} "))), "{row}");
    assert_exit(&run(&["call", &url, "word"]), 4);
    assert!(dev.seen.iter().skip_while(|row| row["reason"] != "ServerExited").all(|row| row["ready"] != true));
    drop(stranger);
    dev.ready("web");
    assert_eq!(word(&url).as_deref(), Some("one"));
}

#[test]
fn a_server_without_a_command_is_told_what_to_write() {
    let files = tempfile::tempdir().expect("a directory");
    let text = server(free_port(), "one").replace("    command: [python3]\n", "").replace("args:", "# args:");
    std::fs::write(files.path().join("web.yaml"), text).expect("writes");
    let mut dev = Dev::start(files.path());
    let row = dev.row("a verdict", |row| row["reason"] == "SpawnFailed");
    assert!(row["message"].as_str().is_some_and(|message| message.contains("write command")), "{row}");
    dev.says("web.yaml:5: spec.container.command: dev runs no images");
}
