//! What Linux tells of a running process: its memory, its time, its descriptors, the ports that it listens on (proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The unit of the times in `/proc/<pid>/stat`, whatever the kernel's own clock is.
const TICK: Duration = Duration::from_millis(10);

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// In use now.
    pub resident: u64,
    /// The most that ever was, or since [`forget_peak`].
    pub peak: u64,
}

impl Memory {
    /// Of a process now.
    ///
    /// # Errors
    /// It does not run.
    pub fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(file(pid, "status"))?;
        let kibibytes = |field: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(field))?.trim().trim_end_matches(" kB").parse().ok()
        };
        // One that has ended and was not waited for has none.
        let bytes = |field| kibibytes(field).map(|kibibytes| kibibytes * 1024).ok_or(io::ErrorKind::NotFound);
        Ok(Self { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

/// Begins to measure [`Memory::peak`] from here.
///
/// # Panics
/// It does not run, or is somebody else's.
pub fn forget_peak(pid: i32) {
    fs::write(file(pid, "clear_refs"), "5").expect("the process is ours");
}

/// How long it has had a processor since it started, for itself and for what the kernel did for it.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn processor_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(file(pid, "stat")).expect("it runs");
    // The name before them may have spaces in it.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number"));
    TICK * ticks.sum::<u32>()
}

/// How many descriptors this process, and whatever it starts from now on, may have open: as many as it may ask for.
///
/// # Panics
/// The system does not say.
#[must_use]
pub fn may_open() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("is known");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("may be asked for");
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// How many descriptors are open.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(file(pid, "fd")).expect("it runs").count()
}

/// The IPv4 ports that it listens on.
///
/// # Panics
/// It does not run.
#[must_use]
pub fn listens(pid: i32) -> Vec<u16> {
    let open = fs::read_dir(file(pid, "fd")).expect("it runs").flatten();
    let sockets: BTreeSet<u64> =
        open.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|metadata| metadata.ino()).collect();
    let table = fs::read_to_string(file(pid, "net/tcp")).expect("it runs");
    let port = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_its = *state == LISTEN && sockets.contains(&inode.parse().ok()?);
        is_its.then_some(u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?)
    };
    table.lines().filter_map(port).collect()
}

fn file(pid: i32, file: &str) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}
