//! Runs the real binary and waits for what it prints.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each suite uses its own part")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../../../tests/support/panics.rs"]
mod panics;
pub mod session;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing that is waited for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The directory of the binary under test.
pub fn binary_directory() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_portolan")).parent().expect("a directory")
}

/// `portolan` with `args`, with the binary itself on PATH.
pub fn portolan(args: &[&str]) -> Command {
    let path = std::env::var("PATH").expect("PATH");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.args(args).env("PATH", format!("{}:{path}", binary_directory().display()));
    for name in ["RUST_LOG", "PORTOLAN_TOKEN", "PORTOLAN_API_KEY", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command
}

/// Runs `portolan` to its end; one that should have ended and did not is ended by SIGKILL, so that its test fails.
pub fn run(args: &[&str]) -> Output {
    let child =
        portolan(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (ended, watched) = sync_channel::<()>(0);
    let watchdog = std::thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("runs");
    drop(ended);
    watchdog.join().expect("watches");
    output
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The exit code, with everything that was said when it is not `expected`.
pub fn assert_exit(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}

/// A server on the quickstart's command; `more` is YAML below `spec`.
pub fn server(name: &str, more: &str) -> String {
    format!(
        "apiVersion: portolan.dev/v1alpha1\nkind: MCPServer\nmetadata: {{name: {name}}}\nspec:\n  container:\n    \
         image: localhost/none:1\n    transport: Stdio\n    command: [portolan, demo-server]\n{more}"
    )
}

/// A running `portolan dev -o json`.
pub struct Dev {
    child: Child,
    rows: Receiver<Value>,
    errors: Receiver<String>,
    readers: Vec<JoinHandle<()>>,
    /// What it said on stderr so far.
    pub said: Vec<String>,
    /// What it said on stdout so far.
    pub seen: Vec<Value>,
}

impl Dev {
    /// Starts it on `directory`.
    pub fn start(directory: &Path) -> Self {
        let directory = directory.to_str().expect("UTF-8");
        let mut child = portolan(&["dev", "-f", directory, "--listen", "127.0.0.1:0", "-o", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let parse = |line: String| serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON on stdout: {line}"));
        let (rows, out) = lines(child.stdout.take().expect("piped"), parse);
        let (errors, err) = lines(child.stderr.take().expect("piped"), |line| line);
        Self { child, rows, errors, readers: vec![out, err], said: Vec::new(), seen: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a row for which `wanted` holds.
    pub fn row(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.rows.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(row) => {
                    self.seen.push(row.clone());
                    if wanted(&row) {
                        return row;
                    }
                }
                Err(error) => self.give_up(what, error),
            }
        }
    }

    /// Waits until the server `name` is ready; its URL.
    pub fn ready(&mut self, name: &str) -> String {
        let row = self.row(&format!("{name} ready"), |row| row["name"] == name && row["ready"] == true);
        row["url"].as_str().expect("a URL").to_owned()
    }

    /// Waits until every one of the servers `names` is ready, in whatever order they become so.
    pub fn all_ready(&mut self, names: &[&str]) {
        let mut missing = BTreeSet::from_iter(names.iter().copied());
        while !missing.is_empty() {
            let row = self.row(&format!("{missing:?} ready"), |row| row["ready"] == true);
            missing.remove(row["name"].as_str().expect("a name"));
        }
    }

    /// Waits for a line on stderr that holds `text`.
    pub fn says(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.errors.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => self.give_up(text, error),
            }
        }
    }

    fn give_up(&mut self, what: &str, error: RecvTimeoutError) -> ! {
        self.said.extend(self.errors.try_iter());
        panic!("waited for {what}: {error}\nrows: {:#?}\nstderr: {:#?}", self.seen, self.said)
    }

    /// Sends `signal` and waits for the end: the exit code.
    pub fn end(mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        self.kill(signal);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code();
            }
            assert!(Instant::now() < end, "dev does not end");
            pause();
        }
    }

    fn kill(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signals");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill(nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.said.extend(self.errors.try_iter());
        panics::assert_none_in(&self.said.join("\n"));
    }
}

fn lines<T: Send + 'static>(
    stream: impl Read + Send + 'static,
    parse: impl Fn(String) -> T + Send + 'static,
) -> (Receiver<T>, JoinHandle<()>) {
    let (sender, receiver) = sync_channel(10_000);
    let thread = std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(parse(line)).is_err() {
                return;
            }
        }
    });
    (receiver, thread)
}

/// A moment before a condition is looked at again.
#[expect(clippy::disallowed_methods, reason = "no runtime here, and what is waited for is a process table")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Waits until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        pause();
    }
}

/// Processes whose environment holds `marker` (`NAME=value`).
pub fn marked(marker: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let holds = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    };
    pids.filter(holds).collect()
}

/// Ends a process when the test does, however that ends.
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
