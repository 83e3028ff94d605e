//! What Linux tells of a running process: its memory, its descriptors, the ports that it listens on (proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Bytes of memory that are in use.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn resident(pid: i32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most bytes of memory that were ever in use, or since [`forget_peak`].
///
/// # Panics
/// It does not run.
#[must_use]
pub fn peak(pid: i32) -> u64 {
    status(pid, "VmHWM:")
}

/// Begins to measure [`peak`] from here.
///
/// # Panics
/// It does not run, or is somebody else's.
pub fn forget_peak(pid: i32) {
    fs::write(of(pid, "clear_refs"), "5").expect("the process is ours");
}

/// How many descriptors are open.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(of(pid, "fd")).expect("it runs").count()
}

/// The IPv4 ports that it listens on.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn listens(pid: i32) -> Vec<u16> {
    let open = fs::read_dir(of(pid, "fd")).expect("it runs").flatten();
    let sockets: BTreeSet<u64> =
        open.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|metadata| metadata.ino()).collect();
    let table = fs::read_to_string(of(pid, "net/tcp")).expect("it runs");
    let port = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_its = *state == LISTEN && sockets.contains(&inode.parse().ok()?);
        is_its.then_some(u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?)
    };
    table.lines().filter_map(port).collect()
}

fn status(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(of(pid, "status")).expect("it runs");
    let value = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field of every process");
    let kibibytes: u64 = value.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024
}

fn of(pid: i32, file: &str) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}
