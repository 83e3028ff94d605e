//! What a session talks to, whatever it is: messages out, messages in, an end.

use std::sync::Arc;

use bytes::Bytes;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::Failure;
use portolan_mcp::wire::ExitCause;

use crate::config::ServerCommand;
use crate::event_stream::{EventStream, Events};
use crate::lines::LineError;
use crate::process::{Process, SpawnError, Stdout};
use crate::state::State;
use crate::upstream::Server;

/// How links are opened.
#[derive(Clone, Debug)]
pub(crate) enum Opener {
    /// By starting a process.
    Process(ServerCommand),
    /// By opening an event stream of an HTTP+SSE server.
    Sse(Server),
}

impl Opener {
    /// Opens a link; `name` is what logs and exits call it.
    pub(crate) fn open(&self, state: &Arc<State>, name: &str) -> Result<(Link, Inbox), SpawnError> {
        match self {
            Self::Process(command) => {
                let (process, stdout) = Process::spawn(state, command, name)?;
                Ok((Link::Process(process), Inbox::Process(stdout)))
            }
            Self::Sse(server) => {
                let (stream, events) = EventStream::open(state, server, name);
                Ok((Link::Sse(stream), Inbox::Sse(events)))
            }
        }
    }

    /// Whether a new link costs no more than a connection: then none is opened before its time, and trying again soon does
    /// no harm.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::Process(_) => false,
            Self::Sse(_) => true,
        }
    }
}

/// One conversation with a server. Dropping it ends it.
#[derive(Debug)]
pub(crate) enum Link {
    /// With a process of its own.
    Process(Process),
    /// With an HTTP+SSE server.
    Sse(EventStream),
}

impl Link {
    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        match self {
            Self::Process(process) => process.rename(name),
            Self::Sse(stream) => stream.rename(name),
        }
    }

    /// Queues one message for the server, on a single line.
    pub(crate) fn write(&self, line: Bytes) -> Result<(), NotReading> {
        match self {
            Self::Process(process) => process.write(line),
            Self::Sse(stream) => stream.write(line),
        }
    }

    /// Ends it, without waiting. The first cause is the one that is recorded.
    pub(crate) fn terminate(&self, cause: ExitCause) {
        match self {
            Self::Process(process) => process.terminate(cause),
            Self::Sse(stream) => drop(stream.terminate(cause)),
        }
    }

    /// Like [`Self::terminate`], but without a grace. Says whether there was anything to end.
    pub(crate) fn kill(&self, cause: ExitCause) -> bool {
        match self {
            Self::Process(process) => process.kill(cause),
            Self::Sse(stream) => stream.terminate(cause),
        }
    }

    /// Waits until nothing is left of it.
    pub(crate) async fn ended(&self) -> Arc<End> {
        match self {
            Self::Process(process) => process.ended().await,
            Self::Sse(stream) => stream.ended().await,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Process(process) => process.has_ended(),
            Self::Sse(stream) => stream.has_ended(),
        }
    }

    /// Whether its end has begun: nothing is to be ended any more, only told.
    pub(crate) fn is_ending(&self) -> bool {
        match self {
            Self::Process(process) => process.is_reaped(),
            Self::Sse(stream) => stream.has_ended(),
        }
    }

    /// Where its messages come, in words.
    pub(crate) fn voice(&self) -> &'static str {
        match self {
            Self::Process(_) => "stdout",
            Self::Sse(_) => "its event stream",
        }
    }

    /// The root of the processes whose memory is the bridge's to watch.
    pub(crate) fn guard(&self) -> Option<Pid> {
        match self {
            Self::Process(process) => Some(process.guard),
            Self::Sse(_) => None,
        }
    }
}

/// Where a link's messages come from.
#[derive(Debug)]
pub(crate) enum Inbox {
    /// The process's stdout.
    Process(Stdout),
    /// The server's event stream.
    Sse(Events),
}

impl Inbox {
    /// The next message; `None` when no more will come. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, LineError> {
        match self {
            Self::Process(stdout) => Ok(stdout.next().await?.map(Heard::Message)),
            Self::Sse(events) => events.recv().await.transpose(),
        }
    }
}

/// What comes over a link.
#[derive(Debug)]
pub(crate) enum Heard {
    /// What should be a message of the server.
    Message(Bytes),
    /// The server did not take the request `id`, so it will not answer it either.
    Refused { id: Id, failure: Failure },
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
    /// Nothing listens where the server should.
    Unreachable(String),
    /// What answered is no HTTP+SSE server.
    NotSse(String),
    /// The event stream is over.
    Disconnected(String),
}

impl End {
    /// The end in words.
    pub(crate) fn describe(&self) -> String {
        match &self.how {
            How::NotStarted(words) | How::Unreachable(words) | How::NotSse(words) | How::Disconnected(words) => {
                words.clone()
            }
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
