//! What a session talks to, whatever it is: messages out, messages in, an end.

use std::sync::Arc;

use bytes::Bytes;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portolan_mcp::wire::ExitCause;

use crate::config::ServerCommand;
use crate::lines::LineError;
use crate::process::{Process, SpawnError, Stdout};
use crate::state::State;

/// How links are opened.
#[derive(Clone, Debug)]
pub(crate) enum Opener {
    /// By starting a process.
    Process(ServerCommand),
}

impl Opener {
    /// Opens a link; `name` is what logs and exits call it.
    pub(crate) fn open(&self, state: &Arc<State>, name: &str) -> Result<(Link, Inbox), SpawnError> {
        match self {
            Self::Process(command) => {
                let (process, stdout) = Process::spawn(state, command, name)?;
                Ok((Link::Process(process), Inbox::Process(stdout)))
            }
        }
    }

    /// Whether a new link costs no more than a connection: then none is opened before its time, and trying again soon does
    /// no harm.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::Process(_) => false,
        }
    }
}

/// One conversation with a server. Dropping it ends it.
#[derive(Debug)]
pub(crate) enum Link {
    /// With a process of its own.
    Process(Process),
}

impl Link {
    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        match self {
            Self::Process(process) => process.rename(name),
        }
    }

    /// Queues one message for the server, on a single line.
    pub(crate) fn write(&self, line: Bytes) -> Result<(), NotReading> {
        match self {
            Self::Process(process) => process.write(line),
        }
    }

    /// Ends it, without waiting. The first cause is the one that is recorded.
    pub(crate) fn terminate(&self, cause: ExitCause) {
        match self {
            Self::Process(process) => process.terminate(cause),
        }
    }

    /// Like [`Self::terminate`], but without a grace. Says whether there was anything to end.
    pub(crate) fn kill(&self, cause: ExitCause) -> bool {
        match self {
            Self::Process(process) => process.kill(cause),
        }
    }

    /// Waits until nothing is left of it.
    pub(crate) async fn ended(&self) -> Arc<End> {
        match self {
            Self::Process(process) => process.ended().await,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Process(process) => process.has_ended(),
        }
    }

    /// Whether its end has begun: nothing is to be ended any more, only told.
    pub(crate) fn is_ending(&self) -> bool {
        match self {
            Self::Process(process) => process.is_reaped(),
        }
    }

    /// The root of the processes whose memory is the bridge's to watch.
    pub(crate) fn guard(&self) -> Option<Pid> {
        match self {
            Self::Process(process) => Some(process.guard),
        }
    }
}

/// Where a link's messages come from.
#[derive(Debug)]
pub(crate) enum Inbox {
    /// The process's stdout.
    Process(Stdout),
}

impl Inbox {
    /// The next message; `None` when no more will come. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        match self {
            Self::Process(stdout) => stdout.next().await,
        }
    }
}

/// A server that does not read what is written to it.
#[derive(Debug)]
pub(crate) struct NotReading;

/// How a link ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) cause: ExitCause,
    pub(crate) how: How,
}

/// What was seen of a link's end.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// The command could not be started at all.
    NotStarted(String),
    /// The process is gone; nothing is known of one whose end nobody saw.
    Exited { code: Option<i32>, signal: Option<i32>, last_stderr: String },
}

impl End {
    /// The end in words.
    pub(crate) fn describe(&self) -> String {
        match &self.how {
            How::NotStarted(error) => error.clone(),
            How::Exited { .. } if self.cause == ExitCause::MemoryPressure => {
                "the server was ended because the container's memory ran short and it held the most; \
                 raise spec.container.resources.limits.memory"
                    .to_owned()
            }
            How::Exited { code, signal, last_stderr } => describe_exit(*code, *signal, last_stderr),
        }
    }
}

fn describe_exit(code: Option<i32>, signal: Option<i32>, last_stderr: &str) -> String {
    let how = match (code, signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("was ended by signal {signal} ({name})"),
            Err(_) => format!("was ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    };
    if last_stderr.is_empty() {
        format!("the server {how} and wrote nothing to stderr")
    } else {
        format!("the server {how}; its last line on stderr: {last_stderr}")
    }
}
