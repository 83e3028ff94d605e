//! A server process that the bridge keeps for itself: the probe's, and in stateless mode everyone's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::wire::ExitCause;
use tokio::sync::{oneshot, watch};

use crate::config::ServerCommand;
use crate::lines::LineError;
use crate::probe::{CallError, Rpc};
use crate::process::{End, Process, SpawnError, Stdout};
use crate::state::{State, lock};
use crate::stderr::shorten;

/// What is quoted of a line that is not MCP.
const MAX_QUOTE: usize = 120;
/// How long a server that closed its stdout may take to end.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(1);

/// A kept process.
#[derive(Debug)]
pub(crate) struct Kept {
    process: Process,
    state: Arc<State>,
    inner: Mutex<Inner>,
    over: watch::Sender<Option<Over>>,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    pending: HashMap<u64, oneshot::Sender<Bytes>>,
    garbage: Option<String>,
}

/// Why nothing more will come from the process.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    Ended(Arc<End>),
    ClosedStdout,
    TooLong(String),
}

impl Kept {
    pub(crate) fn spawn(state: &Arc<State>, command: &ServerCommand) -> Result<Arc<Self>, SpawnError> {
        let (process, stdout) = Process::spawn(state, command, "probe")?;
        let kept = Arc::new(Self {
            process,
            state: Arc::clone(state),
            inner: Mutex::default(),
            over: watch::Sender::new(None),
        });
        tokio::spawn(Arc::clone(&kept).read(stdout));
        Ok(kept)
    }

    /// Asks the server and waits for the whole answer at most `timeout`.
    pub(crate) async fn request(&self, method: &str, params: &str, timeout: Duration) -> Result<Rpc, CallError> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut inner = lock(&self.inner);
            inner.last_id += 1;
            let id = inner.last_id;
            inner.pending.insert(id, sender);
            id
        };
        let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let answer = self.exchange(line.into(), receiver, timeout).await;
        lock(&self.inner).pending.remove(&id);
        answer
    }

    async fn exchange(
        &self,
        line: Bytes,
        receiver: oneshot::Receiver<Bytes>,
        timeout: Duration,
    ) -> Result<Rpc, CallError> {
        let mut over = self.over.subscribe();
        // A server that does not read does not answer either, and a gone one is told below.
        let _ = self.process.write(line);
        tokio::select! {
            biased;
            Ok(answer) = receiver => Rpc::parse(&answer),
            Ok(over) = over.wait_for(Option::is_some) => Err(over.clone().map_or(CallError::TimedOut, CallError::Over)),
            () = tokio::time::sleep(timeout) => Err(CallError::TimedOut),
        }
    }

    pub(crate) fn notify(&self, method: &str) {
        // A server that does not read fails the next request.
        let _ = self.process.write(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#).into());
    }

    /// The first line that was not MCP, shortened.
    pub(crate) fn garbage(&self) -> Option<String> {
        lock(&self.inner).garbage.clone()
    }

    pub(crate) async fn over(&self) -> Over {
        let mut over = self.over.subscribe();
        over.wait_for(Option::is_some).await.ok().and_then(|over| over.clone()).unwrap_or(Over::ClosedStdout)
    }

    /// Ends the process and waits until it is gone.
    pub(crate) async fn end(&self, cause: ExitCause) {
        self.process.terminate(cause);
        self.process.ended().await;
    }

    async fn read(self: Arc<Self>, mut stdout: Stdout) {
        let over = loop {
            match stdout.next().await {
                Ok(Some(line)) => self.take_line(&line),
                Ok(None) | Err(LineError::Io(_)) => {
                    break match tokio::time::timeout(EXIT_AFTER_EOF, self.process.ended()).await {
                        Ok(end) => Over::Ended(end),
                        Err(_) => Over::ClosedStdout,
                    };
                }
                Err(error @ LineError::TooLong { .. }) => {
                    self.state.counters.oversized_messages.add(1);
                    self.process.terminate(ExitCause::MessageTooLong);
                    break Over::TooLong(error.to_string());
                }
            }
        };
        self.over.send_replace(Some(over));
    }

    fn take_line(&self, line: &Bytes) {
        let line = line.slice_ref(line.trim_ascii());
        match Message::parse(&line) {
            _ if line.is_empty() => {}
            Ok(Message::Response { id: Some(id), .. }) => self.take_answer(&id, &line),
            Ok(Message::Request(request)) => self.answer_server(&request.id, &request.method),
            Ok(_) => {}
            Err(_) => {
                self.state.counters.skipped_lines.add(1);
                let text = String::from_utf8_lossy(&line);
                lock(&self.inner).garbage.get_or_insert_with(|| shorten(&text, MAX_QUOTE).to_owned());
            }
        }
    }

    fn take_answer(&self, id: &Id, line: &Bytes) {
        let waiting = id.as_json().parse().ok().and_then(|id: u64| lock(&self.inner).pending.remove(&id));
        if let Some(waiting) = waiting {
            // It may have given up a moment ago.
            let _ = waiting.send(Bytes::copy_from_slice(line));
        }
    }

    fn answer_server(&self, id: &Id, method: &str) {
        let id = id.as_json();
        let answer = if method == "ping" {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
        } else {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no client is behind this session"}}}}"#
            )
        };
        // A server that does not read its answers misses them.
        let _ = self.process.write(answer.into());
    }
}
