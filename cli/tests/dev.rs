//! `portolan dev`, as its users meet it: the real binary, real files, real clients.
#![allow(clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use support::{Dev, Ending, assert_exit, eventually, marked, portolan, run, server, stderr, stdout};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn write(directory: &TempDir, file: &str, text: &str) {
    std::fs::write(directory.path().join(file), text).expect("writes");
}

#[test]
fn the_quickstart_is_served_and_its_tools_can_be_called() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let began = Instant::now();
    let mut dev = Dev::start(&examples);
    dev.row("a first row", |_| true);
    let printed = began.elapsed();
    let url = dev.ready("quickstart");
    println!("first row after {printed:?}, ready after {:?}", began.elapsed());
    assert!(url.ends_with("/default/quickstart/mcp"), "{url}");
    let row = dev.seen.last().expect("rows");
    assert_eq!((&row["namespace"], &row["reason"], &row["tools"]), (&"default".into(), &"Ready".into(), &4.into()));

    let tools = run(&["tools", &url, "-o", "json"]);
    assert_exit(&tools, 0);
    let tools: serde_json::Value = serde_json::from_str(&stdout(&tools)).expect("JSON");
    let names: Vec<_> = tools.as_array().expect("an array").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["echo", "get-sum", "slow", "ask"]);
    let sum = run(&["call", &url, "get-sum", "a=2", "b=40"]);
    assert_exit(&sum, 0);
    assert_eq!(stdout(&sum), "The sum of 2 and 40 is 42.\n");
}

#[test]
fn a_toolset_is_served_beside_its_servers_under_its_own_names_and_an_edit_of_it_is_served_too() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/toolset.yaml");
    let files = directory();
    let text = std::fs::read_to_string(example).expect("reads");
    write(&files, "a.yaml", &text);
    let mut dev = Dev::start(files.path());
    dev.ready("numbers");
    let said = dev.says("Toolset default/arithmetic is at http://");
    let url = said.split_whitespace().last().expect("a URL");
    assert!(url.ends_with("/default/toolsets/arithmetic/mcp"), "{url}");
    let names = || {
        let tools: serde_json::Value =
            serde_json::from_str(&stdout(&run(&["tools", url, "-o", "json"]))).expect("JSON");
        let names =
            tools.as_array().expect("an array").iter().map(|tool| tool["name"].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    eventually("its tools are listed", || names() == ["default__numbers__echo", "sum"]);
    let sum = run(&["call", url, "sum", "a=2", "b=40"]);
    assert_exit(&sum, 0);
    assert_eq!(stdout(&sum), "The sum of 2 and 40 is 42.\n");
    write(&files, "a.yaml", &text.replace("as: sum", "as: total"));
    eventually("the new name is listed", || names() == ["default__numbers__echo", "total"]);
}

#[test]
fn a_table_and_a_client_configuration_are_printed_for_people() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let out = files.path().join("out");
    let dev = portolan(&["dev", "-f", files.path().to_str().expect("UTF-8"), "--listen", "127.0.0.1:0"])
        .stdout(std::fs::File::create(&out).expect("a file"))
        .spawn()
        .expect("starts");
    let mut dev = Ending(dev);
    let text = || std::fs::read_to_string(&out).expect("reads");
    eventually("a ready row", || {
        let ready = ["default/a", "True", "Ready", "4"];
        text().lines().any(|line| line.split_whitespace().take(4).eq(ready))
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(dev.0.id().try_into().expect("a pid")), Signal::SIGINT)
        .expect("signals");
    assert_eq!(dev.0.wait().expect("waits").code(), Some(0));
    let text = text();
    assert!(text.starts_with("NAMESPACE/NAME  READY  REASON"), "{text}");
    let configuration = &text[text.find("\n{\n").expect("a configuration")..text.find("\n}\n").expect("its end") + 3];
    let configuration: serde_json::Value = serde_json::from_str(configuration).expect("JSON");
    assert_eq!(configuration["mcpServers"]["a"]["type"], "http");
    assert_eq!(text.matches("mcpServers").count(), 1, "once");
}

#[test]
fn a_change_is_served_at_once_and_cuts_no_call_that_is_under_way() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let call =
        portolan(&["call", &url, "slow", "seconds=3"]).stdout(std::process::Stdio::piped()).spawn().expect("starts");
    eventually("the session's process and the probe's", || children_of(dev.pid()).len() >= 2);
    let before = children_of(dev.pid());

    write(&files, "a.yaml", &server("a", "    env: [{name: CHANGED, value: soon}]\n"));
    dev.row("the new revision", |row| row["ready"] == false);
    dev.ready("a");
    assert!(!marked("CHANGED=soon").is_empty(), "new processes have the new environment");
    let call = call.wait_with_output().expect("waits");
    assert_exit(&call, 0);
    assert_eq!(stdout(&call), "Done after 3 s.\n");
    eventually("the old revision's end", || before.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    assert_exit(&run(&["call", &url, "echo", "message=after"]), 0);
}

#[test]
fn a_file_that_is_not_right_is_told_by_line_and_its_last_good_version_serves_on() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    write(&files, "b.yaml", &server("b", ""));
    let mut dev = Dev::start(files.path());
    let url = dev.row("a ready", |row| row["name"] == "a" && row["ready"] == true)["url"].clone();
    let url = url.as_str().expect("a URL");
    for (text, place, message) in [
        (server("a", "  sesions: {}\n"), ":9: spec.sesions: ", "did you mean sessions?"),
        (
            server("a", "").replace("    command: [portolan, demo-server]\n", ""),
            ":5: spec.container.command: ",
            "Stdio needs",
        ),
        (server("a", "").replace("Stdio", "Pigeon"), ":7: spec.container.transport: ", "Stdio"),
        (server("a", "").replace("spec:", "spec: ["), ":", ""),
    ] {
        write(&files, "a.yaml", &text);
        let line = dev.says("a.yaml:");
        assert!(line.contains(place) && line.contains(message), "{line}");
        assert_exit(&run(&["call", url, "echo", "message=still"]), 0);
    }
    write(&files, "a.yaml", &server("a", "  timeouts: {request: 5s}\n"));
    dev.row("the mended version", |row| row["name"] == "a" && row["ready"] == false);
    dev.ready("a");
}

#[test]
fn a_command_that_is_not_on_path_is_named_and_found_once_it_is_there() {
    let files = directory();
    let bin = directory();
    let path = format!("    env: [{{name: PATH, value: \"{}:/usr/bin:/bin\"}}]\n", bin.path().display());
    write(&files, "a.yaml", &server("a", &path).replace("[portolan, demo-server]", "[no-such-command, demo-server]"));
    let mut dev = Dev::start(files.path());
    let row = dev.row("a verdict", |row| row["reason"] == "SpawnFailed");
    assert_eq!(row["ready"], false);
    assert!(row["message"].as_str().is_some_and(|text| text.contains("\"no-such-command\" is not on PATH")), "{row}");
    let url = row["url"].as_str().expect("a URL").to_owned();
    assert_exit(&run(&["tools", &url]), 4);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portolan"), bin.path().join("no-such-command")).expect("links");
    dev.ready("a");
    assert_exit(&run(&["tools", &url]), 0);
}

#[test]
fn a_missing_secret_is_named_by_line_and_the_server_starts_once_a_file_brings_it() {
    let files = directory();
    let env = "    env: [{name: MARK, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n";
    write(&files, "a.yaml", &server("a", env));
    let mut dev = Dev::start(files.path());
    let line = dev.says("a.yaml:9: spec.container.env[0]: ");
    assert!(line.contains("the files have no Secret default/s"), "{line}");
    let row = dev.row("a verdict", |row| row["reason"] == "SecretNotFound");
    assert_eq!(row["ready"], false);
    let value = format!("cli-test-secret-{}", dev.pid());
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{k: {value}}}\n");
    write(&files, "s.yaml", &secret);
    dev.ready("a");
    assert!(!marked(&format!("MARK={value}")).is_empty());

    write(&files, "s.yaml", &secret.replace(&value, &format!("{value}-2")));
    dev.row("a revision with the new content", |row| row["ready"] == false);
    dev.ready("a");
    assert!(!marked(&format!("MARK={value}-2")).is_empty());
}

#[test]
fn a_server_whose_file_is_deleted_is_gone() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    write(&files, "b.yaml", &server("b", ""));
    let mut dev = Dev::start(files.path());
    let url = dev.row("a ready", |row| row["name"] == "a" && row["ready"] == true)["url"].clone();
    std::fs::remove_file(files.path().join("a.yaml")).expect("removes");
    dev.row("its end", |row| row["name"] == "a" && row["reason"] == "Deleted");
    let url = url.as_str().expect("a URL");
    eventually("no route", || run(&["tools", url]).status.code() == Some(4));
}

#[test]
fn sigterm_and_sigint_end_every_process_that_dev_started() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let files = directory();
        let marker = format!("cli-test-end-{}-{signal}", std::process::id());
        let env = format!("    env: [{{name: MARK, value: {marker}}}]\n");
        write(&files, "a.yaml", &server("a", &env));
        let script = "exec 3<&0; setsid sleep 600 & exec portolan demo-server <&3";
        let forks = server("b", &env).replace("[portolan, demo-server]", &format!("[sh, -c, {script:?}]"));
        write(&files, "b.yaml", &forks);
        let mut dev = Dev::start(files.path());
        dev.all_ready(&["a", "b"]);
        assert!(marked(&format!("MARK={marker}")).len() >= 3, "servers, and what one of them left to itself");
        assert_eq!(dev.end(signal), Some(0));
        assert_eq!(marked(&format!("MARK={marker}")), Vec::<i32>::new(), "{signal}");
    }
}

#[test]
fn a_gateway_with_api_keys_admits_their_holders_alone() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let minted = run(&["apikey", "--subject", "ci", "-o", "json"]);
    assert_exit(&minted, 0);
    let minted: serde_json::Value = serde_json::from_str(&stdout(&minted)).expect("JSON");
    let (key, hash) = (minted["key"].as_str().expect("a key"), minted["sha256"].as_str().expect("a hash"));
    write(
        &files,
        "gateway.yaml",
        &format!(
            "apiVersion: portolan.dev/v1alpha1\nkind: MCPGateway\nmetadata: {{name: default}}\nspec:\n  authentication:\n    \
             apiKeys: [{{name: keys, secretRef: {{name: keys}}}}]\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{ci: \"{hash}\"}}\n"
        ),
    );
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let refused = run(&["tools", &url, "-o", "json"]);
    assert_exit(&refused, 3);
    let error: serde_json::Value = serde_json::from_str(&stderr(&refused)).expect("one JSON line");
    assert_eq!((&error["error"]["kind"], &error["error"]["exitCode"]), (&"AuthNeeded".into(), &3.into()));
    assert_exit(&run(&["tools", &url, "--api-key", &format!("ptl_{}", "A".repeat(43))]), 3);
    assert_exit(&run(&["call", &url, "echo", "message=hi", "--api-key", key]), 0);
}

#[test]
fn a_gateway_whose_methods_need_a_cluster_admits_nobody_and_says_so() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let gateway = "apiVersion: portolan.dev/v1alpha1\nkind: MCPGateway\nmetadata: {name: default}\nspec:\n  \
                   authentication:\n    serviceAccounts: {audiences: [portolan]}\n";
    write(&files, "gateway.yaml", gateway);
    let mut dev = Dev::start(files.path());
    let line = dev.says("admits nobody here");
    assert!(line.contains("gateway.yaml:5: spec.authentication:"), "{line}");
    let url = dev.ready("a");
    assert_exit(&run(&["tools", &url]), 3);
    assert_exit(&run(&["tools", &url, "--token", "x.y.z"]), 3);
}

#[test]
fn fields_that_only_a_cluster_can_honour_are_listed_once() {
    let files = directory();
    let more = "    resources: {limits: {memory: 1Gi}}\n  replicas: 3\n  pod: {priorityClassName: high}\n";
    write(&files, "a.yaml", &format!("{}---\nkind: Deployment\napiVersion: apps/v1\n", server("a", more)));
    let mut dev = Dev::start(files.path());
    dev.says("Listening");
    dev.ready("a");
    for place in
        ["9: spec.container.resources:", "10: spec.replicas:", "11: spec.pod:", "13: kind: Deployment is ignored"]
    {
        let told = dev.said.iter().filter(|line| line.starts_with("warning: ") && line.contains(place)).count();
        assert_eq!(told, 1, "{place} in {:#?}", dev.said);
    }
}

#[test]
fn an_address_that_others_can_reach_and_a_path_that_is_not_there_are_refused() {
    let files = directory();
    let path = files.path().to_str().expect("UTF-8");
    for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
        let refused = run(&["dev", "-f", path, "--listen", listen]);
        assert_exit(&refused, 1);
        assert!(stderr(&refused).contains("write a loopback address"), "{}", stderr(&refused));
    }
    assert_exit(&run(&["dev", "-f", "/nowhere/at/all", "--listen", "127.0.0.1:0"]), 1);
}

/// Direct children of a process: the guards of server processes.
fn children_of(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[test]
fn a_bad_edit_that_is_taken_back_leaves_the_running_version_as_it_was() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let before = children_of(dev.pid());
    write(&files, "a.yaml", &server("a", "").replace("[portolan, demo-server]", "[no-such-command]"));
    dev.row("a verdict", |row| row["reason"] == "SpawnFailed");
    assert_exit(&run(&["call", &url, "echo", "message=still"]), 0);
    write(&files, "a.yaml", &server("a", ""));
    dev.ready("a");
    assert_exit(&run(&["call", &url, "echo", "message=still"]), 0);
    assert!(before.iter().any(|pid| children_of(dev.pid()).contains(pid)), "the probe's process is the one it was");
}

#[test]
fn an_old_version_that_still_drains_is_taken_up_again_when_the_edit_is_taken_back() {
    let files = directory();
    write(&files, "a.yaml", &server("a", ""));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let call =
        portolan(&["call", &url, "slow", "seconds=6"]).stdout(std::process::Stdio::piped()).spawn().expect("starts");
    eventually("the session's process", || children_of(dev.pid()).len() >= 2);
    let first = children_of(dev.pid());
    write(&files, "a.yaml", &server("a", "    env: [{name: OTHER, value: version}]\n"));
    dev.row("another version", |row| row["ready"] == false);
    dev.ready("a");
    write(&files, "a.yaml", &server("a", ""));
    dev.row("the first version again", |row| row["ready"] == false);
    dev.ready("a");
    eventually("the other version's end", || marked("OTHER=version").is_empty());
    assert_exit(&call.wait_with_output().expect("waits"), 0);
    assert!(first.iter().any(|pid| children_of(dev.pid()).contains(pid)), "nothing was started anew");
    assert_exit(&run(&["call", &url, "echo", "message=back"]), 0);
}

#[test]
fn with_recreate_a_version_starts_when_the_one_before_has_ended_and_not_beside_it() {
    let files = directory();
    let manifest = |mark: &str| {
        format!(
            "{}  rollout: {{type: Recreate}}\n",
            server("a", &format!("    env: [{{name: TURN, value: {mark}}}]\n"))
        )
    };
    write(&files, "a.yaml", &manifest("first"));
    let mut dev = Dev::start(files.path());
    let url = dev.ready("a");
    let call =
        portolan(&["call", &url, "slow", "seconds=3"]).stdout(std::process::Stdio::piped()).spawn().expect("starts");
    eventually("the session's process", || children_of(dev.pid()).len() >= 2);
    write(&files, "a.yaml", &manifest("second"));
    let row = dev.row("it waits", |row| row["reason"] == "Draining");
    assert!(row["message"].as_str().expect("text").contains("ends first"), "{row}");
    assert!(marked("TURN=second").is_empty(), "not beside the first");
    assert_exit(&call.wait_with_output().expect("waits"), 0);
    dev.ready("a");
    assert!(marked("TURN=first").is_empty(), "the first has ended");
    assert_exit(&run(&["call", &url, "echo", "message=second"]), 0);
}

#[test]
fn a_dev_that_is_killed_leaves_no_server_behind() {
    let files = directory();
    let marker = format!("cli-test-killed-{}", std::process::id());
    write(&files, "a.yaml", &server("a", &format!("    env: [{{name: MARK, value: {marker}}}]\n")));
    let mut dev = Dev::start(files.path());
    dev.ready("a");
    let mark = format!("MARK={marker}");
    assert!(!marked(&mark).is_empty());
    assert_eq!(dev.end(Signal::SIGKILL), None);
    eventually("the servers' end", || marked(&mark).is_empty());
}
