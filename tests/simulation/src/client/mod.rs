//! Clients. Each knows what it is owed, and says so when it gets anything else.

mod caller;
mod session;

use self::{caller::Caller, session::SessionClient};
use crate::{
    network::{Ask, ConnectionId, Frame, Purpose},
    run::Run,
};

/// A client of either era.
#[derive(Debug)]
pub(crate) enum Client {
    Session(SessionClient),
    Caller(Caller),
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) enum At {
    One(usize),
    /// All servers as one, of which these are called.
    All(Vec<usize>),
}

impl At {
    pub(crate) fn one(&self) -> Option<usize> {
        match self {
            Self::One(server) => Some(*server),
            Self::All(_) => None,
        }
    }
}

/// What a client does next.
#[derive(Debug)]
pub(crate) enum Act {
    Ask(Purpose, Ask),
    /// It lets a connection go.
    HangUp(ConnectionId),
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Anything.
    Busy,
    /// To bring to an end what it has begun.
    Finishing,
    /// To begin one more call, and nothing else.
    LastCall,
}

/// What a frame told a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// There is no such session.
    Unknown,
    /// No call waits for it any more: which.
    Stale(u64),
}

impl Client {
    pub(crate) fn session(number: usize, server: usize) -> Self {
        Self::Session(SessionClient::new(number, At::One(server)))
    }

    /// One of all servers, which calls tools of those.
    pub(crate) fn session_with_all(number: usize, servers: Vec<usize>) -> Self {
        Self::Session(SessionClient::new(number, At::All(servers)))
    }

    pub(crate) fn caller(number: usize, server: usize) -> Self {
        Self::Caller(Caller::new(number, At::One(server)))
    }

    /// One of all servers, which calls tools of those.
    pub(crate) fn caller_of_all(number: usize, servers: Vec<usize>) -> Self {
        Self::Caller(Caller::new(number, At::All(servers)))
    }

    /// The server that it asks; all of them without one.
    pub(crate) fn server(&self) -> Option<usize> {
        match self {
            Self::Session(client) => client.at.one(),
            Self::Caller(client) => client.at.one(),
        }
    }

    /// Its name, or that of its session.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Session(client) => client.name(),
            Self::Caller(client) => client.name.clone(),
        }
    }

    /// Something that it might do now, among everything that comes to its mind; `None` when it waits.
    pub(crate) fn act(&mut self, mood: Mood, run: &mut Run) -> Option<Act> {
        match self {
            Self::Session(client) => client.act(mood, run).map(|(purpose, ask)| Act::Ask(purpose, ask)),
            Self::Caller(client) => client.act(mood, run),
        }
    }

    /// The request went out on that connection, through that replica.
    pub(crate) fn sent(&mut self, purpose: Purpose, connection: ConnectionId, replica: usize) {
        match self {
            Self::Session(client) => client.sent(purpose, connection),
            Self::Caller(client) => client.sent(purpose, connection, replica),
        }
    }

    /// Takes a frame of connection `id`, which was for `purpose` of the session named `of`.
    pub(crate) fn take(&mut self, of: &str, purpose: Purpose, id: ConnectionId, frame: Frame, run: &mut Run) -> Told {
        match self {
            Self::Session(client) => client.take(of, purpose, id, frame, run),
            Self::Caller(client) => client.take(purpose, frame, run),
        }
    }

    /// Whether it waits for nothing.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Session(client) => client.is_settled(),
            Self::Caller(client) => client.is_settled(),
        }
    }

    /// Calls that the server itself has answered so far.
    pub(crate) fn served(&self) -> u64 {
        match self {
            Self::Session(client) => client.served,
            Self::Caller(client) => client.served,
        }
    }

    /// Whether a call of its session may wait for something that it missed.
    pub(crate) fn may_wait_in_vain(&self) -> bool {
        matches!(self, Self::Session(client) if client.may_wait_in_vain())
    }

    /// Whether it has something to bring for a call that waits for that.
    pub(crate) fn means_to_come_back(&self) -> bool {
        matches!(self, Self::Caller(client) if client.means_to_come_back())
    }

    /// It was told that its session is gone.
    pub(crate) fn is_told_of_its_end(&mut self, run: &mut Run) {
        if let Self::Session(client) = self {
            client.over(run);
        }
    }

    /// It goes for good: the connections that it lets go.
    pub(crate) fn leave(&mut self) -> Vec<ConnectionId> {
        match self {
            Self::Session(_) => Vec::new(),
            Self::Caller(client) => client.leave(),
        }
    }
}
