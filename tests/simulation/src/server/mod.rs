//! A server as its bridge has it: one process, or one conversation over HTTP. It takes its time, wants to know things in
//! the middle of calls, and says things of its own accord.

mod legacy;
mod modern;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use portolan_mcp::revision::Era;
use serde_json::{Value, json};

use self::legacy::Legacy;
use self::modern::Modern;
use crate::{
    run::Run,
    wire::{self, Kind, Said},
};

/// Resources that may change.
pub(crate) const RESOURCES: [&str; 2] = ["r:/a", "r:/b"];

/// A server of either era.
#[derive(Debug)]
pub(crate) enum Server {
    Legacy(Legacy),
    Modern(Modern),
}

/// What is under way at a server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UnderWay {
    pub(crate) calls: usize,
    pub(crate) questions: usize,
    /// Streams of notifications, or resources that it watches.
    pub(crate) listens: usize,
}

impl Server {
    /// One that nobody has spoken to yet; one that is `shared` has several clients.
    pub(crate) fn new(era: Era, shared: bool, run: &mut Run) -> Self {
        let desk = Desk {
            owner: None,
            shared,
            ids: BTreeSet::new(),
            ready: VecDeque::new(),
            spoken: 0,
            chatter: 0,
            announces: run.rng.bool(),
            unique: run.rng.u64(..),
        };
        match era {
            Era::Legacy => Self::Legacy(Legacy::new(desk)),
            Era::Modern | Era::Both => Self::Modern(Modern::new(desk)),
        }
    }

    /// Takes a line.
    pub(crate) fn read(&mut self, line: &Bytes, run: &mut Run) {
        let said = self.desk().take(line);
        match self {
            Self::Legacy(server) => server.read(said, run),
            Self::Modern(server) => server.read(said, run),
        }
    }

    /// Says the next thing.
    pub(crate) fn speak(&mut self, run: &mut Run) -> Option<Bytes> {
        if let Some(line) = self.desk().ready.pop_front() {
            return Some(line);
        }
        match self {
            Self::Legacy(server) => server.speak(run),
            Self::Modern(server) => server.speak(run),
        }
    }

    /// Whether it has something to say.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Legacy(server) => server.is_busy(),
            Self::Modern(server) => server.is_busy(),
        }
    }

    /// The way on which the request `id` is to be answered broke.
    pub(crate) fn lose(&mut self, id: &str) {
        match self {
            Self::Legacy(server) => server.lose(id),
            Self::Modern(server) => server.lose(id),
        }
    }

    /// Requests that it is about to answer, by id.
    pub(crate) fn calls(&self) -> Vec<String> {
        match self {
            Self::Legacy(server) => server.calls(),
            Self::Modern(server) => server.calls(),
        }
    }

    /// The id of that call of `owner`, where it is under way.
    pub(crate) fn find(&self, owner: &str, call: u64) -> Option<String> {
        match self {
            Self::Legacy(server) => server.find(owner, call),
            Self::Modern(_) => None,
        }
    }

    pub(crate) fn under_way(&self) -> UnderWay {
        match self {
            Self::Legacy(server) => server.under_way(),
            Self::Modern(server) => server.under_way(),
        }
    }

    fn desk(&mut self) -> &mut Desk {
        match self {
            Self::Legacy(server) => &mut server.desk,
            Self::Modern(server) => &mut server.desk,
        }
    }
}

/// What servers of both eras have.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Whose it is, once that is known.
    owner: Option<String>,
    shared: bool,
    /// Every id that it was ever given.
    ids: BTreeSet<String>,
    /// What it has to say first.
    ready: VecDeque<Bytes>,
    spoken: u64,
    /// How often it still says something of its own accord.
    chatter: u32,
    /// Whether it announces changes of its tools.
    announces: bool,
    /// What no other server says: their other numbers are the same.
    unique: u64,
}

impl Desk {
    fn take(&mut self, line: &Bytes) -> Said {
        let said = wire::read(line);
        if let Some(owner) = said.body["canary"].as_str().filter(|_| !self.shared) {
            self.owner.get_or_insert_with(|| owner.trim_matches('~').to_owned());
        }
        if let Some(owner) = &self.owner {
            wire::assert_is_of(owner, line, "at the server");
        }
        if said.kind == Kind::Request {
            assert!(self.ids.insert(said.id.clone()), "the server has seen this id before: {line:?}");
        }
        said
    }

    /// Whether it is the part of a session with all servers.
    fn is_of_all(&self) -> bool {
        self.owner.as_deref().is_some_and(wire::is_of_all)
    }

    fn answer(&mut self, id: &str, result: &Value) {
        self.ready.push_back(wire::result(id, result));
    }

    fn capabilities(&self) -> Value {
        json!({"tools": {"listChanged": self.announces}, "resources": {"subscribe": true}, "logging": {}})
    }

    /// A number that nothing else of this server has.
    fn next(&mut self) -> u64 {
        self.spoken += 1;
        self.spoken
    }

    fn log(&mut self, owner: &str) -> Bytes {
        let params = json!({"level": "info", "data": wire::canary(owner), "number": self.next(), "by": self.unique});
        wire::notification("notifications/message", &params)
    }

    fn progress(&mut self, owner: &str, token: &Value) -> Bytes {
        let params =
            json!({"progressToken": token, "progress": self.next(), "message": wire::canary(owner), "by": self.unique});
        wire::notification("notifications/progress", &params)
    }

    /// A change of its tools, or of a resource: what it is called, and its parameters.
    fn change(&mut self, run: &mut Run) -> (&'static str, Value) {
        let number = self.next();
        if self.announces && run.rng.bool() {
            return ("notifications/tools/list_changed", json!({"number": number, "by": self.unique}));
        }
        let uri = RESOURCES[run.rng.usize(0..RESOURCES.len())];
        ("notifications/resources/updated", json!({"uri": uri, "number": number, "by": self.unique}))
    }
}

/// Whose a call is, as its parameters say.
fn owner_of(params: &Value) -> String {
    params["canary"].as_str().expect("a call has a canary").trim_matches('~').to_owned()
}
