//! The guard: one small process between the bridge and each server process.
//!
//! It is the child subreaper of everything the server starts, so that no descendant escapes by `setsid` or a double
//! fork; it ends them all when the session ends or the bridge dies, and ends itself exactly as the server did.
//! The bridge reads the guard's stderr pipe; that pipe losing its reader is how the guard learns that the bridge died.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, getpid};

use crate::descendants::signal_below;

/// Exit code of a guard that could not start the server, together with [`SPAWN_FAILED`] on stderr.
pub(crate) const SPAWN_FAILED_CODE: i32 = 125;
/// Begins the one line that such a guard writes; the server never ran, so nobody else wrote to stderr.
pub(crate) const SPAWN_FAILED: &str = "\u{1}portolan-guard: ";
/// What the server leaves behind when it ends by itself is given this long.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// How often the process table is looked at while descendants are being ended.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// Past this even SIGKILL did not help (a process stuck in the kernel); the pod's end will.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Runs a guard: `GRACE_MILLIS COMMAND [ARGS…]`.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let grace = args.next().and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_millis);
    let (Some(grace), Some(program)) = (grace, args.next()) else {
        return refuse("usage: guard GRACE_MILLIS COMMAND [ARGS…]");
    };
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    match Guard::start(command, grace) {
        Ok(guard) => end_like(guard.run()),
        Err(StartError::Spawn(error)) => refuse(&error.to_string()),
        Err(StartError::Setup(errno)) => refuse(&format!("the guard could not be set up: {errno}")),
    }
}

fn refuse(message: &str) -> ExitCode {
    // Nobody reads it when this fails, and the exit code says the rest.
    let _ = writeln!(std::io::stderr(), "{SPAWN_FAILED}{message}");
    ExitCode::from(u8::try_from(SPAWN_FAILED_CODE).unwrap_or(1))
}

enum StartError {
    Setup(Errno),
    Spawn(std::io::Error),
}

impl From<Errno> for StartError {
    fn from(errno: Errno) -> Self {
        Self::Setup(errno)
    }
}

struct Guard {
    server: Pid,
    signals: SignalFd,
    grace: Duration,
    outcome: Option<WaitStatus>,
}

/// What woke the guard.
struct Wake {
    asked_to_end: bool,
}

impl Guard {
    fn start(mut command: Command, grace: Duration) -> Result<Self, StartError> {
        prctl::set_child_subreaper(true)?;
        // Spawned before anything is blocked, because the server would inherit what is. A signal in between ends this
        // guard unprepared; the bridge then finds what was started by its marker.
        let server = command.spawn().map_err(StartError::Spawn)?;
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(StartError::Spawn)?;
        // The pipes must end with the server, not with us.
        dup2_stdin(null.as_fd())?;
        dup2_stdout(null.as_fd())?;
        let server = Pid::from_raw(i32::try_from(server.id()).map_err(|_| Errno::ERANGE)?);
        Ok(Self { server, signals, grace, outcome: None })
    }

    fn run(mut self) -> Option<WaitStatus> {
        // It may have ended before SIGCHLD was listened to.
        if !self.reap() {
            return self.outcome;
        }
        while self.outcome.is_none() {
            let asked_to_end = self.wait(PollTimeout::NONE).asked_to_end;
            if !self.reap() {
                return self.outcome;
            }
            if asked_to_end {
                self.end_all(self.grace);
                return self.outcome;
            }
        }
        self.end_all(LEFTOVER_GRACE);
        self.outcome
    }

    /// SIGTERM to all, then SIGKILL until nothing is left.
    fn end_all(&mut self, grace: Duration) {
        if !self.reap() {
            return;
        }
        signal_below(getpid(), Signal::SIGTERM);
        let asked = Instant::now();
        while self.reap() && asked.elapsed() < grace {
            self.pause(grace.saturating_sub(asked.elapsed()));
        }
        while self.reap() && asked.elapsed() < grace + KILL_LIMIT {
            signal_below(getpid(), Signal::SIGKILL);
            self.pause(KILL_INTERVAL);
        }
    }

    /// Waits for a signal, at most `limit`. The lifeline does not count: once cut it would wake at once, for ever.
    fn pause(&self, limit: Duration) {
        let timeout = PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        // EINTR is as good as a wake-up.
        let _ = poll(&mut fds, timeout);
        self.drain_signals();
    }

    fn wait(&self, timeout: PollTimeout) -> Wake {
        let stderr = std::io::stderr();
        let mut fds =
            [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(stderr.as_fd(), PollFlags::empty())];
        // EINTR is as good as a wake-up.
        let _ = poll(&mut fds, timeout);
        let cut = fds[1].any().unwrap_or(false);
        Wake { asked_to_end: self.drain_signals() || cut }
    }

    /// Takes all pending signals; says whether one of them asks to end.
    fn drain_signals(&self) -> bool {
        let mut asked = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            asked |= i32::try_from(info.ssi_signo) != Ok(Signal::SIGCHLD as i32);
        }
        asked
    }

    /// Collects every ended child; `false` when none is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) if status.pid() == Some(self.server) => self.outcome = Some(status),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Ends this process as the server ended.
fn end_like(outcome: Option<WaitStatus>) -> ExitCode {
    match outcome {
        Some(WaitStatus::Exited(_, code)) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)),
        Some(WaitStatus::Signaled(_, signal, _)) => {
            die_by(signal);
            ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1))
        }
        _ => ExitCode::FAILURE,
    }
}

fn die_by(signal: Signal) {
    // A core of the guard would say nothing about the server.
    let _ = prctl::set_dumpable(false);
    let mut mask = SigSet::empty();
    mask.add(signal);
    let _ = mask.thread_unblock();
    // The runtime's handler for SIGSEGV and SIGBUS gives way on the first and lets the second through.
    for _ in 0..2 {
        let _ = raise(signal);
    }
}
