//! A client of one server: it calls, listens, answers, loses connections and resumes. It knows what it is owed, and says
//! so when it gets anything else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fastrand::Rng;

use crate::{
    network::{Ask, ConnectionId, Frame},
    wire::{self, CallId, Said},
};

/// Calls of one session at a time.
const MAX_CALLS: usize = 3;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    pub(crate) server: usize,
    opened: u64,
    pub(crate) session: Option<Open>,
    pub(crate) counts: Counts,
}

/// What came of everything so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: u64,
    pub(crate) answered: u64,
    /// Calls of which the client knows that nobody will answer them any more.
    pub(crate) lost: u64,
    pub(crate) resumed: u64,
    pub(crate) questions: u64,
}

/// A session as its client sees it.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) token: Option<String>,
    pub(crate) calls: BTreeMap<CallId, Stream>,
    pub(crate) listening: Stream,
    to_answer: Vec<u64>,
    heard: BTreeSet<String>,
    next_call: CallId,
    deleting: bool,
}

/// One stream: the connection that carries it now, and the last event seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) last: Option<String>,
}

/// What a request of the client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Call(CallId),
    Listen,
    Answer,
    Delete,
}

/// What a frame told the client of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// The server says that there is no such session.
    Unknown,
}

impl Client {
    pub(crate) fn new(number: usize, server: usize) -> Self {
        Self { number, server, opened: 0, session: None, counts: Counts::default() }
    }

    /// Something that it might do now, among everything that comes to its mind; `None` when it waits.
    pub(crate) fn act(&mut self, may_begin: bool, rng: &mut Rng) -> Option<(Purpose, Ask)> {
        let Some(session) = &mut self.session else {
            return may_begin.then(|| self.begin());
        };
        let token = session.token.clone()?;
        if session.deleting {
            return None;
        }
        let mut wishes: Vec<Purpose> = Vec::new();
        let broken = session.calls.iter().filter(|(_, stream)| stream.connection.is_none());
        wishes.extend(broken.map(|(call, _)| Purpose::Call(*call)));
        if session.listening.connection.is_none() && (may_begin || session.listening.last.is_some()) {
            wishes.push(Purpose::Listen);
        }
        if !session.to_answer.is_empty() {
            wishes.push(Purpose::Answer);
        }
        if may_begin && session.calls.len() < MAX_CALLS {
            wishes.push(Purpose::Call(session.next_call));
        }
        if may_begin && rng.u8(0..40) == 0 {
            wishes = vec![Purpose::Delete];
        }
        let purpose = rng.choice(wishes)?;
        Some((purpose, session.ask(purpose, token, &mut self.counts, rng)))
    }

    fn begin(&mut self) -> (Purpose, Ask) {
        self.opened += 1;
        self.counts.sessions += 1;
        let name = format!("c{}s{}", self.number, self.opened);
        let ask = Ask::Initialize(wire::initialize(&name));
        self.session = Some(Open {
            name,
            token: None,
            calls: [(0, Stream::default())].into(),
            listening: Stream::default(),
            to_answer: Vec::new(),
            heard: BTreeSet::new(),
            next_call: 1,
            deleting: false,
        });
        (Purpose::Call(0), ask)
    }

    /// The request went out on that connection.
    pub(crate) fn sent(&mut self, purpose: Purpose, connection: ConnectionId) {
        let Some(stream) = self.stream(purpose) else { return };
        stream.connection = Some(connection);
    }

    fn stream(&mut self, purpose: Purpose) -> Option<&mut Stream> {
        let session = self.session.as_mut()?;
        match purpose {
            Purpose::Call(call) => session.calls.get_mut(&call),
            Purpose::Listen => Some(&mut session.listening),
            Purpose::Answer | Purpose::Delete => None,
        }
    }

    /// Takes a frame of connection `id`, which was for `purpose` of the session named `of`.
    pub(crate) fn take(&mut self, of: &str, purpose: Purpose, id: ConnectionId, frame: Frame) -> Told {
        if self.session.as_ref().is_none_or(|session| session.name != of) {
            return Told::Nothing;
        }
        match frame {
            Frame::Named(name) => {
                let session = self.session.as_mut().expect("it is this one's");
                session.token = Some(name);
            }
            Frame::Event { id: event, message } => {
                if let Some(stream) = self.stream(purpose) {
                    stream.last = Some(event);
                }
                if let Some(message) = message {
                    self.hear(purpose, &message);
                }
            }
            Frame::Accepted if purpose == Purpose::Delete => self.over(),
            Frame::Accepted => {}
            Frame::Refused(404) => return Told::Unknown,
            Frame::Refused(400) => {
                if let Some(stream) = self.stream(purpose) {
                    stream.last = None;
                }
                self.let_go(purpose, id);
            }
            Frame::Refused(_) | Frame::Broken | Frame::End => self.let_go(purpose, id),
        }
        Told::Nothing
    }

    /// A message on the stream of `purpose`.
    fn hear(&mut self, purpose: Purpose, message: &Bytes) {
        let session = self.session.as_mut().expect("it is this one's");
        match wire::read(message) {
            Said::Answer { session: of, id } => {
                assert_eq!(purpose, Purpose::Call(id), "{}: the answer to {id} came on another stream", session.name);
                if let Some(of) = of {
                    assert_eq!(of, session.name, "an answer of another session");
                }
                assert!(session.calls.remove(&id).is_some(), "{}: call {id} was answered twice", session.name);
                self.counts.answered += 1;
            }
            Said::Ask { session: of, number } => {
                assert_eq!(of, session.name, "a question of another session");
                assert!(session.heard.insert(format!("ask {number}")), "{of}: question {number} came twice");
                session.to_answer.push(number);
                self.counts.questions += 1;
            }
            Said::News { session: of, text } => {
                assert_eq!(of, session.name, "news of another session");
                assert!(session.heard.insert(text.clone()), "{of}: came twice: {text}");
            }
            other => panic!("a server does not say {other:?}"),
        }
    }

    /// A connection is over. A call that can be resumed waits for that; one of which nothing was heard is lost.
    fn let_go(&mut self, purpose: Purpose, id: ConnectionId) {
        let Some(session) = &mut self.session else { return };
        match purpose {
            Purpose::Listen if session.listening.connection == Some(id) => session.listening.connection = None,
            Purpose::Call(call) => {
                let Some(stream) = session.calls.get_mut(&call).filter(|stream| stream.connection == Some(id)) else {
                    return;
                };
                stream.connection = None;
                if stream.last.is_some() && session.token.is_some() {
                    return;
                }
                session.calls.remove(&call);
                self.counts.lost += 1;
                if session.token.is_none() {
                    self.session = None;
                }
            }
            Purpose::Delete => session.deleting = false,
            Purpose::Listen | Purpose::Answer => {}
        }
    }

    /// The session is no more: what it still waited for is lost.
    pub(crate) fn over(&mut self) {
        if let Some(session) = self.session.take() {
            self.counts.lost += session.calls.len() as u64;
        }
    }
}

impl Open {
    fn ask(&mut self, purpose: Purpose, token: String, counts: &mut Counts, rng: &mut Rng) -> Ask {
        match purpose {
            Purpose::Call(call) if call == self.next_call => {
                self.next_call += 1;
                self.calls.insert(call, Stream::default());
                Ask::Post { token, body: wire::call(&self.name, call) }
            }
            Purpose::Call(call) => {
                counts.resumed += 1;
                Ask::Open { token, last: self.calls[&call].last.clone() }
            }
            Purpose::Listen => Ask::Open { token, last: self.listening.last.clone() },
            Purpose::Answer => {
                let number = self.to_answer.swap_remove(rng.usize(0..self.to_answer.len()));
                Ask::Post { token, body: wire::answer(&self.name, number) }
            }
            Purpose::Delete => {
                self.deleting = true;
                Ask::Delete { token }
            }
        }
    }
}
