//! On what the figures were taken, and how quiet it was.

use std::fs::read_to_string;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use portolan_tests::paths;
use serde::Serialize;

use crate::report::decimal;

/// How long the machine is watched for work of others.
const WATCH: Duration = Duration::from_secs(2);
/// Above so many busy cores before the start, figures are not worth keeping.
const QUIET: f64 = 0.2;

/// Machine, date and versions.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    date: String,
    processor: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    system: String,
    versions: Vec<String>,
    /// Cores that others kept busy just before.
    busy_before: f64,
    /// Cores that the hypervisor gave to others meanwhile.
    stolen: f64,
    #[serde(skip)]
    start: Ticks,
}

impl Machine {
    /// Looks at the machine, and how busy it is before anything is measured.
    ///
    /// # Errors
    /// It does not tell.
    pub(crate) async fn look() -> anyhow::Result<Self> {
        let before = Ticks::now()?;
        tokio::time::sleep(WATCH).await;
        let start = Ticks::now()?;
        let machine = Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            processor: field("/proc/cpuinfo", "model name", ':')?,
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory_gib()?,
            kernel: read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            system: field("/etc/os-release", "PRETTY_NAME", '=')?.trim_matches('"').to_owned(),
            versions: vec![revision(), said("rustc", &["--version"])],
            busy_before: start.busy_since(&before),
            stolen: 0.0,
            start,
        };
        if machine.busy_before > QUIET {
            eprintln!(
                "bench: others keep {} cores busy: figures taken now are not worth keeping",
                decimal(machine.busy_before, 2)
            );
        }
        Ok(machine)
    }

    /// Adds a version to those named.
    pub(crate) fn version(&mut self, version: impl Into<String>) {
        self.versions.push(version.into());
    }

    /// Called when everything has been measured.
    ///
    /// # Errors
    /// The machine does not tell.
    pub(crate) fn done(&mut self) -> anyhow::Result<()> {
        self.stolen = Ticks::now()?.stolen_since(&self.start);
        Ok(())
    }

    /// All of it in a sentence or two.
    pub(crate) fn sentence(&self) -> String {
        let loud = if self.busy_before > QUIET { " **The machine was not quiet.**" } else { "" };
        let slow = if cfg!(debug_assertions) { " **What measured was built without optimisation.**" } else { "" };
        format!(
            "Measured {} on {} × {}, {} GiB, {}, Linux {}. {}. Others kept {} cores busy before the start; \
             the hypervisor took {} cores meanwhile.{loud}{slow}",
            self.date,
            self.cores,
            self.processor,
            decimal(self.memory_gib, 0),
            self.system,
            self.kernel,
            self.versions.join(", "),
            decimal(self.busy_before, 2),
            decimal(self.stolen, 2),
        )
    }
}

/// Time of all cores since boot, in ticks.
#[derive(Debug)]
struct Ticks {
    total: f64,
    idle: f64,
    stolen: f64,
    cores: f64,
}

impl Ticks {
    fn now() -> anyhow::Result<Self> {
        let text = read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let all = text.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<f64> = all.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
        let [.., idle, waiting, _, _, stolen] = ticks.as_slice() else {
            anyhow::bail!("/proc/stat has an unknown shape: {all}")
        };
        let cores = text.lines().skip(1).take_while(|line| line.starts_with("cpu")).map(|_| 1.0).sum();
        Ok(Self { total: ticks.iter().sum(), idle: idle + waiting, stolen: *stolen, cores })
    }

    fn busy_since(&self, before: &Self) -> f64 {
        self.cores - self.cores_of(self.idle - before.idle, before)
    }

    fn stolen_since(&self, before: &Self) -> f64 {
        self.cores_of(self.stolen - before.stolen, before)
    }

    fn cores_of(&self, ticks: f64, before: &Self) -> f64 {
        ticks / (self.total - before.total).max(1.0) * self.cores
    }
}

fn field(file: &str, name: &str, separator: char) -> anyhow::Result<String> {
    let text = read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let values = text.lines().filter_map(|line| line.split_once(separator));
    let value = values.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
    value.with_context(|| format!("{file} has no {name}"))
}

fn memory_gib() -> anyhow::Result<f64> {
    let text = field("/proc/meminfo", "MemTotal", ':')?;
    let kib: f64 = text.trim_end_matches(" kB").parse().with_context(|| format!("MemTotal is {text}"))?;
    Ok(kib / 1024.0 / 1024.0)
}

/// The commit that was built, as far as the work tree tells.
fn revision() -> String {
    let commit = said("git", &["describe", "--always", "--dirty"]);
    format!("portolan {} ({commit})", env!("CARGO_PKG_VERSION"))
}

/// The first line that a program of the build says; `unknown` where it is not installed.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(paths::repo(".")).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().map_or_else(|| "unknown".to_owned(), str::to_owned)
}
