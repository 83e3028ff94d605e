//! A session of a pod, driven as the shipped bridge drives it: what the server says is taken in at once and carried out
//! a moment later.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    session::{Accepted, Attachment, Event, IdKey, Limits, Output, Session, StreamId},
    token::SessionKey,
};

use super::link::{Heard, Link};
use crate::{
    network::{Connection, ConnectionId, Frame, Hold, Stage},
    run::Run,
    tally::Seen,
    wire,
};

/// So small that they are reached.
const TIGHT: Limits =
    Limits { calls: 4, server_requests: 2, queued: 4, queued_bytes: 2048, replay_events: 12, replay_bytes: 4096 };

/// One session.
#[derive(Debug)]
pub(crate) struct SessionLive {
    pub(crate) name: String,
    /// Of one that is opened in its client's stead, its name: more than one has its key.
    pub(super) part: Option<String>,
    machine: Session,
    limits: Limits,
    pub(crate) link: Link,
    holders: BTreeMap<StreamId, (ConnectionId, Attachment)>,
    calls: Vec<StreamId>,
    /// The stream of `initialize`, until it is answered.
    opening: Option<StreamId>,
    never_opened: bool,
    /// Taken in and not carried out yet.
    waiting: VecDeque<Output>,
    /// Whether something was dropped at a bound: a call may wait in vain for it.
    pub(crate) has_dropped: bool,
}

impl SessionLive {
    pub(crate) fn new(name: String, link: Link, in_stead: bool, run: &mut Run) -> Self {
        let limits = if run.chance(3) { TIGHT } else { Limits::default() };
        let (holders, calls, waiting) = Default::default();
        let machine = if in_stead { Session::opened_in_stead(limits) } else { Session::new(limits) };
        let part = in_stead.then(|| format!("{:x}", run.rng.u32(..)));
        Self {
            name,
            part,
            machine,
            limits,
            link,
            holders,
            calls,
            opening: None,
            never_opened: false,
            waiting,
            has_dropped: false,
        }
    }

    pub(crate) fn post(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        body: &Bytes,
        connections: &mut [Connection],
        run: &mut Run,
    ) {
        wire::assert_is_of(&self.name, body, "in the session");
        let mut out = Vec::new();
        let message = Message::parse(body).expect("clients write JSON-RPC");
        match self.machine.accept(&message, body, &mut out) {
            Ok(Accepted::Call(attachment)) => {
                self.calls.push(attachment.stream);
                if message.method() == Some("initialize") {
                    self.opening = Some(attachment.stream);
                }
                self.hold(id, key, attachment, connections);
            }
            Ok(Accepted::Done) => connections[id].accept(),
            Err(refusal) => {
                let is_full = self.machine.in_flight() == self.limits.calls;
                // Calls that were given up before the session was open wait too.
                let waits_to_open = self.part.is_some() && self.opening.is_some();
                assert!(is_full || waits_to_open, "every call has an id of its own: {refusal}");
                run.saw(Seen::Overloaded);
                connections[id].refuse(429);
            }
        }
        self.carry_out_all(out, connections);
    }

    pub(crate) fn open(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        last: Option<&str>,
        connections: &mut [Connection],
    ) {
        let mut out = Vec::new();
        let Ok(attachment) = self.machine.open(last, &mut out) else { return connections[id].refuse(400) };
        // A close that comes first is for the connection that held the stream until now.
        if out.first() == Some(&Output::Close(attachment.stream))
            && let Some((earlier, _)) = self.holders.remove(&attachment.stream)
        {
            connections[earlier].end();
            out.remove(0);
        }
        self.hold(id, key, attachment, connections);
        self.carry_out_all(out, connections);
    }

    fn hold(&mut self, id: ConnectionId, key: &SessionKey, attachment: Attachment, connections: &mut [Connection]) {
        let connection = &mut connections[id];
        connection.part.clone_from(&self.part);
        connection.hold = Some(Hold::Stream(key.clone(), attachment));
        if let Some(name) = connection.name.take() {
            connection.send(Frame::Named(name));
        }
        connection.send(Frame::Event { id: Some(attachment.event_id()), message: None });
        // Whoever held it, of a call that was answered meanwhile, say, is let go: it may ask again.
        if let Some((earlier, _)) = self.holders.insert(attachment.stream, (id, attachment)) {
            connections[earlier].end();
        }
    }

    /// A client hung up. Says whether the session goes with it: nobody knows its name.
    pub(crate) fn closed(&mut self, id: ConnectionId, attachment: Attachment) -> bool {
        self.machine.closed(attachment);
        self.holders.retain(|_, (holder, _)| *holder != id);
        self.part.is_none() && self.opening == Some(attachment.stream) && !self.holders.contains_key(&attachment.stream)
    }

    /// A call has waited too long. Says whether the session goes with it.
    pub(crate) fn time_out(&mut self, connections: &mut [Connection], run: &mut Run) -> bool {
        self.calls.retain(|stream| self.machine.is_open(*stream));
        let Some(stream) = run.rng.choice(self.calls.clone()) else { return false };
        let mut out = Vec::new();
        assert!(self.machine.give_up(stream, &Failure::new(Kind::RequestTimeout, "late"), &mut out), "it is open");
        run.saw(Seen::TimedOut);
        self.carry_out_all(out, connections);
        self.never_opened
    }

    /// It is over: its client said so, or its server is gone.
    pub(crate) fn end(mut self, kind: Kind, connections: &mut [Connection]) {
        // Whoever reads a server to its end has carried out what it said before that.
        let mut out: Vec<Output> =
            if kind == Kind::ServerExited { self.waiting.drain(..).collect() } else { Vec::new() };
        self.machine.end(&Failure::new(kind, "the session was ended"), &mut out);
        assert_eq!(self.machine.in_flight(), 0, "nothing outlives its session");
        self.carry_out_all(out, connections);
        for (id, _) in self.holders.into_values() {
            connections[id].end();
        }
    }

    pub(crate) fn cut(self, connections: &mut [Connection]) {
        for (id, _) in self.holders.into_values() {
            connections[id].cut();
            connections[id].stage = Stage::Done;
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.machine.in_flight()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.link.is_busy() || self.link.has_heard() || !self.waiting.is_empty()
    }

    /// Something moves. Says whether the session is over with it: it never opened.
    pub(crate) fn step(&mut self, connections: &mut [Connection], run: &mut Run) -> bool {
        if self.link.is_busy() && run.rng.bool() {
            self.link.step(run);
        } else if let Some(output) = self.waiting.pop_front() {
            if matches!(&output, Output::Event(event) if event.last && self.opening == Some(event.stream)) {
                self.opening = None;
            }
            self.carry_out(output, connections);
        } else if let Some(heard) = self.link.hear() {
            let mut out = Vec::new();
            match heard {
                Heard::Message(line) => self.machine.server_line(&line, &mut out).expect("JSON-RPC"),
                Heard::Refused(id) => {
                    let failure = Failure::new(Kind::ServerUnreachable, "the server does not take it");
                    self.machine.refused(&IdKey::from(&id), &failure, &mut out);
                }
            }
            self.has_dropped |= self.machine.take_dropped() > 0;
            for output in out {
                match output {
                    Output::ToServer(line) => self.link.write(line),
                    output => self.waiting.push_back(output),
                }
            }
        }
        self.never_opened
    }

    fn carry_out_all(&mut self, out: Vec<Output>, connections: &mut [Connection]) {
        for output in out {
            self.carry_out(output, connections);
        }
    }

    fn carry_out(&mut self, output: Output, connections: &mut [Connection]) {
        match output {
            Output::ToServer(line) => self.link.write(line),
            Output::Event(event) => self.deliver(event, connections),
            Output::Close(stream) => {
                if let Some((id, _)) = self.holders.remove(&stream) {
                    connections[id].end();
                }
            }
            Output::NeverOpened => self.never_opened = true,
        }
    }

    fn deliver(&mut self, event: Event, connections: &mut [Connection]) {
        let holder = self.holders.get(&event.stream).filter(|(_, holder)| event.is_for(holder));
        let Some((id, _)) = holder.copied() else { return };
        if event.last {
            // An answer in the server's stead does not wait for what the reader of the server has not carried out yet.
            let overtakes = |output: &Output| matches!(output, Output::Event(other) if other.stream == event.stream);
            self.has_dropped |= self.waiting.iter().any(overtakes);
            self.holders.remove(&event.stream);
        }
        let (place, is_last) = (event.id(), event.last);
        connections[id].send(Frame::Event { id: Some(place), message: Some(event.message) });
        if is_last {
            connections[id].end();
        }
    }

    /// What holds at any time.
    pub(crate) fn check(&self) {
        assert!(self.machine.in_flight() <= self.limits.calls, "more is under way than may be");
        self.link.check();
    }

    /// What holds when its client waits for nothing.
    pub(crate) fn check_left(&self) {
        assert_eq!(self.machine.in_flight(), 0, "calls of nobody: {self:#?}");
        let left = self.link.under_way();
        assert_eq!((left.calls, left.questions), (0, 0), "the server works for nobody: {self:#?}");
        assert!(!self.link.is_to_modern() || left.listens <= 1, "a session has one stream of notifications: {self:#?}");
    }
}
