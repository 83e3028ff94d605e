//! Processes that a suite starts and ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_tests::paths;
use tokio::process::{Child, Command};

/// Longest time until a process has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the processes of `suite` say what they have to say.
pub(crate) fn log(suite: &str) -> String {
    format!("target/bench/{suite}.log")
}

/// Starts a process of `suite`; it ends with what is returned, at the latest.
///
/// # Errors
/// It does not start, or its log cannot be written.
pub(crate) fn start(command: &mut Command, suite: &str) -> anyhow::Result<Child> {
    std::fs::create_dir_all(paths::repo("target/bench"))?;
    let log = log(suite);
    let file = File::options().create(true).append(true).open(paths::repo(&log));
    let file = file.with_context(|| format!("cannot write {log}"))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {:?}", command.as_std()))
}

/// Ends a process of `suite`: asked first, so that it ends its own children.
///
/// # Errors
/// It ended before, or does not end.
pub(crate) async fn end(mut child: Child, suite: &str) -> anyhow::Result<()> {
    let log = log(suite);
    let pid = child.id().with_context(|| format!("a process ended before the suite did; see {log}"))?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await?;
        bail!("process {pid} had to be killed; see {log}");
    }
    Ok(())
}

/// An address of this machine at which nothing listened just now.
///
/// # Errors
/// There is none.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
