//! `portolan dev` as a process: started on a folder, read by its JSON lines, ended with its children. One that panicked
//! anywhere fails the test that ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::metrics::Metrics;
use crate::wait::PATIENCE;
use crate::{paths, process};

/// A running `portolan dev`.
pub struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it says on stderr, its servers' included.
    said: NamedTempFile,
}

impl Dev {
    /// Starts it on a folder of manifests, on a free loopback port, with the third-party servers first on PATH.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::launch(folder, None)
    }

    /// The same, with a line in its log for every request.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_logging(folder: &Path) -> Self {
        Self::launch(folder, Some("info"))
    }

    fn launch(folder: &Path, level: Option<&str>) -> Self {
        let path =
            format!("{}:{}", paths::repo("target/thirdparty/bin").display(), std::env::var("PATH").unwrap_or_default());
        let said = NamedTempFile::new().expect("a file");
        let level = level.map(|level| ["--log-level", level]);
        let mut child = Command::new(paths::binary("portolan"))
            .args(level.into_iter().flatten())
            .args(["dev", "--listen", "127.0.0.1:0", "-o", "json", "-f"])
            .arg(folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said.reopen().expect("the file is there"))
            .kill_on_drop(true)
            .spawn()
            .expect("portolan dev starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines, said }
    }

    /// Reads lines until one satisfies `wanted`, and returns it.
    ///
    /// # Panics
    /// None comes within [`PATIENCE`], or the process ends.
    pub async fn line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        let search = async {
            while let Some(line) = self.lines.next_line().await.expect("stdout can be read") {
                let value: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
                if wanted(&value) {
                    return Some(value);
                }
                seen.push(line);
            }
            None
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(Some(value)) => value,
            Ok(None) => panic!("{what}: portolan dev ended; it said {seen:?}"),
            Err(_) => panic!("{what}: not within {PATIENCE:?}; it said {seen:?}"),
        }
    }

    /// Waits until a server is ready and returns its URL.
    ///
    /// # Panics
    /// It does not get ready.
    pub async fn ready(&mut self, name: &str) -> String {
        let line = self.line(&format!("{name} is ready"), |line| line["name"] == name && line["ready"] == true).await;
        line["url"].as_str().expect("a URL").to_owned()
    }

    /// The process's id.
    ///
    /// # Panics
    /// It has ended.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| pid.try_into().ok()).expect("it runs")
    }

    /// The file that it writes its log to.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.said.path()
    }

    /// What its gateway counts, read from its admin port: that is a port of loopback which it tells nobody.
    ///
    /// # Panics
    /// No port that it listens on has them.
    pub async fn metrics(&self) -> Metrics {
        let ports = process::listens(self.pid());
        for port in &ports {
            if let Some(metrics) = Metrics::read(SocketAddr::from(([127, 0, 0, 1], *port))).await {
                return metrics;
            }
        }
        panic!("none of the ports {ports:?} has metrics");
    }

    /// Every line on stderr that tells of a panic.
    ///
    /// # Panics
    /// What it said cannot be read.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.said().lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.said.path()).expect("what it said can be read")).into_owned()
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    /// It does not end within half a minute, or it panicked before.
    pub async fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.pid()), signal).expect("the signal is sent");
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.expect("it ends");
        assert_eq!(self.panics(), Vec::<String>::new());
        ended.expect("its status is known")
    }
}

impl Drop for Dev {
    /// A test that fails shows what was said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("portolan dev said:\n{}", self.said());
        }
    }
}
