//! Connections: what is under way on them, in order, and how they end.

use std::collections::VecDeque;

use bytes::Bytes;
use portolan_mcp::{session::Attachment, token::SessionKey};

/// Names a connection of this run.
pub(crate) type ConnectionId = usize;

/// What a client asks of a gateway.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Opens a session.
    Initialize(Bytes),
    /// Posts a message: a call, or an answer to the server.
    Post { token: String, body: Bytes },
    /// Opens the standing stream, or resumes one.
    Open { token: String, last: Option<String> },
    /// Ends the session.
    Delete { token: String },
}

/// One frame on its way to a client.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// An event; one without a message only names the place from which to resume.
    Event { id: String, message: Option<Bytes> },
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
    /// On its way to an address, which may be another pod's by the time it arrives.
    ToPod { address: usize, pod: Box<str>, session: SessionKey, mac: String, ask: Ask },
    /// At a pod, which holds a stream for it or has nothing more to say.
    AtPod { pod: usize },
    /// Over.
    Done,
}

/// A client's request and what comes back.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) replica: usize,
    pub(crate) stage: Stage,
    /// A name to give with the answer's head, when it comes.
    pub(crate) name: Option<String>,
    pub(crate) hold: Option<(SessionKey, Attachment)>,
    pub(crate) frames: VecDeque<Frame>,
    /// Whether the client's side is gone and the pod does not know yet.
    pub(crate) hung_up: bool,
}

impl Connection {
    pub(crate) fn new(client: usize, replica: usize, ask: Ask) -> Self {
        let stage = Stage::ToReplica(ask);
        Self { client, replica, stage, name: None, hold: None, frames: VecDeque::new(), hung_up: false }
    }

    /// Sends a frame; nothing follows an end.
    pub(crate) fn send(&mut self, frame: Frame) {
        if !self.hung_up && !matches!(self.frames.back(), Some(Frame::End | Frame::Broken)) {
            self.frames.push_back(frame);
        }
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
