//! How soon `portolan dev` is there for a user who types it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_tests::paths;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::report::Figure;
use crate::stats::median;

/// Longest time until it listens, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// The middle of `runs` starts on the quickstart, from before the process is made until it says that it listens.
pub(super) async fn figure(runs: u32) -> anyhow::Result<Figure> {
    let mut millis = Vec::new();
    for _ in 0..runs {
        millis.push(listens_after().await?.as_secs_f64() * 1e3);
    }
    Ok(Figure {
        what: format!("`portolan dev` → listening, quickstart, p50 of {runs}"),
        value: median(&millis),
        target: 1000.0,
        unit: "ms",
    })
}

async fn listens_after() -> anyhow::Result<Duration> {
    let portolan = paths::binary("portolan");
    let folder = portolan.parent().context("a folder")?;
    // The quickstart's server is a command of the same program.
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let started = Instant::now();
    let mut dev = Command::new(&portolan)
        .args(["dev", "--listen", "127.0.0.1:0", "-f"])
        .arg(paths::repo("examples/quickstart"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(dev.stderr.take().context("a pipe")?).lines();
    let mut listening = None;
    let mut seen = Vec::new();
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.context("portolan dev does not listen")?? {
        if line.starts_with("Listening on ") {
            listening = Some(started.elapsed());
            break;
        }
        seen.push(line);
    }
    let Some(listening) = listening else { bail!("portolan dev ended before it listened: {seen:?}") };
    let pid = dev.id().context("portolan dev ended")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    // What it still says has to go somewhere.
    let rest = async { while let Ok(Some(_)) = lines.next_line().await {} };
    let (_, ended) =
        timeout(PATIENCE, async { tokio::join!(rest, dev.wait()) }).await.context("portolan dev does not end")?;
    ended?;
    Ok(listening)
}
