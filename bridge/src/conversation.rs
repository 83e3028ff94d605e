//! One conversation with a server over HTTP, whatever its transport: messages out, messages in, an end.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use portolan_mcp::wire::{ExitCause, SessionExit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::lines::LineError;
use crate::link::{End, Heard, How, NotReading};
use crate::outbox::{Outbox, Outgoing};
use crate::state::{State, lock, unix_millis};

/// A conversation. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Conversation {
    name: Arc<Mutex<String>>,
    outbox: Outbox,
    cause: Arc<Mutex<Option<ExitCause>>>,
    terminate: CancellationToken,
    end: watch::Receiver<Option<Arc<End>>>,
}

/// What comes from the server.
pub(crate) type Heards = mpsc::Receiver<Result<Heard, LineError>>;

/// What whoever holds the conversation with the server has of it.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) state: Arc<State>,
    /// Where what the server says goes. What is not taken there, the server keeps.
    pub(crate) heard: mpsc::Sender<Result<Heard, LineError>>,
    name: Arc<Mutex<String>>,
    cause: Arc<Mutex<Option<ExitCause>>>,
}

impl Conversation {
    /// Begins one that `converse` holds until its future is over, or until it is terminated; then `part` is awaited.
    /// What is written meanwhile waits in the channel that `converse` gets.
    pub(crate) fn begin<C, P>(
        state: &Arc<State>,
        name: &str,
        converse: impl FnOnce(Party, mpsc::Receiver<Outgoing>) -> C,
        part: impl FnOnce(Party) -> P + Send + 'static,
    ) -> (Self, Heards)
    where
        C: Future<Output = How> + Send + 'static,
        P: Future<Output = ()> + Send,
    {
        let name = Arc::new(Mutex::new(name.to_owned()));
        let (outbox, outgoing) = Outbox::new(state.config.max_message_bytes);
        let (heard, heards) = mpsc::channel(1);
        let (end_sender, end) = watch::channel(None);
        let cause = Arc::new(Mutex::new(None));
        let terminate = CancellationToken::new();
        let party = Party { state: Arc::clone(state), heard, name: Arc::clone(&name), cause: Arc::clone(&cause) };
        let converse = converse(party.clone(), outgoing);
        let terminated = terminate.clone();
        tokio::spawn(async move {
            let how = tokio::select! {
                how = converse => how,
                () = terminated.cancelled() => {
                    How::Disconnected("the bridge closed the connection to the server".to_owned())
                }
            };
            part(party.clone()).await;
            let ended = End { cause: lock(&party.cause).unwrap_or(ExitCause::ServerExited), how };
            party.record(&ended);
            end_sender.send_replace(Some(Arc::new(ended)));
        });
        (Self { name, outbox, cause, terminate, end }, heards)
    }

    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        name.clone_into(&mut lock(&self.name));
    }

    /// Queues one message.
    pub(crate) fn write(&self, message: Bytes) -> Result<(), NotReading> {
        self.outbox.push(message)
    }

    /// Ends it, without waiting. The first cause is the one that is recorded. Says whether there was anything to end.
    pub(crate) fn terminate(&self, cause: ExitCause) -> bool {
        lock(&self.cause).get_or_insert(cause);
        self.terminate.cancel();
        !self.has_ended()
    }

    /// Waits until the connection is gone.
    pub(crate) async fn ended(&self) -> Arc<End> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or_else(|| {
            let cause = lock(&self.cause).unwrap_or(ExitCause::ServerExited);
            Arc::new(End { cause, how: How::Disconnected("the connection to the server was lost".to_owned()) })
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.terminate(ExitCause::Shutdown);
    }
}

impl Party {
    /// What logs call it now.
    pub(crate) fn name(&self) -> String {
        lock(&self.name).clone()
    }

    /// What the server said is too long: that ends the conversation.
    pub(crate) async fn too_long(&self) -> How {
        lock(&self.cause).get_or_insert(ExitCause::MessageTooLong);
        let limit = self.state.config.max_message_bytes;
        // Whoever does not listen any more has ended it.
        let _ = self.heard.send(Err(LineError::TooLong { limit })).await;
        How::Disconnected(format!("the server sent an event of more than {limit} bytes"))
    }

    fn record(&self, end: &End) {
        let (session, cause) = (self.name(), end.cause);
        let words = if cause == ExitCause::ServerExited { end.describe() } else { String::new() };
        tracing::info!(session, ?cause, reason = words, "a connection to the server ended");
        let (code, signal, last_stderr) = (None, None, words);
        self.state.exits.push(SessionExit { session, at: unix_millis(), cause, code, signal, last_stderr });
    }
}
