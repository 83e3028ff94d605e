//! What a session talks to, whatever it is: messages out, messages in, an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portolan_mcp::canary::WithDocument;
use portolan_mcp::envelope::Id;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::parked::ParkingKey;
use portolan_mcp::revision::Era;
use portolan_mcp::token::SessionKey;
use portolan_mcp::translate::{Introduction, Parking, Step, ToLegacy};
use portolan_mcp::wire::ExitCause;

use crate::config::ServerCommand;
use crate::conversation::{Conversation, Heards};
use crate::event_stream;
use crate::http_link;
use crate::lines::LineError;
use crate::process::{Process, SpawnError, Stdout};
use crate::state::State;
use crate::translated::{Machine, Messages, Translated};
use crate::upstream::{NoAnswer, Server};

/// How links are opened.
#[derive(Clone, Debug)]
pub(crate) enum Opener {
    /// By starting a process.
    Process(ServerCommand),
    /// By opening an event stream of an HTTP+SSE server.
    Sse(Server),
    /// By posting to a streamable HTTP server.
    Http(Server),
}

/// A caller without a session, for whom a link is opened.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its name.
    pub(crate) key: SessionKey,
    /// What it says of itself.
    pub(crate) introduction: Introduction,
}

impl Caller {
    /// The one who stands for all, where nothing is kept for anyone.
    pub(crate) fn everyone() -> Self {
        Self { key: SessionKey::of_everyone(), introduction: Introduction::of_many() }
    }
}

impl Opener {
    /// Opens a link for someone who begins with `initialize`; `name` is what logs and exits call it.
    pub(crate) fn open(&self, state: &Arc<State>, name: &str) -> Result<(Link, Inbox), SpawnError> {
        if !state.is_sessionless() {
            return self.open_in(Era::Legacy, state, name);
        }
        let (link, inbox) = self.open_in(Era::Modern, state, name)?;
        let machine = Machine::ToModern(Box::default());
        Ok(translated(link, inbox, machine, Vec::new()))
    }

    /// Opens a link to a server of `era` for a caller without a session.
    pub(crate) fn open_for(
        &self,
        caller: Caller,
        era: Era,
        state: &Arc<State>,
        name: &str,
    ) -> Result<(Link, Inbox), SpawnError> {
        if era != Era::Legacy {
            return self.open_in(Era::Modern, state, name);
        }
        let (link, inbox) = self.open_in(Era::Legacy, state, name)?;
        let key = ParkingKey::of(&state.config.mac_key).ok_or(SpawnError::NoRandomness)?;
        let parking = Parking { key, pod: state.config.pod.as_str().into(), caller: caller.key };
        let mut first = Vec::new();
        let machine = ToLegacy::new(caller.introduction, parking, &mut first);
        Ok(translated(link, inbox, Machine::ToLegacy(Box::new(machine)), first))
    }

    fn open_in(&self, era: Era, state: &Arc<State>, name: &str) -> Result<(Link, Inbox), SpawnError> {
        let (link, inbox) = self.open_bare(era, state, name)?;
        if !state.config.document {
            return Ok((link, inbox));
        }
        Ok(translated(link, inbox, Machine::WithDocument(WithDocument::new(era)), Vec::new()))
    }

    fn open_bare(&self, era: Era, state: &Arc<State>, name: &str) -> Result<(Link, Inbox), SpawnError> {
        match self {
            Self::Process(command) => {
                let (process, stdout) = Process::spawn(state, command, name)?;
                Ok((Link::Process(process), Inbox::Process(stdout)))
            }
            Self::Sse(server) => {
                let (conversation, heards) = event_stream::open(state, server, name);
                Ok((Link::Conversation(conversation, Transport::Sse), Inbox::Conversation(heards)))
            }
            Self::Http(server) => {
                let (conversation, heards) = http_link::open(state, server, name, era);
                Ok((Link::Conversation(conversation, Transport::StreamableHttp), Inbox::Conversation(heards)))
            }
        }
    }

    /// Whether a new link costs no more than a connection: then none is opened before its time, and trying again soon does
    /// no harm.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::Process(_) => false,
            Self::Sse(_) | Self::Http(_) => true,
        }
    }
}

fn translated(link: Link, inbox: Inbox, machine: Machine, first: Vec<Step>) -> (Link, Inbox) {
    let (translated, messages) = Translated::over(link, inbox, machine, first);
    (Link::Translated(Box::new(translated)), Inbox::Translated(messages))
}

/// One conversation with a server. Dropping it ends it.
#[derive(Debug)]
pub(crate) enum Link {
    /// With a process of its own.
    Process(Process),
    /// With a server over HTTP.
    Conversation(Conversation, Transport),
    /// With a server in front of which a machine stands.
    Translated(Box<Translated>),
}

/// How a conversation over HTTP is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    /// Messages of the server come on one event stream (2024-11-05).
    Sse,
    /// Every message of the client is answered on its own (2025-03-26 and later).
    StreamableHttp,
}

impl Link {
    /// From now on logs and exits call it `name`.
    pub(crate) fn rename(&self, name: &str) {
        match self {
            Self::Process(process) => process.rename(name),
            Self::Conversation(conversation, _) => conversation.rename(name),
            Self::Translated(translated) => translated.inner().rename(name),
        }
    }

    /// Queues one message for the server, on a single line.
    pub(crate) fn write(&self, line: Bytes) -> Result<(), NotReading> {
        match self {
            Self::Process(process) => process.write(line),
            Self::Conversation(conversation, _) => conversation.write(line),
            Self::Translated(translated) => translated.write(&line),
        }
    }

    /// Ends it, without waiting. The first cause is the one that is recorded.
    pub(crate) fn terminate(&self, cause: ExitCause) {
        match self {
            Self::Process(process) => process.terminate(cause),
            Self::Conversation(conversation, _) => drop(conversation.terminate(cause)),
            Self::Translated(translated) => translated.inner().terminate(cause),
        }
    }

    /// Like [`Self::terminate`], but without a grace. Says whether there was anything to end.
    pub(crate) fn kill(&self, cause: ExitCause) -> bool {
        match self {
            Self::Process(process) => process.kill(cause),
            Self::Conversation(conversation, _) => conversation.terminate(cause),
            Self::Translated(translated) => translated.inner().kill(cause),
        }
    }

    /// Waits until nothing is left of it.
    pub(crate) async fn ended(&self) -> Arc<End> {
        match self {
            Self::Process(process) => process.ended().await,
            Self::Conversation(conversation, _) => conversation.ended().await,
            Self::Translated(translated) => Box::pin(translated.inner().ended()).await,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Process(process) => process.has_ended(),
            Self::Conversation(conversation, _) => conversation.has_ended(),
            Self::Translated(translated) => translated.inner().has_ended(),
        }
    }

    /// Whether a call waits here for its client to come back.
    pub(crate) fn is_awaited(&self) -> bool {
        match self {
            Self::Process(_) | Self::Conversation(..) => false,
            Self::Translated(translated) => translated.is_awaited() || translated.inner().is_awaited(),
        }
    }

    /// Whether its end has begun: nothing is to be ended any more, only told.
    pub(crate) fn is_ending(&self) -> bool {
        match self {
            Self::Process(process) => process.is_reaped(),
            Self::Conversation(conversation, _) => conversation.has_ended(),
            Self::Translated(translated) => translated.inner().is_ending(),
        }
    }

    /// Where its messages come, in words.
    pub(crate) fn voice(&self) -> &'static str {
        match self {
            Self::Process(_) => "stdout",
            Self::Conversation(_, Transport::Sse) => "its event stream",
            Self::Conversation(_, Transport::StreamableHttp) => "HTTP",
            Self::Translated(translated) => translated.inner().voice(),
        }
    }

    /// The root of the processes whose memory is the bridge's to watch.
    pub(crate) fn guard(&self) -> Option<Pid> {
        match self {
            Self::Process(process) => Some(process.guard),
            Self::Conversation(..) => None,
            Self::Translated(translated) => translated.inner().guard(),
        }
    }
}

/// Where a link's messages come from.
#[derive(Debug)]
pub(crate) enum Inbox {
    /// The process's stdout.
    Process(Stdout),
    /// What is heard of a conversation over HTTP.
    Conversation(Heards),
    /// What is heard of a server in front of which a machine stands.
    Translated(Messages),
}

impl Inbox {
    /// The next message; `None` when no more will come. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, LineError> {
        match self {
            Self::Process(stdout) => Ok(stdout.next().await?.map(Heard::Message)),
            Self::Conversation(heards) => heards.recv().await.transpose(),
            Self::Translated(messages) => messages.next().await,
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

impl NotReading {
    /// What the client is told of it.
    pub(crate) fn failure(self) -> Failure {
        Failure::new(Kind::Overloaded, "the server does not read what is sent to it; ask again later")
            .retry_after(Duration::from_secs(1))
    }
}

/// What a client is told whose request the server did not answer within `timeout`.
pub(crate) fn timed_out(timeout: Duration) -> Failure {
    let millis = timeout.as_millis();
    let message = format!("the server did not answer within {millis} ms; ask again, or raise spec.timeouts.request");
    Failure::new(Kind::RequestTimeout, message)
}

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
    /// Where the server should be, nothing answered, or what sends its callers elsewhere.
    Unreachable(NoAnswer),
    /// What answered is no HTTP+SSE server.
    NotSse(String),
    /// The event stream is over.
    Disconnected(String),
}

impl End {
    /// The end in words.
    pub(crate) fn describe(&self) -> String {
        match &self.how {
            How::NotStarted(words) | How::NotSse(words) | How::Disconnected(words) => words.clone(),
            How::Unreachable(error) => error.to_string(),
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
