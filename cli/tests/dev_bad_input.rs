//! `portolan dev` and what goes wrong: servers that cannot work, files that are not right, processes that are killed.
#![allow(clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::session::{Session, descendants};
use support::{Dev, assert_exit, eventually, portolan, run, stdout};
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stdio_server.py");

/// What a server is, the reason that this has, and words of its message.
const BROKEN: [(&str, &str, &[&str]); 5] = [
    ("exits", "ServerExited", &["code 1", "no database at db:5432"]),
    ("garbage", "NotMCP", &["Welcome to the shell!"]),
    ("later", "UnsupportedProtocol", &["-32022", "Unsupported protocol version"]),
    ("absent", "SpawnFailed", &["is no executable file on this machine"]),
    ("silent", "HandshakeTimeout", &["initialize"]),
];

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn write(directory: &TempDir, file: &str, text: &str) {
    std::fs::write(directory.path().join(file), text).expect("writes");
}

/// A server on the fixture; `kind` is what it is.
fn server(name: &str, kind: &str) -> String {
    let command = format!("[python3, {SCRIPT}, {kind}]");
    support::server(name, "  timeouts: {request: 10m}\n").replace("[portolan, demo-server]", &command)
}

/// A program that runs the fixture as `kind`; put in place whole, as `mv` does it.
fn install(file: &Path, kind: &str) {
    use std::os::unix::fs::PermissionsExt;
    let part = file.with_extension("part");
    std::fs::write(&part, format!("#!/bin/sh\nexec python3 {SCRIPT} {kind}\n")).expect("writes");
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).expect("may run");
    std::fs::rename(&part, file).expect("renames");
}

/// A row about `name` for which `wanted` holds, among those that came after the first `from`.
fn told(dev: &mut Dev, from: usize, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let wanted = |row: &Value| row["name"] == name && wanted(row);
    let seen = dev.seen.iter().skip(from).find(|row| wanted(row)).cloned();
    seen.unwrap_or_else(|| dev.row(name, wanted))
}

/// Starts a server of each kind of [`BROKEN`], checks what is said of it and that it gets no traffic, mends it with
/// `mend`, and waits until it is ready.
fn says_why_and_recovers(files: &TempDir, mend: impl Fn(&str)) {
    let mut dev = Dev::start(files.path());
    for (kind, reason, words) in BROKEN {
        let row = told(&mut dev, 0, kind, |row| row["reason"] == reason);
        assert_eq!(row["ready"], false, "{row}");
        let message = row["message"].as_str().unwrap_or_default();
        assert!(words.iter().all(|word| message.contains(word)), "{reason} says {words:?}: {message}");
        let url = row["url"].as_str().expect("a URL");
        assert_exit(&run(&["tools", url]), 4);

        let before = dev.seen.len();
        mend(kind);
        told(&mut dev, before, kind, |row| row["ready"] == true);
        assert_exit(&run(&["call", url, "pid"]), 0);
    }
}

#[test]
fn a_server_that_cannot_work_says_why_and_recovers_once_its_file_is_mended() {
    let files = directory();
    for (kind, ..) in BROKEN {
        let text = server(kind, kind);
        let text = if kind == "absent" { text.replace("[python3, ", "[/nowhere/at/all, ") } else { text };
        write(&files, &format!("{kind}.yaml"), &text);
    }
    says_why_and_recovers(&files, |kind| write(&files, &format!("{kind}.yaml"), &server(kind, "good")));
}

#[test]
fn a_server_that_cannot_work_recovers_by_itself_once_its_program_is_mended() {
    let (files, bin) = (directory(), directory());
    let program = |kind: &str| -> PathBuf { bin.path().join(kind) };
    for (kind, ..) in BROKEN {
        if kind != "absent" {
            install(&program(kind), kind);
        }
        let command = format!("[{}]", program(kind).display());
        let text = support::server(kind, "").replace("[portolan, demo-server]", &command);
        write(&files, &format!("{kind}.yaml"), &text);
    }
    says_why_and_recovers(&files, |kind| install(&program(kind), "good"));
}

#[test]
fn an_edit_that_is_not_right_or_names_an_unknown_secret_tears_nothing_down() {
    let files = directory();
    write(&files, "a.yaml", &server("a", "good"));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let mut session = Session::open(&url);
    let process = session.call("pid").expect("answers");

    let good = server("a", "good");
    let command = "    command: [";
    let secret = "    envFrom: [{secretRef: {name: keys}}]\n    command: [";
    for (text, place) in [
        (good.replace(command, "    port: 70000\n    command: ["), ":8: spec.container.port: "),
        (good.replace("Stdio", "StreamableHTTP"), "a.yaml:5: spec.container.port: StreamableHTTP needs the port"),
        (good.replace(command, "    args: ["), "a.yaml:5: spec.container.command: Stdio needs the program"),
        (good.replace("metadata: {name: a}", "metadata: {name: A}"), "a.yaml:3: metadata.name: "),
        (good.replace("10m", "soon"), "a.yaml:9: spec.timeouts.request: "),
        (good.replace(command, secret), "a.yaml:8: spec.container.envFrom[0]: the files have no Secret default/keys"),
    ] {
        write(&files, "a.yaml", &text);
        dev.says(place);
        assert_eq!(session.call("pid").as_ref(), Ok(&process), "{place}: the session goes on in its process");
        assert_exit(&run(&["call", &url, "pid"]), 0);
    }
    assert!(dev.said.iter().any(|line| line.starts_with("The last good version of ")), "{:#?}", dev.said);
    write(&files, "keys.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {A: b}\n");
    let before = dev.seen.len();
    told(&mut dev, before, "a", |row| row["ready"] == true);
    assert_eq!(session.call("pid"), Ok(process));
}

/// A gateway whose `authentication` is the given YAML.
fn gateway(authentication: &str) -> String {
    format!(
        "apiVersion: portolan.dev/v1alpha1\nkind: MCPGateway\nmetadata: {{name: default}}\nspec:\n  \
         authentication: {authentication}\n"
    )
}

#[test]
fn a_gateway_without_authentication_is_told_by_line_and_the_last_good_one_decides_on() {
    let files = directory();
    let minted = run(&["apikey", "--subject", "ci", "-o", "json"]);
    let minted: Value = serde_json::from_str(&stdout(&minted)).expect("JSON");
    let (key, hash) = (minted["key"].as_str().expect("a key"), minted["sha256"].as_str().expect("a hash"));
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{ci: \"{hash}\"}}\n");
    write(&files, "a.yaml", &support::server("a", ""));
    write(&files, "keys.yaml", &secret);
    write(&files, "gateway.yaml", &gateway("{apiKeys: [{name: keys, secretRef: {name: keys}}]}"));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    for (text, place) in [
        (gateway("{}"), "gateway.yaml:5: spec.authentication: "),
        (gateway("{}").replace("  authentication: {}", "  replicas: 1"), "gateway.yaml:4: spec.authentication: "),
        (gateway("["), "gateway.yaml:"),
    ] {
        write(&files, "gateway.yaml", &text);
        dev.says(place);
        assert_exit(&run(&["tools", &url]), 3);
        assert_exit(&run(&["tools", &url, "--api-key", key]), 0);
    }
    write(&files, "gateway.yaml", &gateway("{anonymous: {}}"));
    dev.says("gateway.yaml is right again.");
    eventually("everyone is admitted", || run(&["tools", &url]).status.success());
}

#[test]
fn a_toolset_that_names_an_unknown_server_or_one_name_twice_is_told_by_line_and_serves_on() {
    let files = directory();
    write(&files, "a.yaml", &support::server("a", ""));
    write(&files, "b.yaml", &support::server("b", ""));
    let toolset = |servers: &str| {
        let head = "apiVersion: portolan.dev/v1alpha1\nkind: MCPToolset\nmetadata: {name: mine}\n";
        format!("{head}spec:\n  servers:\n{servers}")
    };
    let good = "  - {name: a, tools: [{name: echo, as: say}]}\n";
    write(&files, "mine.yaml", &toolset(good));
    let mut dev = Dev::start(files.path());
    dev.all_ready(&["a", "b"]);
    let url = dev.seen[0]["url"].as_str().expect("a URL");
    let url = url.rsplit_once("/default/").expect("a server's path").0.to_owned() + "/default/toolsets/mine/mcp";
    assert_exit(&run(&["call", &url, "say", "message=hi"]), 0);
    for (servers, place) in [
        (
            format!("{good}  - {{name: absent}}\n"),
            "mine.yaml:7: spec.servers[1].name: the files have no MCPServer default/absent",
        ),
        (
            format!("{good}  - {{name: b, tools: [{{name: echo, as: say}}]}}\n"),
            "mine.yaml:5: spec.servers: a/echo and b/echo are both shown as \"say\"; write another `as`",
        ),
        (
            "  - {name: a, tools: [{name: echo, as: say}, {name: slow, as: say}]}\n".into(),
            "mine.yaml:6: spec.servers[0].tools: two tools have the same name in `as`",
        ),
        (good.replace("say", "a.say"), "mine.yaml:6: spec.servers[0].tools[0].as: write letters, digits and '-'"),
        (good.replace("as:", "alias:"), "mine.yaml:6: spec.servers[0].tools[0].alias: unknown field"),
    ] {
        write(&files, "mine.yaml", &toolset(&servers));
        dev.says(place);
        assert_exit(&run(&["call", &url, "say", "message=hi"]), 0);
    }
}

#[test]
fn a_gateway_that_has_never_been_right_admits_nobody_until_it_is() {
    for text in [gateway("{}"), gateway("{anonymus: {}}"), gateway("[")] {
        let files = directory();
        write(&files, "a.yaml", &support::server("a", ""));
        write(&files, "gateway.yaml", &text);
        let mut dev = Dev::start(files.path());
        dev.says("gateway.yaml:");
        dev.says("nobody is admitted until ");
        let url = dev.ready("a");
        assert_exit(&run(&["tools", &url]), 3);
        write(&files, "gateway.yaml", &gateway("{anonymous: {}}"));
        eventually("everyone is admitted", || run(&["tools", &url]).status.success());
    }
}

#[test]
fn a_file_that_is_not_right_closes_nothing_when_it_holds_no_gateway() {
    let files = directory();
    write(&files, "a.yaml", &support::server("a", ""));
    write(&files, "b.yaml", "kind: MCPServer\nspec: [\n");
    let mut dev = Dev::start(files.path());
    dev.says("Nothing of ");
    let url = dev.ready("a");
    assert_exit(&run(&["tools", &url]), 0);
}

#[test]
fn a_process_that_is_killed_fails_its_call_at_once_and_nobody_elses_and_leaves_no_zombie() {
    let files = directory();
    let scratch = directory();
    write(&files, "a.yaml", &server("a", "good"));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let call = |file: &str| {
        let argument = format!("file={}", scratch.path().join(file).display());
        // In sessions, since each has a process of its own. Ten minutes: only an answer that comes at once ends before the test gives up.
        let mut command =
            portolan(&["call", &url, "hold", &argument, "-o", "json", "--timeout", "10m", "--protocol", "2025-11-25"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        support::Ending(child)
    };
    let process = |file: &str| -> i32 {
        let path = scratch.path().join(file);
        eventually("the call is under way", || path.exists());
        std::fs::read_to_string(path).expect("reads").parse().expect("a pid")
    };
    let (mut victim, mut other) = (call("victim"), call("other"));
    let (killed, alive) = (process("victim"), process("other"));
    assert_ne!(killed, alive, "each session has its process");

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL).expect("signals");
    let (code, result) = ended(&mut victim);
    assert_eq!(code, Some(5), "{result}");
    let answer = &result["structuredContent"];
    assert_eq!((&answer["error_type"], &answer["retryable"]), (&"ServerExited".into(), &true.into()), "{result}");

    std::fs::write(scratch.path().join("other.go"), "").expect("writes");
    let (code, result) = ended(&mut other);
    assert_eq!((code, &result["content"][0]["text"]), (Some(0), &"held".into()), "{result}");
    let dev_pid = i32::try_from(dev.pid()).expect("a pid");
    eventually("the killed process is gone and none is a zombie", || {
        descendants(dev_pid).iter().all(|(pid, state)| *pid != killed && *state != 'Z')
    });
    assert!(!descendants(dev_pid).is_empty(), "the others are still there");
}

/// Waits for the end of a `portolan call -o json`: its exit code, and the result that it printed.
fn ended(call: &mut support::Ending) -> (Option<i32>, Value) {
    let mut status = None;
    eventually("the call's end", || {
        status = call.0.try_wait().expect("waits");
        status.is_some()
    });
    let result = serde_json::from_reader(call.0.stdout.take().expect("piped")).unwrap_or_default();
    (status.and_then(|status| status.code()), result)
}

#[test]
fn edits_end_no_session_early_and_fail_no_call() {
    let files = directory();
    write(&files, "a.yaml", &server("a", "good"));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let mut session = Session::open(&url);
    let process = session.call("pid").expect("answers");
    let edited = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers = [
            // A session that was there before the edits: each call is answered by its one process.
            scope.spawn(|| {
                let mut calls = 0;
                while !edited.load(Ordering::Acquire) {
                    assert_eq!(session.call("pid").as_ref(), Ok(&process), "after {calls} calls");
                    calls += 1;
                }
                calls
            }),
            // New sessions, one after another, whichever revision they get.
            scope.spawn(|| {
                let mut calls = 0;
                while !edited.load(Ordering::Acquire) {
                    Session::open(&url).call("pid").unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
                    calls += 1;
                }
                calls
            }),
        ];
        // The callers end however the edits do.
        let edits = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for edit in 1..=3 {
                let env = format!("    env: [{{name: EDIT, value: \"{edit}\"}}]\n    command: [");
                write(&files, "a.yaml", &server("a", "good").replace("    command: [", &env));
                dev.row("the new revision", |row| row["ready"] == false);
                dev.ready("a");
            }
        }));
        edited.store(true, Ordering::Release);
        for caller in callers {
            assert!(caller.join().expect("no call fails") > 0);
        }
        edits.expect("each edit is served");
    });
    assert_ne!(Session::open(&url).call("pid").expect("answers"), process);
    assert_eq!(session.call("pid"), Ok(process), "the first session lives on");
}
