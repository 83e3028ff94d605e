//! Processes that are measured: where they run, what they use.

use std::fs::read_to_string;

use anyhow::{Context, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use portolan_tests::process::Memory;
use tokio::process::Command;

/// Keeps this process on `core`.
///
/// # Errors
/// There is no such core.
pub(super) fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on core {core} alone"))
}

/// `command` on `core` alone.
pub(super) fn on(core: usize, command: &[String]) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", &core.to_string()]).args(command);
    pinned
}

/// What a set of processes has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time since their start.
    pub(crate) cpu: f64,
    /// Resident memory, bytes; shared pages count in each.
    pub(crate) rss: f64,
    /// The most it was.
    pub(super) peak: f64,
}

impl Usage {
    /// Of `roots` and all their descendants now.
    ///
    /// # Errors
    /// A root has ended.
    pub(crate) fn of(roots: &[u32]) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for pid in descendants(roots)? {
            match Self::of_one(pid) {
                Ok(usage) => {
                    all.cpu += usage.cpu;
                    all.rss += usage.rss;
                    all.peak += usage.peak;
                }
                // A descendant may end at any time.
                Err(error) => ensure!(!roots.contains(&pid), error),
            }
        }
        Ok(all)
    }

    fn of_one(pid: u32) -> anyhow::Result<Self> {
        let stat = Stat::of(pid)?;
        let memory = Memory::of(pid.try_into()?)?;
        Ok(Self { cpu: stat.cpu, rss: bytes(memory.resident), peak: bytes(memory.peak) })
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds exactly")]
fn bytes(number: u64) -> f64 {
    number as f64
}

/// Of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    cpu: f64,
}

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
        // The name before it may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied().context("too few fields");
        let mut ticks = 0.0;
        // User and system time, and those of children that have ended.
        for index in 11..15 {
            ticks += field(index)?.parse::<f64>()?;
        }
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        #[expect(clippy::cast_precision_loss, reason = "a hundred")]
        Ok(Self { parent: field(1)?.parse()?, cpu: ticks / per_second as f64 })
    }
}

fn descendants(roots: &[u32]) -> anyhow::Result<Vec<u32>> {
    let pids =
        std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, Stat::of(pid).ok()?.parent))).collect();
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    Ok(found)
}
