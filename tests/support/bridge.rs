//! `portolan-bridge` as a process: started in front of a server, ended with it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::callgrind;
use crate::mcp;
use crate::objects::{MAC_KEY, Pod};
use crate::panics;
use crate::ports::free_port;
use crate::wait::{PATIENCE, until};

const UID: &str = "uid-1";
/// What it says.
const LOG: &str = "log";

/// A bridge; it ends with this, and its servers with it.
pub struct Bridge {
    address: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Bridge {
    /// Starts it and waits until its server is ready. `behind` says what stands there, as `subcommand` wants to be told.
    ///
    /// # Panics
    /// It does not start, or its server does not get ready.
    pub async fn start(binary: &Path, subcommand: &str, behind: &[&str]) -> Self {
        Self::launch(|_| Command::new(binary), subcommand, behind).await
    }

    /// Starts one whose instructions are counted, those of its servers not among them. Everything takes many times as long.
    ///
    /// # Panics
    /// It does not start, or its server does not get ready.
    pub async fn counted(binary: &Path, subcommand: &str, behind: &[&str]) -> Self {
        Self::launch(|directory| callgrind::command(binary, directory), subcommand, behind).await
    }

    /// How many instructions it ran while `work` was done, of a [`Self::counted`] one.
    ///
    /// # Panics
    /// They are not counted.
    pub async fn instructions(&self, work: impl Future<Output = ()>) -> f64 {
        callgrind::instructions(self.process.id(), self.directory.path(), work).await
    }

    async fn launch(command: impl FnOnce(&Path) -> Command, subcommand: &str, behind: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = directory.path().join("mac");
        std::fs::write(&key, MAC_KEY).expect("written");
        let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let process = command(directory.path())
            .args([subcommand, "--log-format=text", "--warm=0", "--drain-timeout=10ms"])
            .arg(format!("--pod-uid={UID}"))
            .arg(format!("--data={address}"))
            .arg(format!("--admin={admin}"))
            .arg(format!("--mac-key-file={}", key.display()))
            .args(behind)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join(LOG)).expect("a log"))
            .spawn()
            .expect("the bridge starts");
        let bridge = Self { address, process, directory };
        let (http, ready) = (mcp::http(), format!("http://{admin}/readyz"));
        until("the bridge's server is ready", PATIENCE, || async {
            let answer = http.get(&ready).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
        })
        .await;
        bridge
    }
}

impl Pod for Bridge {
    fn uid(&self) -> &str {
        UID
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Asked to end, it ends its processes first; killed, it would leave them.
        let pid = self.process.id().try_into().expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the bridge can be asked to end");
        self.process.wait().expect("it ends");
        let log = std::fs::read(self.directory.path().join(LOG)).expect("its log");
        panics::assert_none_in(&String::from_utf8_lossy(&log));
    }
}
