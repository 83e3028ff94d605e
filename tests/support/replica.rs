//! `portolan gateway` as a process that reads its configuration from an API server of the test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::callgrind;
use crate::mcp;
use crate::metrics::Metrics;
use crate::ports::free_port;
use crate::process::{Memory, forget_peak, processor_time};
use crate::wait::{PATIENCE, until};

/// A gateway; it ends with this.
pub struct Replica {
    /// Where it takes requests of clients.
    pub address: SocketAddr,
    admin: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Replica {
    /// Starts one that reads its configuration from `api`, and waits until it serves it.
    ///
    /// # Panics
    /// It does not start, or does not get ready.
    pub async fn start(binary: &Path, api: SocketAddr) -> Self {
        Self::launch(|_| Command::new(binary), api).await
    }

    /// Starts one whose instructions are counted, on one thread. Everything takes many times as long.
    ///
    /// # Panics
    /// It does not start, or does not get ready.
    pub async fn counted(binary: &Path, api: SocketAddr) -> Self {
        Self::launch(|directory| callgrind::command(binary, directory), api).await
    }

    /// How many instructions it ran while `work` was done, of a [`Self::counted`] one.
    ///
    /// # Panics
    /// They are not counted.
    pub async fn instructions(&self, work: impl Future<Output = ()>) -> f64 {
        callgrind::instructions(self.process.id(), self.directory.path(), work).await
    }

    async fn launch(command: impl FnOnce(&Path) -> Command, api: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{api}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).expect("written");
        let log = std::fs::File::create(directory.path().join("log")).expect("created");
        let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let process = command(directory.path())
            .current_dir(directory.path())
            .args(["gateway", "--name=default", "--namespace=portolan", "--tenant-namespaces=default"])
            .arg(format!("--listen={address}"))
            .arg(format!("--admin={admin}"))
            .env("KUBECONFIG", kubeconfig)
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        let replica = Self { address, admin, process, directory };
        until("the replica is ready", PATIENCE, || async {
            let asked = replica.ask("readyz").await.map_err(|error| error.to_string())?;
            if asked.status().is_success() { Ok(()) } else { Err(asked.text().await.unwrap_or_default()) }
        })
        .await;
        replica
    }

    /// Ends it as a node does that loses its power.
    ///
    /// # Panics
    /// It has ended before.
    pub fn kill(&mut self) {
        self.process.kill().expect("it ran until now");
        self.process.wait().expect("it ends");
    }

    /// The memory that it has, in bytes.
    ///
    /// # Panics
    /// It has ended.
    #[must_use]
    pub fn resident(&self) -> u64 {
        Memory::of(self.pid()).expect("it runs").resident
    }

    /// The most memory that it had while `work` was done, in bytes.
    ///
    /// # Panics
    /// It has ended.
    pub async fn peak(&self, work: impl Future<Output = ()>) -> u64 {
        forget_peak(self.pid());
        work.await;
        Memory::of(self.pid()).expect("it runs").peak
    }

    /// How long it had a processor while `work` was done.
    ///
    /// # Panics
    /// It has ended.
    pub async fn busy(&self, work: impl Future<Output = ()>) -> Duration {
        let before = processor_time(self.pid());
        work.await;
        processor_time(self.pid()) - before
    }

    /// The value of one series of its metrics; 0 where there is none.
    ///
    /// # Panics
    /// It has ended.
    pub async fn metric(&self, series: &str) -> f64 {
        self.metrics().await.value(series)
    }

    /// All of its metrics.
    ///
    /// # Panics
    /// It has ended.
    pub async fn metrics(&self) -> Metrics {
        Metrics::read(self.admin).await.expect("it runs")
    }

    /// It still runs, and neither counted a panic nor said one.
    ///
    /// # Panics
    /// It is not so.
    pub async fn assert_well(&mut self) {
        assert!(self.process.try_wait().expect("its state").is_none(), "it runs: {}", self.log());
        let panics = self.metric("portolan_gateway_panics_total").await;
        assert!(panics == 0.0, "{panics} panics: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    fn pid(&self) -> i32 {
        self.process.id().try_into().expect("a process id")
    }

    /// Asks the port for probes and metrics.
    async fn ask(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        mcp::http().get(format!("http://{}/{path}", self.admin)).send().await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("is there")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // One that was killed by the test is gone already.
        let _gone = self.process.kill();
        self.process.wait().expect("it ends");
    }
}
