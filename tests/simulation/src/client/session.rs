//! A client with sessions: it calls, listens, answers, takes calls back, loses connections and resumes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;

use super::{At, Mood, Told};
use crate::{
    cluster::SERVERS,
    network::{Ask, ConnectionId, Frame, Purpose},
    run::{Name, Named, Run},
    server::RESOURCES,
    tally::Seen,
    wire::{self, Kind},
};

/// Calls of one session at a time.
const MAX_CALLS: usize = 3;

/// One client.
#[derive(Debug)]
pub(crate) struct SessionClient {
    number: usize,
    pub(crate) at: At,
    opened: u64,
    session: Option<Open>,
    pub(crate) served: u64,
}

/// A session as its client sees it.
#[derive(Debug)]
struct Open {
    at: At,
    name: String,
    token: Option<String>,
    calls: BTreeMap<u64, Call>,
    listening: Stream,
    begun: bool,
    to_answer: Vec<(String, u64)>,
    heard: BTreeSet<String>,
    watched: BTreeSet<&'static str>,
    next_call: u64,
    deleting: bool,
    /// Whether it may have missed something, as it had nothing to resume from.
    missed: bool,
}

/// A call, and what it asks for.
#[derive(Debug, Default)]
struct Call {
    stream: Stream,
    is_cancelled: bool,
    /// Whether it is a tool's: its answer says whose it is.
    is_tool: bool,
}

/// One stream: the connection that carries it now, and the last event seen.
#[derive(Clone, Debug, Default)]
struct Stream {
    connection: Option<ConnectionId>,
    last: Option<String>,
}

impl SessionClient {
    pub(super) fn new(number: usize, at: At) -> Self {
        Self { number, at, opened: 0, session: None, served: 0 }
    }

    pub(super) fn name(&self) -> String {
        self.session.as_ref().map(|session| session.name.clone()).unwrap_or_default()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.calls.is_empty() && session.to_answer.is_empty())
    }

    /// Whether a call of its session may wait in vain.
    pub(super) fn may_wait_in_vain(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.missed)
    }

    pub(super) fn act(&mut self, mood: Mood, run: &mut Run) -> Option<(Purpose, Ask)> {
        let may_begin = mood == Mood::Busy;
        let Some(session) = &mut self.session else {
            return (mood != Mood::Finishing).then(|| self.begin(run));
        };
        let token = session.token.clone()?;
        if session.deleting {
            return None;
        }
        let mut wishes: Vec<Purpose> = Vec::new();
        let broken = session.calls.iter().filter(|(_, call)| call.stream.connection.is_none());
        wishes.extend(broken.map(|(call, _)| Purpose::Call(*call)));
        // Of all servers, the standing stream says only that lists have changed: nothing there is a matter of these machines.
        let may_listen = session.at.one().is_some();
        if may_listen && session.listening.connection.is_none() && (may_begin || session.listening.last.is_some()) {
            wishes.push(Purpose::Listen);
        }
        if !session.to_answer.is_empty() {
            wishes.push(Purpose::Answer);
        }
        if !session.begun && !session.calls.contains_key(&0) {
            wishes.push(Purpose::Begun);
        }
        if mood != Mood::Finishing && session.calls.len() < MAX_CALLS {
            wishes.push(Purpose::Call(session.next_call));
        }
        if may_begin {
            let open = session.calls.iter().filter(|(id, call)| **id != 0 && !call.is_cancelled);
            wishes.extend(open.map(|(id, _)| Purpose::Cancel(*id)).filter(|_| run.rng.u8(0..8) == 0));
            // Another connection takes the standing stream over.
            if session.listening.connection.is_some() && run.chance(10) {
                wishes.push(Purpose::Listen);
            }
            if run.chance(40) {
                wishes = vec![Purpose::Delete];
            }
        }
        let purpose = run.rng.choice(wishes)?;
        Some((purpose, session.ask(purpose, token, run)))
    }

    fn begin(&mut self, run: &mut Run) -> (Purpose, Ask) {
        self.opened += 1;
        run.saw(Seen::Session);
        let name = match &self.at {
            At::One(_) => format!("c{}s{}", self.number, self.opened),
            At::All(_) => wire::session_with_all(self.number, self.opened),
        };
        let ask = Ask::Initialize { body: wire::initialize(&name), in_stead: false };
        self.session = Some(Open {
            at: self.at.clone(),
            name,
            token: None,
            calls: [(0, Call::default())].into(),
            listening: Stream::default(),
            begun: false,
            to_answer: Vec::new(),
            heard: BTreeSet::new(),
            watched: BTreeSet::new(),
            next_call: 1,
            deleting: false,
            missed: false,
        });
        (Purpose::Call(0), ask)
    }

    pub(super) fn sent(&mut self, purpose: Purpose, connection: ConnectionId) {
        let Some(stream) = self.stream(purpose) else { return };
        stream.connection = Some(connection);
    }

    fn stream(&mut self, purpose: Purpose) -> Option<&mut Stream> {
        let session = self.session.as_mut()?;
        match purpose {
            Purpose::Call(call) => session.calls.get_mut(&call).map(|call| &mut call.stream),
            Purpose::Listen => Some(&mut session.listening),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, of: &str, purpose: Purpose, id: ConnectionId, frame: Frame, run: &mut Run) -> Told {
        // Whoever opens a stream anew does not hear the earlier connection any more.
        let is_left = self.stream(purpose).is_some_and(|stream| stream.connection != Some(id));
        let Some(session) = self.session.as_mut().filter(|session| session.name == of) else { return Told::Nothing };
        match frame {
            Frame::Named(name) => {
                let named = Name::Session(name.clone());
                run.names.push(Named { owner: self.number, server: self.at.one(), name: named });
                session.token = Some(name);
            }
            Frame::Event { .. } if is_left => {}
            Frame::Event { id: event, message } => {
                if let (Some(stream), Some(event)) = (self.stream(purpose), event) {
                    stream.last = Some(event);
                }
                if let Some(message) = message {
                    self.hear(purpose, &message, run);
                }
            }
            Frame::Accepted if purpose == Purpose::Delete => self.over(run),
            Frame::Accepted => {}
            Frame::Refused(404) => return Told::Unknown,
            Frame::Refused(400) => {
                session.missed = true;
                if let Some(stream) = self.stream(purpose) {
                    stream.last = None;
                }
                self.let_go(purpose, id, run);
            }
            Frame::Refused(_) | Frame::Broken | Frame::End => self.let_go(purpose, id, run),
        }
        Told::Nothing
    }

    /// A message on the stream of `purpose`.
    fn hear(&mut self, purpose: Purpose, message: &Bytes, run: &mut Run) {
        let Some(session) = &mut self.session else { return };
        wire::assert_is_of(&session.name, message, "at the client");
        let said = wire::read(message);
        match said.kind {
            Kind::Result | Kind::Error => {
                let id: u64 = said.id.parse().expect("an answer names its request");
                assert_eq!(purpose, Purpose::Call(id), "{}: the answer to {id} came on another stream", session.name);
                let call = session.calls.remove(&id);
                let call = call.unwrap_or_else(|| panic!("{}: call {id} was answered twice", session.name));
                if let Some(number) = said.body["call"].as_u64() {
                    assert!(call.is_tool && number == id, "the answer to another call: {message:?}");
                    self.served += 1;
                }
                run.saw(Seen::Answered);
                if id == 0 && said.kind == Kind::Error {
                    self.over(run);
                }
            }
            Kind::Request => {
                assert_eq!(said.method, "elicitation/create", "a server asks nothing else");
                assert!(session.heard.insert(format!("ask {}", said.id)), "a question came twice: {message:?}");
                session.to_answer.push((said.id, said.body["number"].as_u64().expect("questions have numbers")));
                run.saw(Seen::Question);
            }
            Kind::Notification if said.method == "notifications/cancelled" => {
                let withdrawn = said.body["requestId"].to_string();
                session.to_answer.retain(|(id, _)| *id != withdrawn);
            }
            Kind::Notification => {
                let text = String::from_utf8_lossy(message);
                assert!(session.heard.insert(text.clone().into_owned()), "{}: came twice: {text}", session.name);
                if said.method.ends_with("changed") || said.method.ends_with("updated") {
                    run.saw(Seen::Change);
                }
            }
        }
    }

    /// A connection is over. A call that can be resumed waits for that; one of which nothing was heard is lost.
    fn let_go(&mut self, purpose: Purpose, id: ConnectionId, run: &mut Run) {
        let Some(session) = &mut self.session else { return };
        match purpose {
            Purpose::Listen if session.listening.connection == Some(id) => {
                session.missed |= session.listening.last.is_none();
                session.listening.connection = None;
            }
            Purpose::Call(call) => {
                let mine = session.calls.get_mut(&call).filter(|call| call.stream.connection == Some(id));
                let Some(Call { stream, .. }) = mine else { return };
                stream.connection = None;
                if stream.last.is_some() && session.token.is_some() {
                    return;
                }
                session.calls.remove(&call);
                session.missed = true;
                run.saw(Seen::Lost);
                if session.token.is_none() {
                    self.session = None;
                }
            }
            Purpose::Delete => session.deleting = false,
            Purpose::Begun => session.begun = false,
            // Nobody says whether it arrived.
            Purpose::Answer => session.missed = true,
            _ => {}
        }
    }

    /// The session is no more: what it still waited for is lost.
    pub(super) fn over(&mut self, run: &mut Run) {
        for _ in self.session.take().map(|session| session.calls).unwrap_or_default() {
            run.saw(Seen::Lost);
        }
    }
}

impl Open {
    fn ask(&mut self, purpose: Purpose, token: String, run: &mut Run) -> Ask {
        match purpose {
            Purpose::Call(id) if id == self.next_call => {
                self.next_call += 1;
                let mut call = Call { is_tool: true, ..Call::default() };
                let mut body = match &self.at {
                    At::One(_) => wire::call(&self.name, id),
                    At::All(servers) => {
                        let server = run.rng.choice(servers).expect("one is there");
                        wire::call_at(SERVERS[*server], &self.name, id)
                    }
                };
                // Whether a resource is watched is known when nothing under way says otherwise.
                if self.at.one().is_some() && run.chaos && self.begun && self.calls.is_empty() && run.rng.bool() {
                    call.is_tool = false;
                    body = self.watch(id, run);
                }
                self.calls.insert(id, call);
                Ask::Post { token, body }
            }
            Purpose::Call(call) => {
                run.saw(Seen::Resumed);
                Ask::Open { token, last: self.calls[&call].stream.last.clone() }
            }
            Purpose::Answer => {
                let (id, number) = self.to_answer.swap_remove(run.rng.usize(0..self.to_answer.len()));
                let body = match run.mishap(8) {
                    true => wire::error(&id, "the user is away"),
                    false => wire::result(&id, &wire::answer(&self.name, number)),
                };
                Ask::Post { token, body }
            }
            Purpose::Cancel(id) => {
                run.saw(Seen::Cancelled);
                self.calls.entry(id).and_modify(|call| call.is_cancelled = true);
                Ask::Post { token, body: wire::notification("notifications/cancelled", &json!({"requestId": id})) }
            }
            Purpose::Begun => {
                self.begun = true;
                Ask::Post { token, body: wire::notification("notifications/initialized", &json!({})) }
            }
            Purpose::Delete => {
                self.deleting = true;
                Ask::Delete { token }
            }
            _ => {
                // Whoever lets a stream go before its first event has nothing to resume from.
                self.missed |= self.listening.connection.is_some() && self.listening.last.is_none();
                Ask::Open { token, last: self.listening.last.clone() }
            }
        }
    }

    fn watch(&mut self, id: u64, run: &mut Run) -> Bytes {
        let uri = RESOURCES[run.rng.usize(0..RESOURCES.len())];
        let method = if self.watched.insert(uri) {
            "resources/subscribe"
        } else {
            self.watched.remove(uri);
            "resources/unsubscribe"
        };
        wire::request(id, method, &json!({"uri": uri}))
    }
}
