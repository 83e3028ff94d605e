//! The process of a server that speaks HTTP: started under a guard, started again when it ends.

use std::net::Ipv4Addr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_bridge::config::ServerCommand;
use portolan_crds::conditions::reasons;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::Health;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The first wait before a process that ended is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at a port that somebody else holds.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A process that lived so long is started again at once.
const LIVED: Duration = Duration::from_secs(60);
/// How long the last line on stderr is waited for once the process is gone: one that it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is kept of a line.
const MAX_LINE: u64 = 8 * 1024;

/// A process that is kept running.
#[derive(Debug)]
pub(super) struct HttpProcess {
    down: watch::Receiver<Option<Health>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpProcess {
    /// Starts the command of `server`, which listens on `port`, and keeps it running.
    pub(super) fn start(server: String, command: ServerCommand, port: u16) -> Self {
        let (sender, down) = watch::channel(Some(Health::pending()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(server, command, port, sender, stop.clone()));
        Self { down, stop, task }
    }

    /// Why it does not run at the moment: whoever answers on its port then is somebody else.
    pub(super) fn down(&mut self) -> Option<Health> {
        self.down.borrow_and_update().clone()
    }

    /// Waits until it went down or came up; for ever once nobody keeps it.
    pub(super) async fn changed(&mut self) {
        if self.down.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends it and everything that it started.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the keeper of an HTTP server failed");
        }
    }
}

async fn keep(
    server: String,
    command: ServerCommand,
    port: u16,
    down: watch::Sender<Option<Health>>,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::select! {
            () = until_free(port, &down) => {}
            () = stop.cancelled() => return,
        }
        let began = Instant::now();
        let health = match spawn(&server, &command) {
            Ok((mut child, words)) => {
                down.send_replace(None);
                tokio::select! {
                    status = child.wait() => exited(status, &words.last().await),
                    () = stop.cancelled() => return end(child).await,
                }
            }
            Err(error) => Health::failed(reasons::SPAWN_FAILED, format!("the command does not start: {error}")),
        };
        down.send_replace(Some(health));
        pause = if began.elapsed() >= LIVED { FIRST_PAUSE } else { pause };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until nobody listens on `port`, which may come to be while the server is down: else the bridge would stand in
/// front of a stranger.
async fn until_free(port: u16, down: &watch::Sender<Option<Health>>) {
    while let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        down.send_replace(Some(Health::failed(
            reasons::SPAWN_FAILED,
            format!(
                "port {port} of this machine cannot be had ({error}): end the program that holds it, or change \
                 spec.container.port"
            ),
        )));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The guard ends with everything below it: on our signal, and when we are gone.
fn spawn(server: &str, command: &ServerCommand) -> std::io::Result<(Child, Words)> {
    let mut child = Command::new(&command.guard.program)
        .args(&command.guard.args)
        .arg(GRACE.as_millis().to_string())
        .arg(&command.program)
        .args(&command.args)
        .env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(log(server.to_owned(), stdout, LastLine::default()));
    }
    let last = LastLine::default();
    let stderr = child.stderr.take().map(|stderr| tokio::spawn(log(server.to_owned(), stderr, last.clone())));
    Ok((child, Words { last, stderr }))
}

async fn end(mut child: Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended in between, which is what was wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "an HTTP server could not be waited for");
    }
}

fn exited(status: std::io::Result<ExitStatus>, last: &str) -> Health {
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let line = if last.is_empty() { String::new() } else { format!("; its last line on stderr: {last}") };
    Health::failed(reasons::SERVER_EXITED, format!("the server ended ({how}){line}"))
}

/// What a process writes to stderr.
struct Words {
    last: LastLine,
    stderr: Option<JoinHandle<()>>,
}

impl Words {
    /// The last line of a process that has ended. It may still be in the pipe, so the pipe is read to its end first.
    async fn last(self) -> String {
        if let Some(stderr) = self.stderr {
            let _ = tokio::time::timeout(LAST_WORDS, stderr).await;
        }
        self.last.get()
    }
}

/// The last line of a stream.
#[derive(Clone, Debug, Default)]
struct LastLine(Arc<Mutex<String>>);

impl LastLine {
    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, line: &str) {
        line.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Logs what `reader` gives until it ends. A line over the bound is logged in pieces.
async fn log(server: String, reader: impl AsyncRead + Unpin, last: LastLine) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            last.set(&text);
            tracing::info!(target: "server::stderr", server, "{text}");
        }
        line.clear();
    }
}
