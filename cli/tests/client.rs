//! `portolan tools` and `portolan call`: what is printed where, and what each exit code means.
#![allow(clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use support::{Dev, assert_exit, run, server, stderr, stdout};

/// Answers every request with `response`: for what our own gateway never says.
struct Canned {
    url: String,
    _thread: JoinHandle<()>,
}

impl Canned {
    fn new(response: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/default/a/mcp", listener.local_addr().expect("bound"));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 16 * 1024];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(response.as_bytes());
            }
        });
        Self { url, _thread: thread }
    }
}

#[test]
fn every_way_to_end_has_an_exit_code_of_its_own() {
    let files = tempfile::tempdir().expect("a directory");
    std::fs::write(files.path().join("a.yaml"), server("a", "  timeouts: {request: 1s}\n")).expect("writes");
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let html =
        Canned::new("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
    let quota = Canned::new(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let nothing_there = "http://127.0.0.1:9/default/a/mcp";
    let other_server = url.replace("/a/", "/b/");
    let ok = "call";
    for (code, args) in [
        (0, vec![ok, &url, "echo", "message=hi"]),
        (1, vec!["call", &url, "no-such-tool"]),
        (1, vec!["call", &url, "no-such-tool", "a=b"]),
        (1, vec!["call", &url, "no-such-tool", "--args-json", "{}"]),
        (1, vec!["call", &url, "get-sum", "a=1"]),
        (1, vec!["call", &url, "get-sum", "a=two", "b=1"]),
        (1, vec!["call", &url, "echo", "message"]),
        (1, vec!["call", &url, "echo", "--args-json", "[1]"]),
        (1, vec!["tools", "127.0.0.1:8080"]),
        (1, vec!["tools", &url, "--no-such-flag"]),
        (1, vec!["tools", &url, "--api-key", "not-one"]),
        (1, vec!["tools", &url, "--header", "Authorization Bearer not-one"]),
        (1, vec!["tools", &url, "--header", "X-Team: a", "--header", "x-team: b"]),
        (4, vec!["tools", nothing_there]),
        (4, vec!["tools", &other_server]),
        (4, vec!["tools", &html.url]),
        (4, vec!["call", &url, "slow", "seconds=5", "--timeout", "200ms"]),
        (5, vec!["call", &url, "get-sum", "--args-json", "{\"a\": 1}"]),
        (5, vec!["call", &url, "slow", "seconds=5"]),
        (6, vec!["tools", &url, "--header", "Origin: https://elsewhere.example"]),
        (6, vec!["tools", &quota.url]),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}{}", stdout(&output), stderr(&output));
        assert_eq!(stdout(&output).is_empty(), code != 0, "{args:?}: data goes to stdout and nothing else does");
        assert_eq!(stderr(&output).is_empty(), code == 0, "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("not-one"), "a credential is not repeated: {}", stderr(&output));
    }
}

#[test]
fn a_failure_is_one_json_line_on_stderr_when_json_is_asked_for() {
    let nobody = "http://127.0.0.1:9/default/a/mcp";
    for (code, kind, args) in [
        (4, "Unreachable", vec!["tools", nobody, "-o", "json"]),
        (4, "Unreachable", vec!["call", nobody, "echo", "-o", "json"]),
        (1, "Usage", vec!["tools", "-o", "json"]),
        (1, "Usage", vec!["tools", "--output=json", "no URL"]),
        (1, "Usage", vec!["call", nobody, "echo", "--args-json", "{", "--output", "json"]),
        (1, "Usage", vec!["apikey", "-ojson", "--subject", "a b"]),
        (1, "Usage", vec!["dev", "-o", "json", "--listen", "0.0.0.0:80", "-f", "."]),
        (1, "Usage", vec!["dev", "-o", "json", "-f", "-"]),
    ] {
        let output = run(&args);
        assert_exit(&output, code);
        assert_eq!(stdout(&output), "", "{args:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{args:?}: {}", stderr(&output));
        let error: serde_json::Value = serde_json::from_str(&stderr(&output)).expect("JSON");
        assert_eq!((&error["error"]["kind"], &error["error"]["exitCode"]), (&kind.into(), &code.into()), "{args:?}");
    }
}

#[test]
fn a_result_is_printed_as_text_for_people_and_whole_as_json() {
    let files = tempfile::tempdir().expect("a directory");
    std::fs::write(files.path().join("a.yaml"), server("a", "")).expect("writes");
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    assert_eq!(stdout(&run(&["call", &url, "echo", "message=42"])), "Echo: 42\n");
    let json = run(&["call", &url, "echo", "--args-json", "{\"message\": \"hi\"}", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(json["content"][0]["text"], "Echo: hi");
    let table = stdout(&run(&["tools", &url]));
    assert!(table.starts_with("TOOL "), "{table}");
    assert!(table.contains("get-sum(a: number, b: number)  Adds two numbers\n"), "{table}");
}
