//! What the tools are run against: two servers that nobody here wrote, behind one `portolan dev` that wants an API key,
//! and a client of good will.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::mcp::Session;
use portolan_tests::process::{self, Memory};
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::{PATIENCE, until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval};

/// The API key of the tools.
pub(crate) const HOSTILE: &str = "ptl_hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhA";
/// The API key of the client of good will.
const GOOD: &str = "ptl_ggggggggggggggggggggggggggggggggggggggggggA";
/// What the gateway knows of either.
const HASHES: [(&str, &str); 2] = [
    ("hostile", "sha256:c3e7bd546c9379e0584d2b2fd2f2e81e83e3dae1e5ba16ddd0abceb0fad324b9"),
    ("good", "sha256:835ee21e86b0b8b9c0b707c8e7b26f7816d2a3534ddaf617ed9491d53b867be8"),
];

/// How often the client of good will calls both servers, or as soon as it was answered.
const PACE: Duration = Duration::from_millis(25);
/// One round of so many comes over a new connection.
const NEW_CONNECTION: u64 = 8;
/// Rounds during an attack, where that is over sooner.
const LEAST: u64 = 2 * NEW_CONNECTION;
/// Rounds before an attack, after which memory and descriptors are what they are in quiet times.
const WARM: u64 = 2 * NEW_CONNECTION;

/// What the client of good will takes during an attack, and what the allocator keeps of it: many times what is seen.
const GOOD_BYTES: u64 = 16 * MIB;
/// Descriptors that may come and go without an attack: the connections of the client, and those of the pools behind.
const GOOD_DESCRIPTORS: usize = 16;

/// Descriptors of a session that a client opened and left: its server's process, and three pipes to it. It is the client's
/// to come back to until it was idle for as long as the server's spec says.
const SESSION_DESCRIPTORS: f64 = 4.0;

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// A running `portolan dev`.
pub(crate) struct Stand {
    pub(crate) dev: Dev,
    /// Where clients connect: address and port.
    pub(crate) gateway: String,
    pub(crate) scratch: TempDir,
    good: Good,
    _folder: TempDir,
}

/// A client that does nothing wrong.
struct Good {
    everything: Session,
    filesystem: Session,
    /// What it reads.
    file: String,
}

impl Stand {
    /// Starts it, and serves the client of good will for a while.
    pub(crate) async fn start() -> Self {
        let (folder, scratch) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let place = scratch.path().display().to_string();
        let mut everything = server("everything", Place::Local(&place));
        // One of its tools would load what it is told from wherever that is.
        everything.env.insert("GZIP_ALLOWED_DOMAINS".into(), "localhost".into());
        let filesystem = server("filesystem", Place::Local(&place));
        let objects = [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "default"},
                "stringData": HASHES.into_iter().collect::<std::collections::BTreeMap<_, _>>()}),
            json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
                "metadata": {"name": "dev", "namespace": "default"},
                "spec": {"authentication": {"apiKeys": [{"name": "users", "secretRef": {"name": "keys"}}]}}}),
            everything.manifest("default", "everything"),
            filesystem.manifest("default", "filesystem"),
        ];
        for (index, object) in objects.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{index}.yaml")), object.to_string()).expect("written");
        }
        let mut dev = Dev::start(folder.path());
        let mut url = String::new();
        let mut waits_for = vec!["everything", "filesystem"];
        while !waits_for.is_empty() {
            let line = dev.line("both are ready", |line| line["ready"] == true).await;
            waits_for.retain(|name| line["name"] != *name);
            url = line["url"].as_str().expect("a URL").to_owned();
        }
        let gateway = url.split('/').nth(2).expect("a host").to_owned();
        let good = Good::open(&gateway, &place).await;
        let stand = Self { dev, gateway, scratch, good, _folder: folder };
        for round in 0..WARM {
            stand.good.round(round).await;
        }
        stand
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway)
    }

    /// Runs an attack that may make the process hold `allowed` bytes more than before it, while the client of good will
    /// calls on; then waits until all is as it was.
    ///
    /// # Panics
    /// Any call of that client failed, memory grew past what is allowed, a connection is left, or something panicked.
    pub(crate) async fn during<T>(&self, allowed: u64, attack: impl Future<Output = T>) -> T {
        let pid = self.dev.pid();
        let (memory, descriptors) = (memory(pid).resident, process::descriptors(pid));
        let sessions = self.dev.metrics().await.sessions_opened();
        process::forget_peak(pid);
        let over = AtomicBool::new(false);
        let attack = async {
            let outcome = attack.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let good = async {
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut rounds = 0;
            while rounds < LEAST || !over.load(Ordering::Relaxed) {
                pace.tick().await;
                self.good.round(rounds).await;
                rounds += 1;
            }
            rounds
        };
        let (outcome, rounds) = tokio::join!(attack, good);
        let grown = self::memory(pid).peak.saturating_sub(memory);
        println!("{rounds} rounds of good will; {memory} bytes before, {grown} more at most, {allowed} allowed");
        // Before memory is looked at: a backtrace takes much of it.
        self.is_whole().await;
        assert!(grown <= allowed + GOOD_BYTES, "{grown} bytes more than {memory}: {allowed} and {GOOD_BYTES} may be");
        until("connections and descriptors are as before", PATIENCE, || async {
            let (now, metrics) = (process::descriptors(pid), self.dev.metrics().await);
            let (open, opened) = (metrics.connections(), metrics.sessions_opened() - sessions);
            let may_be = (descriptors + GOOD_DESCRIPTORS) as f64 + SESSION_DESCRIPTORS * opened;
            if now as f64 <= may_be && open <= 4.0 {
                Ok(())
            } else {
                Err(format!("{now} descriptors, {descriptors} before; {opened} new sessions; {open} connections"))
            }
        })
        .await;
        self.good.round(0).await;
        outcome
    }

    /// How often a bound was hit.
    pub(crate) async fn hits(&self, bound: &str) -> f64 {
        self.dev.metrics().await.hits(bound)
    }

    /// Nothing panicked, and no request was answered with a fault of the gateway's own.
    async fn is_whole(&self) {
        let metrics = self.dev.metrics().await;
        assert_eq!(self.dev.panics(), Vec::<String>::new());
        assert_eq!(metrics.value("portolan_gateway_panics_total"), 0.0);
        assert_eq!(metrics.requests(&[r#"outcome="Internal""#]), 0.0);
    }

    pub(crate) async fn end(self) {
        assert!(self.dev.end(Signal::SIGTERM).await.success());
    }
}

fn memory(pid: i32) -> Memory {
    Memory::of(pid).expect("it runs")
}

impl Good {
    async fn open(gateway: &str, scratch: &str) -> Self {
        let file = format!("{scratch}/good.txt");
        std::fs::write(&file, "All quiet at the pier.").expect("written");
        let open = async |name: &str| {
            let url = format!("http://{gateway}/default/{name}/mcp");
            Session::open(&url, Some(GOOD)).await.expect("a session")
        };
        Self { everything: open("everything").await, filesystem: open("filesystem").await, file }
    }

    /// Calls both servers.
    async fn round(&self, round: u64) {
        let [everything, filesystem] = [&self.everything, &self.filesystem]
            .map(|session| if round.is_multiple_of(NEW_CONNECTION) { session.anew() } else { session.clone() });
        let message = format!("ahoy {round}");
        call(&everything, round, "echo", json!({"message": message}), &message).await;
        call(&filesystem, round, "read_text_file", json!({"path": self.file}), "All quiet at the pier.").await;
    }
}

async fn call(session: &Session, id: u64, tool: &str, arguments: Value, expected: &str) {
    let reply = session.call(id, tool, arguments).await.expect("a client of good will is answered");
    assert_eq!(reply.status, StatusCode::OK, "{tool}: {:?}", reply.messages);
    let text = reply.answer()["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains(expected), "{tool}: {}", reply.answer());
}
