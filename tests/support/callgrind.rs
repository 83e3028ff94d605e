//! Instructions that a process runs, counted by valgrind: a number that no busy machine changes.

use std::path::Path;
use std::process::Command;

/// Runs a program on one thread so that its instructions are counted, in files of `directory`. Everything takes many times
/// as long.
#[must_use]
pub fn command(program: &Path, directory: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", directory.join("counts").display()));
    valgrind.arg(program).env("TOKIO_WORKER_THREADS", "1");
    valgrind
}

/// How many instructions the process `pid` ran while `work` was done; it was started by [`command`] with `directory`.
///
/// # Panics
/// They are not counted.
pub async fn instructions(pid: u32, directory: &Path, work: impl Future<Output = ()>) -> f64 {
    control("--zero", pid);
    work.await;
    control("--dump", pid);
    let files = std::fs::read_dir(directory).expect("a directory");
    let number = |name: &str| name.strip_prefix("counts.")?.parse::<u32>().ok();
    let last = files.filter_map(|file| number(file.expect("a file").file_name().to_str()?)).max();
    let last = format!("counts.{}", last.expect("counts were written"));
    let text = std::fs::read_to_string(directory.join(last)).expect("counts");
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")).expect("a total");
    total.trim().parse().expect("a number")
}

fn control(what: &str, pid: u32) {
    let mut control = Command::new("callgrind_control");
    let output = control.arg(what).arg(pid.to_string()).output().expect("callgrind_control runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
