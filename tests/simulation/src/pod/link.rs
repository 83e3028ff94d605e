//! The way to a server, with what translates where the server speaks another era than whoever asks.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::session::single_line;
use portolan_mcp::translate::{Step, ToLegacy, ToModern};

use crate::{
    run::Run,
    server::{Server, UnderWay},
    tally::Seen,
    wire::{self, Kind},
};

/// What comes over a link.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Bytes),
    /// The request of that id will not be answered.
    Refused(Id),
}

/// What translates.
#[derive(Debug)]
enum Machine {
    None,
    ToLegacy(Box<ToLegacy>),
    ToModern(Box<ToModern>),
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    machine: Machine,
    server: Server,
    /// Whether each request has a connection of its own, which may break.
    is_http: bool,
    to_server: VecDeque<Bytes>,
    heard: VecDeque<Heard>,
    /// Calls whose clients have time to come back: a timer runs for each.
    awaited: BTreeSet<Box<str>>,
}

impl Link {
    pub(crate) fn direct(server: Server, is_http: bool) -> Self {
        let (to_server, heard, awaited) = Default::default();
        Self { machine: Machine::None, server, is_http, to_server, heard, awaited }
    }

    pub(crate) fn to_legacy(server: Server, is_http: bool, machine: ToLegacy, first: Vec<Step>) -> Self {
        let mut link = Self { machine: Machine::ToLegacy(Box::new(machine)), ..Self::direct(server, is_http) };
        link.carry_out(first);
        link
    }

    pub(crate) fn to_modern(server: Server, is_http: bool) -> Self {
        Self { machine: Machine::ToModern(Box::default()), ..Self::direct(server, is_http) }
    }

    /// Sends a message on its way.
    pub(crate) fn write(&mut self, line: Bytes) {
        let mut steps = Vec::new();
        match &mut self.machine {
            Machine::None => return self.to_server.push_back(line),
            Machine::ToLegacy(machine) => machine.client_message(&line, &mut steps),
            Machine::ToModern(machine) => machine.client_message(&line, &mut steps),
        }
        .expect("what is written here was read before");
        self.carry_out(steps);
    }

    pub(crate) fn hear(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    pub(crate) fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.to_server.is_empty() || self.server.is_busy()
    }

    /// The server takes a line, or says one.
    pub(crate) fn step(&mut self, run: &mut Run) {
        if self.is_http && run.mishap(60) {
            let calls = self.server.calls();
            if let Some(id) = run.rng.choice(calls) {
                self.server.lose(&id);
                return self.not_taken(&id, run);
            }
        }
        if !self.to_server.is_empty() && (!self.server.is_busy() || run.rng.bool()) {
            let Some(line) = self.to_server.pop_front() else { return };
            let said = wire::read(&line);
            if self.is_http && said.kind == Kind::Request && run.mishap(40) {
                return self.not_taken(&said.id, run);
            }
            return self.server.read(&line, run);
        }
        let Some(line) = self.server.speak(run) else { return };
        let mut steps = Vec::new();
        match &mut self.machine {
            Machine::None => return self.heard.push_back(Heard::Message(line)),
            Machine::ToLegacy(machine) => machine.server_message(&line, &mut steps),
            Machine::ToModern(machine) => machine.server_message(&line, &mut steps),
        }
        .expect("the server writes JSON-RPC");
        self.carry_out(steps);
    }

    fn not_taken(&mut self, id: &str, run: &mut Run) {
        run.saw(Seen::NotTaken);
        let id = Id::parse(serde_json::from_str(id).expect("JSON")).expect("an id");
        let mut steps = Vec::new();
        let known_as = match &mut self.machine {
            Machine::None => Some(id),
            Machine::ToLegacy(machine) => machine.refused(&id, &mut steps),
            Machine::ToModern(machine) => machine.refused(&id, &mut steps),
        };
        self.heard.extend(known_as.map(Heard::Refused));
        self.carry_out(steps);
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::ToServer(message) => self.to_server.push_back(single_line(&message)),
                Step::ToClient(message) => {
                    assert!(Message::parse(&message).is_ok(), "what a machine says is JSON-RPC: {message:?}");
                    self.heard.push_back(Heard::Message(message));
                }
                Step::Parked(name) => assert!(self.awaited.insert(name), "a call is parked twice under one name"),
                Step::Unparked(name) => drop(self.awaited.remove(&name)),
            }
        }
    }

    /// A client has had its time to come back. Says whether there was one.
    pub(crate) fn expire(&mut self, run: &mut Run) -> bool {
        let names: Vec<Box<str>> = self.awaited.iter().cloned().collect();
        let (Some(name), Machine::ToLegacy(machine)) = (run.rng.choice(names), &mut self.machine) else { return false };
        self.awaited.remove(&name);
        let mut steps = Vec::new();
        machine.expire(&name, &mut steps);
        run.saw(Seen::Expired);
        self.carry_out(steps);
        true
    }

    pub(crate) fn is_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether that call of `owner` is under way at the server, and nobody has taken it back.
    pub(crate) fn holds(&self, owner: &str, call: u64) -> bool {
        let takes_back = |line: &Bytes, id: &str| {
            let said = wire::read(line);
            let request = said.body["requestId"].to_string();
            said.method == "notifications/cancelled" && request == id
        };
        let found = self.server.find(owner, call);
        found.is_some_and(|id| !self.to_server.iter().any(|line| takes_back(line, &id)))
    }

    /// Whether a session is behind it, at a server that knows none.
    pub(crate) fn is_to_modern(&self) -> bool {
        matches!(self.machine, Machine::ToModern(_))
    }

    /// Whether the server does nothing, and watches nothing unless the request to stop that was lost.
    pub(crate) fn is_at_rest(&self) -> bool {
        let UnderWay { calls, questions, listens } = self.server.under_way();
        let may_watch = self.is_http && matches!(self.machine, Machine::ToLegacy(_));
        calls == 0 && questions == 0 && (listens == 0 || may_watch)
    }

    pub(crate) fn under_way(&self) -> UnderWay {
        self.server.under_way()
    }

    /// What holds at any time.
    pub(crate) fn check(&self) {
        if let Machine::ToLegacy(machine) = &self.machine {
            assert_eq!(machine.parked(), self.awaited.len(), "every parked call has a timer, and no other has");
        }
    }
}
