//! A pod: a bridge in front of a server, with sessions of clients and links of callers without.

mod caller;
mod link;
mod session;

use bytes::Bytes;
use portolan_mcp::{
    envelope::Message,
    failure::Kind,
    mac::MacKey,
    modern::Head,
    parked::ParkingKey,
    revision::Era,
    token::SessionKey,
    translate::{Introduction, Parking, ToLegacy},
};

use self::{caller::CallerLive, link::Link, session::SessionLive};
use crate::{
    network::{Ask, Connection, ConnectionId, Hold, Stage},
    replica::{NOW_MILLIS, subject},
    run::Run,
    server::Server,
    tally::Seen,
};

/// How a server is served.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) era: Era,
    /// Whether all callers share one process.
    pub(crate) is_shared: bool,
    /// Whether the server speaks HTTP.
    pub(crate) is_http: bool,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) address: usize,
    pub(crate) draining: bool,
    pub(crate) alive: bool,
    manner: Manner,
    mac: MacKey,
    sessions: Vec<(SessionKey, SessionLive)>,
    callers: Vec<(SessionKey, CallerLive)>,
}

impl Pod {
    pub(crate) fn new(uid: String, address: usize, mac: MacKey, manner: Manner) -> Self {
        let (sessions, callers) = Default::default();
        Self { uid, address, draining: false, alive: true, manner, mac, sessions, callers }
    }

    /// Whether the session of that name is here.
    pub(crate) fn serves(&self, session: &str) -> bool {
        self.sessions.iter().any(|(_, live)| live.name == session)
    }

    /// Sessions in which a call waits for its answer.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter().filter(|(_, live)| live.in_flight() > 0).map(|(_, live)| &*live.name)
    }

    /// Whether the session of that name has dropped something at a bound.
    pub(crate) fn has_dropped(&self, session: &str) -> bool {
        self.sessions.iter().any(|(_, live)| live.name == session && live.has_dropped)
    }

    /// Whether that call of `owner` is under way at a server here.
    pub(crate) fn holds(&self, owner: &str, call: u64) -> bool {
        self.alive && self.callers.iter().any(|(_, live)| live.link.holds(owner, call))
    }

    /// Whether nothing has to come to its end here.
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.callers.iter().all(|(_, live)| live.is_idle())
    }

    /// Whether nothing moves here.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.sessions.iter().any(|(_, live)| live.is_busy()) && !self.callers.iter().any(|(_, live)| live.is_busy())
    }

    /// A request has arrived at this pod's address, whomever it was meant for.
    pub(crate) fn take(&mut self, pod: usize, id: ConnectionId, connections: &mut [Connection], run: &mut Run) {
        let stage = std::mem::replace(&mut connections[id].stage, Stage::AtPod { pod });
        let Stage::ToPod { pod: meant, session, part, mac, ask, .. } = stage else {
            panic!("connection {id} is not on its way to a pod")
        };
        let verified = self.mac.verify(Some(&mac), subject(&ask, &session, &meant), NOW_MILLIS);
        if verified.is_err() || *meant != *self.uid {
            run.saw(Seen::Stranger);
            return connections[id].refuse(503);
        }
        if part.is_some() && self.session(&session).is_some_and(|live| live.part != part) {
            return connections[id].refuse(404);
        }
        match ask {
            Ask::Initialize { .. } if self.draining => connections[id].refuse(503),
            Ask::Initialize { .. } if self.session(&session).is_some() => connections[id].refuse(409),
            Ask::Initialize { body, in_stead } => {
                let server = Server::new(self.manner.era, false, run);
                let link = match self.manner.era {
                    Era::Modern => Link::to_modern(server, self.manner.is_http),
                    Era::Legacy | Era::Both => Link::direct(server, self.manner.is_http),
                };
                let live = SessionLive::new(connections[id].of.clone(), link, in_stead, run);
                self.sessions.push((session.clone(), live));
                self.post(id, &session, &body, connections, run);
            }
            Ask::Post { body, .. } => self.post(id, &session, &body, connections, run),
            Ask::Open { last, .. } => match self.session(&session) {
                Some(live) => live.open(id, &session, last.as_deref(), connections),
                None => connections[id].refuse(404),
            },
            Ask::Delete { .. } => self.delete(id, &session, connections),
            Ask::Alone(body) => self.ask(id, session, &body, connections, run),
        }
        self.check();
    }

    fn post(
        &mut self,
        id: ConnectionId,
        key: &SessionKey,
        body: &Bytes,
        connections: &mut [Connection],
        run: &mut Run,
    ) {
        match self.session(key) {
            Some(live) => live.post(id, key, body, connections, run),
            None => connections[id].refuse(404),
        }
    }

    fn delete(&mut self, id: ConnectionId, key: &SessionKey, connections: &mut [Connection]) {
        if self.session(key).is_none() {
            return connections[id].refuse(404);
        }
        self.end_session(key, Kind::UnknownSession, connections);
        connections[id].accept();
    }

    fn end_session(&mut self, key: &SessionKey, kind: Kind, connections: &mut [Connection]) {
        if let Some(position) = self.sessions.iter().position(|(other, _)| other == key) {
            self.sessions.remove(position).1.end(kind, connections);
        }
    }

    /// A request that stands alone.
    fn ask(
        &mut self,
        id: ConnectionId,
        caller: SessionKey,
        body: &Bytes,
        connections: &mut [Connection],
        run: &mut Run,
    ) {
        let Ok(Message::Request(request)) = Message::parse(body) else { panic!("clients post requests") };
        let (caller, introduction) = match self.manner.is_shared {
            true => (SessionKey::of_everyone(), Introduction::of_many()),
            false => (caller, Introduction::of(&Head::of_request(&request))),
        };
        let part = if self.manner.era == Era::Legacy { introduction.digest() } else { Vec::new() };
        let key = caller.derived(&part);
        if self.caller(&key).is_none() {
            if self.draining {
                return connections[id].refuse(503);
            }
            let link = self.link_for(caller, introduction, run);
            self.callers.push((key.clone(), CallerLive::new(link, self.manner.is_shared)));
        }
        let live = self.caller(&key).expect("it was just made");
        live.ask(id, &key, body, connections, run);
    }

    fn link_for(&self, caller: SessionKey, introduction: Introduction, run: &mut Run) -> Link {
        let Manner { era, is_shared, is_http } = self.manner;
        let server = Server::new(era, is_shared, run);
        if era != Era::Legacy {
            return Link::direct(server, is_http);
        }
        let key = ParkingKey::of(&self.mac).expect("a key");
        let mut first = Vec::new();
        let machine = ToLegacy::new(introduction, Parking { key, pod: self.uid.as_str().into(), caller }, &mut first);
        Link::to_legacy(server, is_http, machine, first)
    }

    /// The pod has learnt that a client hung up.
    pub(crate) fn closed(&mut self, id: ConnectionId, hold: Hold, connections: &mut [Connection]) {
        match hold {
            Hold::Stream(key, attachment) => {
                if self.session(&key).is_some_and(|live| live.closed(id, attachment)) {
                    self.end_session(&key, Kind::UnknownSession, connections);
                }
            }
            Hold::Reply(key, reply) => {
                if let Some(live) = self.caller(&key) {
                    live.hung_up(reply, connections);
                }
            }
        }
        self.check();
    }

    /// Something of it moves, if anything can.
    pub(crate) fn step(&mut self, connections: &mut [Connection], run: &mut Run) -> bool {
        let sessions: Vec<usize> =
            (0..self.sessions.len()).filter(|position| self.sessions[*position].1.is_busy()).collect();
        let callers: Vec<usize> =
            (0..self.callers.len()).filter(|position| self.callers[*position].1.is_busy()).collect();
        let able = sessions.len() + callers.len();
        if able == 0 {
            return false;
        }
        let chosen = run.rng.usize(0..able);
        if let Some(position) = sessions.get(chosen) {
            let (key, live) = &mut self.sessions[*position];
            let key = key.clone();
            if live.step(connections, run) {
                self.end_session(&key, Kind::UnknownSession, connections);
            }
        } else {
            self.callers[callers[chosen - sessions.len()]].1.step(connections, run);
        }
        self.check();
        true
    }

    /// Something waits too long: a call, or a client that does not come back.
    pub(crate) fn time_passes(&mut self, connections: &mut [Connection], run: &mut Run) {
        if let Some(position) = run.rng.choice(0..self.callers.len()) {
            let live = &mut self.callers[position].1;
            match run.rng.bool() {
                true => drop(live.link.expire(run)),
                false => live.time_out(connections, run),
            }
            if live.is_idle() && run.rng.bool() {
                self.callers.remove(position).1.end(connections);
            }
        }
        let chosen = run.rng.choice(0..self.sessions.len());
        if let Some(position) = chosen.filter(|_| run.rng.bool()) {
            let (key, live) = &mut self.sessions[position];
            let key = key.clone();
            if live.time_out(connections, run) {
                self.end_session(&key, Kind::UnknownSession, connections);
            }
        }
        self.check();
    }

    /// A call of that session waits too long.
    pub(crate) fn session_times_out(&mut self, session: &str, connections: &mut [Connection], run: &mut Run) {
        let Some((key, live)) = self.sessions.iter_mut().find(|(_, live)| live.name == session) else { return };
        let key = key.clone();
        if live.time_out(connections, run) {
            self.end_session(&key, Kind::UnknownSession, connections);
        }
    }

    /// Nobody has come back for some call that waits for that.
    pub(crate) fn one_expires(&mut self, run: &mut Run) {
        if let Some(position) = run.rng.choice(0..self.callers.len()) {
            self.callers[position].1.link.expire(run);
        }
    }

    /// Nobody has come back for any call that waits for that, and time is up for all.
    pub(crate) fn expire_all(&mut self, run: &mut Run) {
        for (_, live) in &mut self.callers {
            while live.link.expire(run) {}
        }
    }

    /// One of its server processes ends.
    pub(crate) fn process_ends(&mut self, connections: &mut [Connection], run: &mut Run) {
        let Some(position) = run.rng.choice(0..self.sessions.len() + self.callers.len()) else { return };
        run.saw(Seen::Exited);
        match position.checked_sub(self.sessions.len()) {
            None => self.sessions.remove(position).1.end(Kind::ServerExited, connections),
            Some(position) => self.callers.remove(position).1.end(connections),
        }
    }

    /// All of them end.
    pub(crate) fn processes_end(&mut self, connections: &mut [Connection], run: &mut Run) {
        while !(self.sessions.is_empty() && self.callers.is_empty()) {
            self.process_ends(connections, run);
        }
    }

    /// Everything on this pod is gone.
    pub(crate) fn die(&mut self, connections: &mut [Connection]) {
        self.alive = false;
        self.sessions.drain(..).for_each(|(_, live)| live.cut(connections));
        self.callers.drain(..).for_each(|(_, live)| live.cut(connections));
    }

    fn session(&mut self, key: &SessionKey) -> Option<&mut SessionLive> {
        self.sessions.iter_mut().find(|(other, _)| other == key).map(|(_, live)| live)
    }

    fn caller(&mut self, key: &SessionKey) -> Option<&mut CallerLive> {
        self.callers.iter_mut().find(|(other, _)| other == key).map(|(_, live)| live)
    }

    fn check(&self) {
        self.sessions.iter().for_each(|(_, live)| live.check());
        self.callers.iter().for_each(|(_, live)| live.check());
    }

    /// What holds when nobody waits for anything.
    pub(crate) fn check_left(&self) {
        self.sessions.iter().for_each(|(_, live)| live.check_left());
        self.callers.iter().for_each(|(_, live)| live.check_left());
    }
}
