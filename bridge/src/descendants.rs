//! Process trees as `/proc` shows them.

use std::collections::HashMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process with its parent.
#[derive(Debug)]
pub(crate) struct Tree(HashMap<i32, i32>);

impl Tree {
    /// Reads `/proc` once.
    pub(crate) fn read() -> Self {
        let parent = |pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold spaces and parentheses: the fields begin after the last one.
            stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        Self(pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect())
    }

    /// Everything below `root`, itself aside.
    pub(crate) fn below(&self, root: Pid) -> Vec<Pid> {
        self.0
            .keys()
            .filter(|pid| **pid != root.as_raw() && self.is_below(**pid, root))
            .map(|p| Pid::from_raw(*p))
            .collect()
    }

    fn is_below(&self, pid: i32, root: Pid) -> bool {
        let mut current = pid;
        // Pids are reused while we read, so a chain could close on itself: no real one is this long.
        for _ in 0..1024 {
            match self.0.get(&current) {
                Some(parent) if *parent == root.as_raw() => return true,
                Some(parent) => current = *parent,
                None => return false,
            }
        }
        false
    }
}

/// Sends `signal` to everything below `root`.
pub(crate) fn signal_below(root: Pid, signal: Signal) {
    for pid in Tree::read().below(root) {
        // It may have ended in between, which is what was wanted.
        let _ = kill(pid, signal);
    }
}

/// Kills every process that carries `marker` (`NAME=value`) in its environment; says how many it found.
pub(crate) fn kill_marked(marker: &str) -> usize {
    let own = std::process::id();
    let carries = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    };
    let marked = pids().into_iter().filter(|pid| u32::try_from(*pid) != Ok(own)).filter(carries);
    marked.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL)).filter(Result::is_ok).count()
}

/// Resident memory of `root` and everything below it, in bytes.
pub(crate) fn resident_bytes(tree: &Tree, root: Pid) -> u64 {
    let pages = |pid: Pid| -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let all = tree.below(root).into_iter().chain([root]);
    all.filter_map(pages).sum::<u64>() * page_bytes()
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
