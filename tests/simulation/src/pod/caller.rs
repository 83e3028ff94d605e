//! What a pod keeps for one caller without a session, driven as the shipped bridge drives it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    modern::{LISTEN, Mux, MuxOutput, Reply},
    token::SessionKey,
};

use super::link::{Heard, Link};
use crate::{
    network::{Connection, ConnectionId, Frame, Hold, Stage},
    run::Run,
    tally::Seen,
};

/// Few, so that they are reached.
const MAX_CALLS: usize = 4;

/// A caller's requests.
#[derive(Debug)]
pub(crate) struct CallerLive {
    mux: Mux,
    pub(crate) link: Link,
    outlets: BTreeMap<Reply, ConnectionId>,
    /// Requests that wait, but for streams of notifications.
    timed: Vec<Reply>,
    /// Taken in and not carried out yet.
    waiting: VecDeque<MuxOutput>,
}

impl CallerLive {
    pub(crate) fn new(link: Link, is_shared: bool) -> Self {
        let (outlets, timed, waiting) = Default::default();
        let mux = if is_shared { Mux::shared(MAX_CALLS) } else { Mux::new(MAX_CALLS) };
        Self { mux, link, outlets, timed, waiting }
    }

    pub(crate) fn ask(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        body: &Bytes,
        connections: &mut [Connection],
        run: &mut Run,
    ) {
        let Ok(Message::Request(request)) = Message::parse(body) else { panic!("clients post requests") };
        let mut out = Vec::new();
        let Ok(reply) = self.mux.ask(&request, body, &mut out) else {
            let is_full = self.mux.in_flight() == MAX_CALLS;
            assert!(is_full || request.method == LISTEN, "nothing else is refused");
            run.saw(Seen::Overloaded);
            return connections[id].refuse(429);
        };
        if request.method != LISTEN {
            self.timed.push(reply);
        }
        self.outlets.insert(reply, id);
        connections[id].hold = Some(Hold::Reply(key.clone(), reply));
        self.carry_out_all(out, connections);
    }

    pub(crate) fn hung_up(&mut self, reply: Reply, connections: &mut [Connection]) {
        let mut out = Vec::new();
        self.mux.hung_up(reply, &mut out);
        self.outlets.remove(&reply);
        self.carry_out_all(out, connections);
    }

    /// A request has waited too long.
    pub(crate) fn time_out(&mut self, connections: &mut [Connection], run: &mut Run) {
        self.timed.retain(|reply| self.mux.is_open(*reply));
        let Some(reply) = run.rng.choice(self.timed.clone()) else { return };
        let mut out = Vec::new();
        assert!(self.mux.give_up(reply, &Failure::new(Kind::RequestTimeout, "late"), &mut out), "it is open");
        run.saw(Seen::TimedOut);
        self.carry_out_all(out, connections);
    }

    /// The server is gone.
    pub(crate) fn end(mut self, connections: &mut [Connection]) {
        let mut out: Vec<MuxOutput> = self.waiting.drain(..).collect();
        self.mux.end(&Failure::new(Kind::ServerExited, "the server exited"), &mut out);
        assert_eq!(self.mux.in_flight(), 0, "nothing outlives its server");
        self.carry_out_all(out, connections);
        for id in self.outlets.into_values() {
            connections[id].end();
        }
    }

    pub(crate) fn cut(self, connections: &mut [Connection]) {
        for id in self.outlets.into_values() {
            connections[id].cut();
            connections[id].stage = Stage::Done;
        }
    }

    /// Whether nobody needs it.
    pub(crate) fn is_idle(&self) -> bool {
        self.mux.in_flight() == 0 && !self.link.is_awaited()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.link.is_busy() || self.link.has_heard() || !self.waiting.is_empty()
    }

    pub(crate) fn step(&mut self, connections: &mut [Connection], run: &mut Run) {
        if self.link.is_busy() && run.rng.bool() {
            self.link.step(run);
        } else if let Some(output) = self.waiting.pop_front() {
            self.carry_out(output, connections);
        } else if let Some(heard) = self.link.hear() {
            let mut out = Vec::new();
            match heard {
                Heard::Message(line) => self.mux.server_line(&line, &mut out).expect("JSON-RPC"),
                Heard::Refused(id) => {
                    let failure = Failure::new(Kind::ServerUnreachable, "the server does not take it");
                    self.mux.refused(&id, &failure, &mut out);
                }
            }
            self.mux.take_dropped();
            self.waiting.extend(out);
        }
    }

    fn carry_out_all(&mut self, out: Vec<MuxOutput>, connections: &mut [Connection]) {
        for output in out {
            self.carry_out(output, connections);
        }
    }

    fn carry_out(&mut self, output: MuxOutput, connections: &mut [Connection]) {
        match output {
            MuxOutput::ToServer(line) => self.link.write(line),
            MuxOutput::Message { reply, message, last, .. } => {
                let Some(id) = self.outlets.get(&reply).copied() else { return };
                connections[id].send(Frame::Event { id: None, message: Some(message) });
                if last {
                    self.outlets.remove(&reply);
                    connections[id].end();
                }
            }
            MuxOutput::Close(reply) => {
                if let Some(id) = self.outlets.remove(&reply) {
                    connections[id].end();
                }
            }
        }
    }

    /// What holds at any time.
    pub(crate) fn check(&self) {
        assert!(self.mux.in_flight() <= MAX_CALLS, "more is under way than may be");
        self.link.check();
    }

    /// What holds when all clients are gone.
    pub(crate) fn check_left(&self) {
        let here = (self.mux.in_flight(), self.outlets.len(), self.link.is_awaited());
        assert_eq!(here, (0, 0, false), "requests, streams and parked calls of nobody: {self:#?}");
        assert!(self.link.is_at_rest(), "the server works for nobody: {self:#?}");
    }
}
