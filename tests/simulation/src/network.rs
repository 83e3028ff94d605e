//! Connections: what is under way on them, in order, and how they end.

use std::collections::VecDeque;

use bytes::Bytes;
use portolan_mcp::{modern::Reply, session::Attachment, token::SessionKey};

use crate::parts::{Path, Way};

/// Names a connection of this run.
pub(crate) type ConnectionId = usize;

/// What a client asks of a gateway.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Opens a session, or a part of one in its client's stead.
    Initialize { body: Bytes, in_stead: bool },
    /// Posts a message: a call, or an answer to the server.
    Post { token: String, body: Bytes },
    /// Opens the standing stream, or resumes one.
    Open { token: String, last: Option<String> },
    /// Ends the session.
    Delete { token: String },
    /// Posts a request that stands alone.
    Alone(Bytes),
}

/// What a request is for, to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A call, by its id.
    Call(u64),
    /// The standing stream.
    Listen,
    /// An answer to the server.
    Answer,
    /// To take back a call.
    Cancel(u64),
    /// To say that the session has begun.
    Begun,
    Delete,
    /// A stream of notifications, by the id of its request.
    Changes(u64),
    /// To get at what is someone else's.
    Theft,
    /// To tell a server something on behalf of a client, who does not wait for it.
    Told,
}

/// One frame on its way to a client.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// An event; one without a message only names the place from which to resume.
    Event { id: Option<String>, message: Option<Bytes> },
    /// The session's name, in the head of an answer.
    Named(String),
    /// Taken, and nothing more to say.
    Accepted,
    /// Refused, with the status that says how.
    Refused(u16),
    /// Nothing more will come, and nothing was cut off.
    End,
    /// The connection broke.
    Broken,
}

/// Where a request is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// On its way to the replica.
    ToReplica(Ask),
    /// At the replica, where it waits for its client's turn.
    Turn,
    /// On its way to an address, which may be another pod's by the time it arrives. Of the sessions that had one key, `part`
    /// is meant.
    ToPod { address: usize, pod: Box<str>, session: SessionKey, part: Option<String>, mac: String, ask: Ask },
    /// At a pod, which holds a stream for it or has nothing more to say.
    AtPod { pod: usize },
    /// Over.
    Done,
}

/// What a pod holds for a connection.
#[derive(Clone, Debug)]
pub(crate) enum Hold {
    Stream(SessionKey, Attachment),
    Reply(SessionKey, Reply),
}

/// A client's request and what comes back.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    /// Of a client with sessions, which one it is for.
    pub(crate) of: String,
    pub(crate) purpose: Purpose,
    pub(crate) replica: usize,
    pub(crate) stage: Stage,
    /// A name to give with the answer's head, when it comes.
    pub(crate) name: Option<String>,
    pub(crate) hold: Option<Hold>,
    /// Of a request to all servers, how it gets to the one that it is for; nothing once it is there.
    pub(crate) path: Option<(Path, Way)>,
    /// Whose answer it is, where that has to be said.
    pub(crate) member: Option<usize>,
    /// Which of the sessions that had one key answers, as the head of its answer says.
    pub(crate) part: Option<String>,
    pub(crate) frames: VecDeque<Frame>,
    /// Whether the client's side is gone and the pod does not know yet.
    pub(crate) hung_up: bool,
    /// Whether the replica had not heard of the pod that it was sent for.
    pub(crate) was_unheard: bool,
}

impl Connection {
    pub(crate) fn new(client: usize, of: String, purpose: Purpose, replica: usize, ask: Ask) -> Self {
        Self {
            client,
            of,
            purpose,
            replica,
            stage: Stage::ToReplica(ask),
            name: None,
            hold: None,
            path: None,
            member: None,
            part: None,
            frames: VecDeque::new(),
            hung_up: false,
            was_unheard: false,
        }
    }

    /// Whether nothing moves on it until something else does.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.frames.is_empty() && !self.hung_up && matches!(self.stage, Stage::AtPod { .. })
    }

    /// Sends a frame; nothing follows an end.
    pub(crate) fn send(&mut self, frame: Frame) {
        if !self.hung_up && !matches!(self.frames.back(), Some(Frame::End | Frame::Broken)) {
            self.frames.push_back(frame);
        }
    }

    /// Says no.
    pub(crate) fn refuse(&mut self, status: u16) {
        self.send(Frame::Refused(status));
        self.stage = Stage::Done;
    }

    /// Says that nothing more will come.
    pub(crate) fn end(&mut self) {
        self.send(Frame::End);
        self.stage = Stage::Done;
    }

    /// Says that it was taken, and nothing more.
    pub(crate) fn accept(&mut self) {
        self.send(Frame::Accepted);
        self.stage = Stage::Done;
    }

    /// Loses what is under way.
    pub(crate) fn cut(&mut self) {
        if self.hung_up {
            return;
        }
        self.frames.clear();
        self.send(Frame::Broken);
        self.hung_up = true;
    }
}
