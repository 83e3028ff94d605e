//! The first process of a stdio server's container: forwards signals, reaps orphans, nothing else.
//!
//! It is not the bridge itself, because a process that reaps everything would steal the exit statuses that the
//! bridge waits for.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Runs this program again as the bridge and ends with its status.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    // Where something else is the first process, orphans come here all the same.
    prctl::set_child_subreaper(true).context("cannot become the reaper of orphans")?;
    let mut mask = SigSet::empty();
    FORWARDED.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| mask.add(signal));
    mask.thread_block().context("cannot hold signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).context("cannot read signals")?;

    let mut args = std::env::args_os().skip(1);
    let subcommand = args.next().unwrap_or_default();
    // A group of its own: else a terminal's Ctrl-C would reach it twice, and twice means at once.
    let child = Command::new("/proc/self/exe")
        .arg0("portolan-bridge")
        .arg(subcommand)
        .arg("--below-reaper")
        .args(args)
        .process_group(0)
        .spawn()
        .context("cannot start the bridge")?;
    let bridge = Pid::from_raw(i32::try_from(child.id()).context("a process id is out of range")?);
    loop {
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot read signals"),
        };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|signal| Signal::try_from(signal).ok());
        if let Some(signal) = signal.filter(|signal| *signal != Signal::SIGCHLD) {
            // Not reaped yet, so the id is still the bridge's.
            let _ = kill(bridge, signal);
        }
        if let Some(code) = reap(bridge) {
            return Ok(code);
        }
    }
}

/// Called in the bridge: it does not outlive its reaper, and takes the signals that it inherited as blocked.
pub(crate) fn follow() -> anyhow::Result<()> {
    SigSet::all().thread_unblock().context("cannot take signals")?;
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot follow the reaper")
}

/// Collects everything that ended; the bridge's own code once it is among it.
fn reap(bridge: Pid) -> Option<ExitCode> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == bridge => {
                return Some(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == bridge => {
                return Some(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(_) => {}
        }
    }
}
