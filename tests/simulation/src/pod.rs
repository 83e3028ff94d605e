//! A pod: a bridge that drives one [`Session`] and one process for each session, as the shipped bridge does: what the
//! server says is taken in at once and carried out a moment later.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    mac::MacKey,
    session::{Accepted, Attachment, Event, Limits, Output, Session, StreamId},
    token::SessionKey,
};

use crate::{
    network::{Ask, Connection, ConnectionId, Frame, Stage},
    process::Process,
    replica::{NOW_MILLIS, subject},
};

/// One pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) address: usize,
    pub(crate) draining: bool,
    pub(crate) alive: bool,
    mac: MacKey,
    sessions: Vec<(SessionKey, Live)>,
}

/// One session of it.
#[derive(Debug)]
struct Live {
    machine: Session,
    process: Process,
    holders: BTreeMap<StreamId, (ConnectionId, Attachment)>,
    /// Taken in and not carried out yet.
    waiting: VecDeque<Output>,
}

impl Pod {
    pub(crate) fn new(uid: String, address: usize, mac: MacKey) -> Self {
        Self { uid, address, draining: false, alive: true, mac, sessions: Vec::new() }
    }

    /// Whether the session of that name is here.
    pub(crate) fn serves(&self, session: &str) -> bool {
        self.sessions.iter().any(|(_, live)| live.process.session() == session)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// A request has arrived at this pod's address, whomever it was meant for.
    pub(crate) fn take(&mut self, pod: usize, id: ConnectionId, connections: &mut [Connection], rng: &mut Rng) {
        let stage = std::mem::replace(&mut connections[id].stage, Stage::AtPod { pod });
        let Stage::ToPod { pod: meant, session, mac, ask, .. } = stage else {
            panic!("connection {id} is not on its way to a pod")
        };
        let verified = self.mac.verify(Some(&mac), subject(&ask, &session, &meant), NOW_MILLIS);
        if verified.is_err() || *meant != *self.uid {
            return refuse(&mut connections[id], 503);
        }
        match ask {
            Ask::Initialize(_) if self.draining => refuse(&mut connections[id], 503),
            Ask::Initialize(body) => {
                let live = Live {
                    machine: Session::new(Limits::default()),
                    process: Process::default(),
                    holders: BTreeMap::new(),
                    waiting: VecDeque::new(),
                };
                self.sessions.push((session.clone(), live));
                self.post(id, &session, &body, connections, rng);
            }
            Ask::Post { body, .. } => self.post(id, &session, &body, connections, rng),
            Ask::Open { last, .. } => self.open(id, &session, last.as_deref(), connections, rng),
            Ask::Delete { .. } => self.delete(id, &session, connections, rng),
        }
    }

    fn post(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        body: &Bytes,
        connections: &mut [Connection],
        rng: &mut Rng,
    ) {
        let Some(live) = self.find(key) else { return refuse(&mut connections[id], 404) };
        let mut out = Vec::new();
        let message = Message::parse(body).expect("clients write JSON-RPC");
        match live.machine.accept(&message, body, &mut out).expect("clients give every call an id of its own") {
            Accepted::Call(attachment) => live.hold(id, key, attachment, connections),
            Accepted::Done => {
                connections[id].send(Frame::Accepted);
                connections[id].stage = Stage::Done;
            }
        }
        live.carry_out_all(out, connections, rng);
    }

    fn open(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        last: Option<&str>,
        connections: &mut [Connection],
        rng: &mut Rng,
    ) {
        let Some(live) = self.find(key) else { return refuse(&mut connections[id], 404) };
        let mut out = Vec::new();
        let Ok(attachment) = live.machine.open(last, &mut out) else { return refuse(&mut connections[id], 400) };
        // A close that comes first is for the connection that held the stream until now.
        if out.first() == Some(&Output::Close(attachment.stream))
            && let Some((earlier, _)) = live.holders.remove(&attachment.stream)
        {
            end(&mut connections[earlier]);
            out.remove(0);
        }
        live.hold(id, key, attachment, connections);
        live.carry_out_all(out, connections, rng);
    }

    fn delete(&mut self, id: ConnectionId, key: &SessionKey, connections: &mut [Connection], rng: &mut Rng) {
        let Some(position) = self.sessions.iter().position(|(other, _)| other == key) else {
            return refuse(&mut connections[id], 404);
        };
        let (_, mut live) = self.sessions.remove(position);
        let mut out = Vec::new();
        live.machine.end(&Failure::new(Kind::UnknownSession, "the session was ended"), &mut out);
        live.carry_out_all(out, connections, rng);
        for (holder, _) in live.holders.into_values() {
            end(&mut connections[holder]);
        }
        connections[id].send(Frame::Accepted);
        connections[id].stage = Stage::Done;
    }

    /// The pod has learnt that a client hung up.
    pub(crate) fn closed(&mut self, key: &SessionKey, id: ConnectionId, attachment: Attachment) {
        let Some(live) = self.find(key) else { return };
        live.machine.closed(attachment);
        live.holders.retain(|_, (holder, _)| *holder != id);
    }

    /// One of its sessions moves: a process says something, or what one said is carried out. Whether anything moved.
    pub(crate) fn step(&mut self, connections: &mut [Connection], rng: &mut Rng) -> bool {
        let movable = |(_, live): &(SessionKey, Live)| live.process.is_busy() || !live.waiting.is_empty();
        let able: Vec<usize> = (0..self.sessions.len()).filter(|position| movable(&self.sessions[*position])).collect();
        let Some(position) = rng.choice(able) else { return false };
        let (_, live) = &mut self.sessions[position];
        if live.waiting.is_empty() || (live.process.is_busy() && live.waiting.len() < 3 && rng.bool()) {
            let Some(line) = live.process.speak(rng) else { return false };
            let mut out = Vec::new();
            live.machine.server_line(&line, &mut out).expect("the process writes JSON-RPC");
            live.waiting.extend(out);
        } else if let Some(output) = live.waiting.pop_front() {
            live.carry_out(output, connections, rng);
        }
        true
    }

    /// Everything on this pod is gone.
    pub(crate) fn die(&mut self, connections: &mut [Connection]) {
        self.alive = false;
        for (_, live) in self.sessions.drain(..) {
            for (id, _) in live.holders.into_values() {
                connections[id].cut();
                connections[id].stage = Stage::Done;
            }
        }
    }

    fn find(&mut self, key: &SessionKey) -> Option<&mut Live> {
        self.sessions.iter_mut().find(|(other, _)| other == key).map(|(_, live)| live)
    }
}

impl Live {
    fn hold(&mut self, id: ConnectionId, key: &SessionKey, attachment: Attachment, connections: &mut [Connection]) {
        let connection = &mut connections[id];
        connection.hold = Some((key.clone(), attachment));
        if let Some(name) = connection.name.take() {
            connection.send(Frame::Named(name));
        }
        connection.send(Frame::Event { id: attachment.event_id(), message: None });
        // Whoever held it, of a call that was answered meanwhile, say, is let go: it may ask again.
        if let Some((earlier, _)) = self.holders.insert(attachment.stream, (id, attachment)) {
            end(&mut connections[earlier]);
        }
    }

    fn carry_out_all(&mut self, out: Vec<Output>, connections: &mut [Connection], rng: &mut Rng) {
        for output in out {
            self.carry_out(output, connections, rng);
        }
    }

    fn carry_out(&mut self, output: Output, connections: &mut [Connection], rng: &mut Rng) {
        match output {
            Output::ToServer(line) => self.process.read(&line, rng),
            Output::Event(event) => self.deliver(event, connections),
            Output::Close(stream) => {
                if let Some((id, _)) = self.holders.remove(&stream) {
                    end(&mut connections[id]);
                }
            }
        }
    }

    fn deliver(&mut self, event: Event, connections: &mut [Connection]) {
        let holder = self.holders.get(&event.stream).filter(|(_, holder)| event.is_for(holder));
        let Some((id, _)) = holder.copied() else { return };
        connections[id].send(Frame::Event { id: event.id(), message: Some(event.message) });
        if event.last {
            self.holders.remove(&event.stream);
            end(&mut connections[id]);
        }
    }
}

fn refuse(connection: &mut Connection, status: u16) {
    connection.send(Frame::Refused(status));
    connection.stage = Stage::Done;
}

fn end(connection: &mut Connection) {
    connection.send(Frame::End);
    connection.stage = Stage::Done;
}
