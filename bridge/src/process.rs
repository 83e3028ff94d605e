//! One server process behind its guard: pipes, end, and how it is ended.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, ExitCause, SessionExit};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ServerCommand;
use crate::descendants::{kill_marked, signal_below};
use crate::guard::{SPAWN_FAILED, SPAWN_FAILED_CODE};
use crate::link::{End, How, NotReading};
use crate::outbox::{Outbox, Outgoing};
use crate::state::{State, lock, unix_millis};
use crate::stderr::{self, LastLine};
use crate::stdout::Messages;

/// Set in the environment of everything a session starts.
const MARKER: &str = "PORTOLAN_SESSION";
/// A guard that is still there so long after its grace is killed itself.
const GUARD_LIMIT: Duration = Duration::from_secs(35);
/// How long the last bytes of stderr are waited for once the guard is gone.
const STDERR_LIMIT: Duration = Duration::from_millis(250);

/// Why a guard could not be started at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("cannot start the guard {program}: {source}")]
    Guard { program: String, source: std::io::Error },
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// A running server process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Process id of the guard: the root of everything the server starts.
    pub(crate) guard: Pid,
    name: Arc<Mutex<String>>,
    stdin: Mutex<Option<Outbox>>,
    cause: Arc<Mutex<Option<ExitCause>>>,
    terminate: CancellationToken,
    reaped: Arc<AtomicBool>,
    end: watch::Receiver<Option<Arc<End>>>,
}

/// The server's side of the pipes that its owner reads.
pub(crate) type Stdout = Messages<ChildStdout>;

impl Process {
    /// Starts `command` under a guard; `name` is what logs and exits call it.
    pub(crate) fn spawn(state: &Arc<State>, command: &ServerCommand, name: &str) -> Result<(Self, Stdout), SpawnError> {
        let marker = SessionKey::generate().map_err(|_| SpawnError::NoRandomness)?;
        let mut child = guarded(state, command, &marker)
            .spawn()
            .map_err(|source| SpawnError::Guard { program: command.guard.program.display().to_string(), source })?;
        let missing = |pipe: &str| SpawnError::Guard {
            program: command.guard.program.display().to_string(),
            source: std::io::Error::other(format!("no {pipe} pipe")),
        };
        let guard = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| missing("pid"))?;
        let stdin = child.stdin.take().ok_or_else(|| missing("stdin"))?;
        let stdout = child.stdout.take().ok_or_else(|| missing("stdout"))?;
        let stderr = child.stderr.take().ok_or_else(|| missing("stderr"))?;

        let name = Arc::new(Mutex::new(name.to_owned()));
        let last = LastLine::default();
        let log = tokio::spawn(stderr::log(Arc::clone(state), Arc::clone(&name), Arc::clone(&last), stderr));
        let (end_sender, end) = watch::channel(None);
        let cause = Arc::new(Mutex::new(None));
        let terminate = CancellationToken::new();
        let reaped = Arc::new(AtomicBool::new(false));
        let waiter = Waiter {
            state: Arc::clone(state),
            child,
            guard: Pid::from_raw(guard),
            marker: format!("{MARKER}={marker}"),
            command: command.program.to_string_lossy().into_owned(),
            name: Arc::clone(&name),
            cause: Arc::clone(&cause),
            terminate: terminate.clone(),
            reaped: Arc::clone(&reaped),
        };
        tokio::spawn(waiter.run(log, last, end_sender));
        let (outbox, outgoing) = Outbox::new(state.config.max_message_bytes);
        tokio::spawn(write_lines(stdin, outgoing));
        let process =
            Self { guard: Pid::from_raw(guard), name, stdin: Mutex::new(Some(outbox)), cause, terminate, reaped, end };
        Ok((process, Messages::new(stdout, state.config.max_message_bytes)))
    }

    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        name.clone_into(&mut lock(&self.name));
    }

    /// Queues one line for the server's stdin.
    pub(crate) fn write(&self, line: Bytes) -> Result<(), NotReading> {
        lock(&self.stdin).as_ref().ok_or(NotReading)?.push(line)
    }

    /// Ends the process and everything it started, without waiting. The first cause is the one that is recorded.
    pub(crate) fn terminate(&self, cause: ExitCause) {
        lock(&self.cause).get_or_insert(cause);
        // Closing stdin is how a stdio server is asked to leave (2025-11-25, "Shutdown").
        lock(&self.stdin).take();
        self.terminate.cancel();
    }

    /// Like [`Self::terminate`], but without a grace. Says whether there was anything to end: once the guard is reaped its
    /// id may be another process's.
    pub(crate) fn kill(&self, cause: ExitCause) -> bool {
        self.terminate(cause);
        let is_there = !self.is_reaped();
        if is_there {
            signal_below(self.guard, Signal::SIGKILL);
        }
        is_there
    }

    /// Waits until the process and everything it started are gone.
    pub(crate) async fn ended(&self) -> Arc<End> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or_else(|| {
            let cause = lock(&self.cause).unwrap_or(ExitCause::ServerExited);
            Arc::new(End { cause, how: How::Exited { code: None, signal: None, last_stderr: String::new() } })
        })
    }

    /// Whether the guard is gone. What is left of its server is being swept then, and its end described.
    pub(crate) fn is_reaped(&self) -> bool {
        self.reaped.load(Ordering::Acquire)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate(ExitCause::Shutdown);
    }
}

fn guarded(state: &State, command: &ServerCommand, marker: &SessionKey) -> Command {
    let mut guard = Command::new(&command.guard.program);
    guard.arg0("portolan-guard");
    guard.args(&command.guard.args).arg(state.config.grace.as_millis().to_string());
    guard.arg(&command.program).args(&command.args);
    if command.clear_env {
        guard.env_clear();
    }
    // Where the server runs is the bridge's business.
    guard.env_remove(wire::POD_VARIABLE);
    guard.envs(command.env.iter().map(|(name, value)| (name, value))).env(MARKER, marker.as_str());
    if let Some(cwd) = &command.cwd {
        guard.current_dir(cwd);
    }
    // A group of its own, so that a terminal's Ctrl-C reaches the bridge first, which then ends sessions in order.
    guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    guard
}

async fn write_lines(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = queue.recv().await {
        let mut framed = Vec::with_capacity(outgoing.message.len() + 1);
        framed.extend_from_slice(&outgoing.message);
        framed.push(b'\n');
        // A broken pipe means that the process is going: its end is told by whoever waits for it.
        if stdin.write_all(&framed).await.is_err() {
            return;
        }
    }
}

struct Waiter {
    state: Arc<State>,
    child: Child,
    guard: Pid,
    marker: String,
    command: String,
    name: Arc<Mutex<String>>,
    cause: Arc<Mutex<Option<ExitCause>>>,
    terminate: CancellationToken,
    reaped: Arc<AtomicBool>,
}

impl Waiter {
    async fn run(mut self, log: tokio::task::JoinHandle<()>, last: LastLine, end: watch::Sender<Option<Arc<End>>>) {
        let status = self.wait().await;
        self.reaped.store(true, Ordering::Release);
        // Whether it ended like its server or was killed itself looks the same from here.
        if status.as_ref().is_none_or(|status| status.signal().is_some()) {
            self.sweep().await;
        }
        // What the process wrote last is worth a moment, but nothing may hold its end up.
        let _ = tokio::time::timeout(STDERR_LIMIT, log).await;
        let ended = self.describe(status, &lock(&last));
        self.record(&ended);
        end.send_replace(Some(Arc::new(ended)));
    }

    async fn wait(&mut self) -> Option<ExitStatus> {
        tokio::select! {
            status = self.child.wait() => return status.ok(),
            () = self.terminate.cancelled() => {}
        }
        // Not reaped yet, so the id is still the guard's.
        let _ = kill(self.guard, Signal::SIGTERM);
        let limit = self.state.config.grace + GUARD_LIMIT;
        if let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await {
            return status.ok();
        }
        tracing::error!(guard = %self.guard, "a guard did not end; killing it");
        let _ = self.child.start_kill();
        self.child.wait().await.ok()
    }

    /// A guard that was killed could not end what it guarded: everything carries the session's marker.
    async fn sweep(&self) {
        for _ in 0..20 {
            if kill_marked(&self.marker) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn describe(&self, status: Option<ExitStatus>, last: &str) -> End {
        let code = status.and_then(|status| status.code());
        let signal = status.and_then(|status| status.signal());
        let refused = last.strip_prefix(SPAWN_FAILED).filter(|_| code == Some(SPAWN_FAILED_CODE));
        let cause = lock(&self.cause).unwrap_or(ExitCause::ServerExited);
        let how = match refused {
            Some(error) => How::NotStarted(format!("cannot start {:?}: {error}", self.command)),
            None => How::Exited { code, signal, last_stderr: last.to_owned() },
        };
        End { cause, how }
    }

    fn record(&self, end: &End) {
        let cause = end.cause;
        let session = lock(&self.name).clone();
        let (code, signal, last_stderr) = match &end.how {
            How::NotStarted(error) => (None, None, error.clone()),
            How::Exited { code, signal, last_stderr } => (*code, *signal, last_stderr.clone()),
            How::Unreachable(_) | How::NotSse(_) | How::Disconnected(_) => (None, None, String::new()),
        };
        tracing::info!(session, ?cause, code, signal, "server process ended");
        self.state.exits.push(SessionExit { session, at: unix_millis(), cause, code, signal, last_stderr });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use portolan_mcp::mac::MacKey;

    use super::*;
    use crate::config::{Config, GuardCommand, Upstream};

    /// A process of the shell's without a guard.
    pub(crate) fn unguarded(script: &str) -> (Arc<State>, Process, Stdout) {
        let mut command = ServerCommand::new("sh", ["-c".into(), script.into()]);
        let args = ["-c", r#"shift; exec "$@""#, "unguarded"].map(Into::into).to_vec();
        command.guard = GuardCommand { program: "sh".into(), args };
        let key = MacKey::new(&[1; 32]).expect("long enough");
        let state = Arc::new(State::new(Config::new(Upstream::Stdio(command.clone()), key)));
        let (process, stdout) = Process::spawn(&state, &command, "test").expect("it starts");
        (state, process, stdout)
    }

    #[tokio::test]
    async fn a_process_that_is_gone_is_not_killed_again() {
        let (_state, process, _stdout) = unguarded("read -r line");
        assert!(process.kill(ExitCause::MemoryPressure));
        process.ended().await;
        assert!(!process.kill(ExitCause::MemoryPressure), "its id may be another's by now");
    }
}
