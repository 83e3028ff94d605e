//! A link to a server as whoever talks to it needs it: in the other era, or with a document of ours among its resources.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use portolan_mcp::canary::WithDocument;
use portolan_mcp::envelope::{EnvelopeError, Id};
use portolan_mcp::session::single_line;
use portolan_mcp::translate::{Step, ToLegacy, ToModern};
use portolan_mcp::wire::ExitCause;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::lines::LineError;
use crate::link::{Heard, Inbox, Link, NotReading};
use crate::state::lock;

/// How long a call waits for its client to come back with an answer of its user.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A state machine that stands in front of a server.
#[derive(Debug)]
pub(crate) enum Machine {
    ToLegacy(Box<ToLegacy>),
    ToModern(Box<ToModern>),
    WithDocument(WithDocument),
}

impl Machine {
    fn client_message(&mut self, line: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match self {
            Self::ToLegacy(machine) => machine.client_message(line, out),
            Self::ToModern(machine) => machine.client_message(line, out),
            Self::WithDocument(machine) => machine.client_message(line, out),
        }
    }

    fn server_message(&mut self, line: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match self {
            Self::ToLegacy(machine) => machine.server_message(line, out),
            Self::ToModern(machine) => machine.server_message(line, out),
            Self::WithDocument(machine) => machine.server_message(line, out),
        }
    }

    fn refused(&mut self, id: &Id, out: &mut Vec<Step>) -> Option<Id> {
        match self {
            Self::ToLegacy(machine) => machine.refused(id, out),
            Self::ToModern(machine) => machine.refused(id, out),
            Self::WithDocument(machine) => {
                machine.refused(id);
                Some(id.clone())
            }
        }
    }

    fn expire(&mut self, name: &str, out: &mut Vec<Step>) {
        match self {
            Self::ToLegacy(machine) => machine.expire(name, out),
            // Calls do not wait here: whoever asks has a session, or is asked nothing.
            Self::ToModern(_) | Self::WithDocument(_) => {}
        }
    }
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Translated(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Link,
    turn: Mutex<Turn>,
    ready: Notify,
}

#[derive(Debug)]
struct Turn {
    machine: Machine,
    /// What goes to whoever reads, in its order. It is bounded by what that side asks for.
    heard: VecDeque<Heard>,
    waiting: HashMap<Box<str>, AbortHandle>,
}

/// The reading side.
#[derive(Debug)]
pub(crate) struct Messages {
    shared: Arc<Shared>,
    inner: Box<Inbox>,
}

impl Translated {
    /// Puts `machine`, whose first steps are `first`, in front of a link.
    pub(crate) fn over(link: Link, inbox: Inbox, machine: Machine, first: Vec<Step>) -> (Self, Messages) {
        let turn = Turn { machine, heard: VecDeque::new(), waiting: HashMap::new() };
        let shared = Arc::new(Shared { inner: link, turn: Mutex::new(turn), ready: Notify::new() });
        // A server that takes nothing from the start fails whoever asks it next.
        let _ = shared.carry_out(&mut lock(&shared.turn), first);
        (Self(Arc::clone(&shared)), Messages { shared, inner: Box::new(inbox) })
    }

    /// What is translated.
    pub(crate) fn inner(&self) -> &Link {
        &self.0.inner
    }

    /// Queues one message.
    pub(crate) fn write(&self, line: &Bytes) -> Result<(), NotReading> {
        let mut turn = lock(&self.0.turn);
        let mut steps = Vec::new();
        // What is written here was read before.
        let _read_before = turn.machine.client_message(line, &mut steps);
        self.0.carry_out(&mut turn, steps)
    }

    /// Whether a call waits for its client to come back.
    pub(crate) fn is_awaited(&self) -> bool {
        !lock(&self.0.turn).waiting.is_empty()
    }
}

impl Drop for Translated {
    fn drop(&mut self) {
        self.0.inner.terminate(ExitCause::Shutdown);
        for (_, timer) in lock(&self.0.turn).waiting.drain() {
            timer.abort();
        }
    }
}

impl Shared {
    fn carry_out(self: &Arc<Self>, turn: &mut Turn, steps: Vec<Step>) -> Result<(), NotReading> {
        let mut result = Ok(());
        for step in steps {
            match step {
                Step::ToServer(message) => result = self.inner.write(single_line(&message)).and(result),
                Step::ToClient(message) => {
                    turn.heard.push_back(Heard::Message(message));
                    self.ready.notify_one();
                }
                Step::Parked(name) => {
                    let timer = tokio::spawn(expire(Arc::downgrade(self), name.clone())).abort_handle();
                    turn.waiting.insert(name, timer);
                }
                Step::Unparked(name) => {
                    if let Some(timer) = turn.waiting.remove(&name) {
                        timer.abort();
                    }
                }
            }
        }
        result
    }

    /// Hands what the server said to the machine.
    fn take(self: &Arc<Self>, heard: Heard) {
        let mut turn = lock(&self.turn);
        let mut steps = Vec::new();
        match heard {
            Heard::Message(line) => {
                if turn.machine.server_message(&line, &mut steps).is_err() {
                    // Whoever reads counts it, and shows it where someone looks for the reason.
                    turn.heard.push_back(Heard::Message(line));
                }
            }
            Heard::Refused { id, failure } => {
                if let Some(id) = turn.machine.refused(&id, &mut steps) {
                    turn.heard.push_back(Heard::Refused { id, failure });
                }
            }
        }
        // A server that does not read will not read the rest either.
        let _ = self.carry_out(&mut turn, steps);
    }
}

async fn expire(shared: Weak<Shared>, name: Box<str>) {
    tokio::time::sleep(PATIENCE).await;
    let Some(shared) = shared.upgrade() else { return };
    let mut turn = lock(&shared.turn);
    turn.waiting.remove(&name);
    let mut steps = Vec::new();
    turn.machine.expire(&name, &mut steps);
    let _ = shared.carry_out(&mut turn, steps);
}

impl Messages {
    /// The next message; `None` when no more will come. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, LineError> {
        loop {
            if let Some(heard) = lock(&self.shared.turn).heard.pop_front() {
                return Ok(Some(heard));
            }
            tokio::select! {
                () = self.shared.ready.notified() => {}
                heard = Box::pin(self.inner.next()) => match heard? {
                    Some(heard) => self.shared.take(heard),
                    None => return Ok(lock(&self.shared.turn).heard.pop_front()),
                },
            }
        }
    }
}
