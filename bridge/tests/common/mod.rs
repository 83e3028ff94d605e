//! A bridge under test and a client that speaks its wire contract.

#![allow(dead_code, unreachable_pub, reason = "each suite uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

pub mod client;
pub mod fixture;
#[path = "../../../tests/support/panics.rs"]
pub mod panics;
pub mod raw;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::messages_of;
#[allow(unused_imports, reason = "each suite uses its part")]
pub use client::{Client, Listener, chunk};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_mcp::mac::{self, MacKey};
use portolan_mcp::sse::Decoder;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, BridgeStatus, ProbeState};
use serde_json::{Value, json};

/// A header of a request.
pub type Header = (HeaderName, String);

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const KEY: [u8; 32] = [42; 32];

/// A running bridge.
pub struct Rig {
    child: Child,
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<String>>,
    reads: JoinHandle<()>,
    _key: tempfile::NamedTempFile,
}

/// What came back for one request.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub messages: Vec<Value>,
}

impl Reply {
    /// Reads an answer to its end.
    pub async fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("whole");
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        let is_events = head.headers.get("content-type").is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"))
        });
        let messages = if is_events {
            let events = Decoder::new(usize::MAX).push(&body).expect("events");
            messages_of(&events)
        } else if body.is_empty() {
            Vec::new()
        } else {
            vec![serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"))]
        };
        Self { status: head.status, headers: head.headers, trailers, messages }
    }

    pub fn failure(&self) -> Option<&str> {
        self.headers.get(wire::FAILURE).or(self.trailers.get(wire::FAILURE)).and_then(|value| value.to_str().ok())
    }

    /// The text of a tool's result.
    pub fn text(&self) -> &str {
        let answer = self.messages.last().expect("an answer");
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
    }

    pub fn error_type(&self) -> &str {
        let answer = self.messages.last().expect("an answer");
        let details = answer.pointer("/result/structuredContent").or(answer.pointer("/error/data"));
        details.and_then(|details| details["error_type"].as_str()).unwrap_or_else(|| panic!("no failure in {answer}"))
    }
}

pub fn python(mode: &str) -> Vec<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/server.py");
    vec!["python3".into(), script.display().to_string(), mode.into()]
}

pub fn third_party(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/thirdparty/bin").join(name);
    assert!(root.exists(), "{} is missing; run tests/thirdparty/install", root.display());
    root.display().to_string()
}

impl Rig {
    /// A bridge in front of `command` once its probe is ready.
    pub async fn ready(flags: &[&str], command: &[String]) -> Self {
        let rig = Self::start(flags, command);
        rig.until_ready().await;
        rig
    }

    pub fn start(flags: &[&str], command: &[String]) -> Self {
        let mut args: Vec<String> = flags.iter().map(ToString::to_string).collect();
        args.push("--".into());
        args.extend(command.iter().cloned());
        Self::launch("stdio", &args)
    }

    pub fn http(flags: &[&str], upstream: &str) -> Self {
        Self::beside("http", flags, upstream)
    }

    pub fn sse(flags: &[&str], upstream: &str) -> Self {
        Self::beside("sse", flags, upstream)
    }

    fn beside(subcommand: &str, flags: &[&str], upstream: &str) -> Self {
        let mut args: Vec<String> = vec!["--upstream".into(), upstream.into()];
        args.extend(flags.iter().map(ToString::to_string));
        Self::launch(subcommand, &args)
    }

    fn launch(subcommand: &str, args: &[String]) -> Self {
        let key = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(key.path(), KEY).expect("writable");
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan-bridge"))
            .args([subcommand, "--data", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mac-key-file"])
            .arg(key.path())
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let (data, admin) = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("readable") > 0, "the bridge ended: {}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["message"] == "the bridge listens" {
                let address = |name: &str| entry[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
                break (address("data"), address("admin"));
            }
        };
        let kept = Arc::clone(&log);
        let reads = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, data, admin, log, reads, _key: key }
    }

    /// Waits for a line of the log that holds `text`, and returns it.
    pub async fn logged(&self, text: &str) -> String {
        let find = || self.log.lock().unwrap().lines().find(|line| line.contains(text)).map(str::to_owned);
        until(&format!("{text:?} is logged"), async || find().is_some()).await;
        find().expect("logged")
    }

    /// The server processes, oldest first.
    pub fn servers(&self) -> Vec<Pid> {
        let is_server = |pid: &Pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            // The guard's command line holds these words too, but behind its own.
            words.next().is_some_and(|word| word.ends_with(b"python3"))
                && words.next().is_some_and(|word| word.ends_with(b".py"))
        };
        let mut servers: Vec<(u64, Pid)> =
            self.processes().into_iter().filter(is_server).filter_map(|pid| Some((started(pid)?, pid))).collect();
        servers.sort_unstable();
        servers.into_iter().map(|(_, pid)| pid).collect()
    }

    pub async fn until_ready(&self) {
        until("the probe is ready", async || self.status().await.probe.state == ProbeState::Ready).await;
    }

    pub async fn status(&self) -> BridgeStatus {
        let reply = self.request(Method::GET, self.admin, wire::STATUS, "", None, &[]).await;
        assert_eq!(reply.status, StatusCode::OK);
        serde_json::from_value(reply.messages[0].clone()).expect("a status")
    }

    pub async fn admin_get(&self, path: &str) -> StatusCode {
        self.request(Method::GET, self.admin, path, "", None, &[]).await.status
    }

    /// Opens a session.
    pub async fn open(&self) -> Client<'_> {
        let key = SessionKey::generate().expect("random");
        let client = Client { rig: self, key };
        let reply = client.initialize().await;
        assert!(reply.messages[0]["result"]["protocolVersion"].is_string(), "{reply:?}");
        let initialized = client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert_eq!(initialized.status, StatusCode::ACCEPTED, "{initialized:?}");
        client
    }

    pub fn client(&self) -> Client<'_> {
        Client { rig: self, key: SessionKey::generate().expect("random") }
    }

    pub async fn send(
        &self,
        method: Method,
        port: SocketAddr,
        path: &str,
        session: &str,
        body: Option<Bytes>,
        headers: &[Header],
    ) -> http::Response<Incoming> {
        let socket = tokio::net::TcpStream::connect(port).await.expect("the bridge listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("a connection");
        tokio::spawn(connection);
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let pod = headers.iter().find(|(name, _)| *name == wire::POD).map_or("", |(_, uid)| uid);
        let subject = mac::Subject { method: method.as_str(), path, session, pod };
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", port.to_string());
        if !headers.iter().any(|(name, _)| *name == mac::HEADER) {
            request = request.header(mac::HEADER, MacKey::new(&KEY).unwrap().sign(subject, now));
        }
        if !session.is_empty() {
            request = request.header(wire::SESSION, session);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request = request.header("accept", "application/json, text/event-stream").header("te", "trailers");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.unwrap_or_default())).expect("a request");
        sender.send_request(request).await.expect("an answer")
    }

    pub async fn request(
        &self,
        method: Method,
        port: SocketAddr,
        path: &str,
        session: &str,
        body: Option<Bytes>,
        headers: &[Header],
    ) -> Reply {
        Reply::of(self.send(method, port, path, session, body, headers).await).await
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the bridge runs");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Everything the bridge started, at any depth.
    pub fn processes(&self) -> Vec<Pid> {
        let parents: Vec<(i32, i32)> = all_processes();
        let mut found = vec![self.pid().as_raw()];
        let mut at = 0;
        while at < found.len() {
            let current = found[at];
            found.extend(parents.iter().filter(|(_, parent)| *parent == current).map(|(pid, _)| *pid));
            at += 1;
        }
        found.into_iter().map(Pid::from_raw).collect()
    }

    /// The bridge itself, below its reaper.
    pub fn bridge_pid(&self) -> Pid {
        let own = self.pid().as_raw();
        let child = all_processes().into_iter().find(|(_, parent)| *parent == own).expect("a bridge below the reaper");
        Pid::from_raw(child.0)
    }

    pub async fn until_ended(&mut self) -> std::process::ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the bridge did not end: {}", self.log.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Rig {
    /// A panic in a task of the bridge ends that task, and no request may have been in it.
    fn assert_no_panic(&self) {
        let ended = Instant::now();
        // A server that a test left behind may hold the log open.
        while !self.reads.is_finished() && ended.elapsed() < Duration::from_secs(1) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panics::assert_none_in(&self.log.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for _ in 0..2 {
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return self.assert_no_panic();
            }
            // The second signal may have been merged with the first.
            let _ = kill(self.pid(), Signal::SIGTERM);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_processes() -> Vec<(i32, i32)> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        Some((pid, fields.nth(1)?.parse().ok()?))
    })
    .collect()
}

/// When a process started, in the kernel's ticks.
fn started(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the process is there, a zombie counted.
pub fn exists(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).exists()
}

/// Resident memory in KiB.
pub fn resident_kib(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident set");
    line.split_ascii_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Waits for `condition`.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
