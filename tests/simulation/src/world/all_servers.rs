//! The endpoint of all servers: a session there has a part at each server, which is opened when it is first needed. A
//! request that stands alone goes to its server as it would at that one's own endpoint.

use std::sync::Arc;

use bytes::Bytes;
use portolan_mcp::{
    aggregate::{Member, Origin, Owned, Seek, Step, with_origin},
    session::with_id,
    token::ManyClaims,
};
use serde_json::json;

use super::World;
use crate::{
    cluster::{NAMESPACE, SERVERS},
    network::{Ask, Connection, ConnectionId, Frame, Purpose, Stage},
    parts::{Path, Uid, Way},
    replica,
    tally::Seen,
    wire::{self, Kind, Said},
};

impl World {
    /// A replica takes a request to all servers.
    pub(super) fn all_servers_decide(&mut self, id: ConnectionId, ask: Ask) {
        let Connection { client, replica, .. } = self.connections[id];
        let now = self.now();
        let (token, ask) = match ask {
            Ask::Initialize { body, .. } => {
                let name = self.replicas[replica].introduce(client, &body, now, &mut self.run.rng);
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}});
                let connection = &mut self.connections[id];
                connection.send(Frame::Named(name));
                connection.send(Frame::Event { id: None, message: Some(wire::result("0", &result)) });
                return connection.end();
            }
            Ask::Post { ref token, .. } | Ask::Open { ref token, .. } | Ask::Delete { ref token } => {
                (token.clone(), ask)
            }
            Ask::Alone(ref body) => return self.one_server_decides(id, server_of(&wire::read(body)), ask),
        };
        let Some(claims) = self.replicas[replica].opened(client, &token, now) else {
            return self.connections[id].refuse(404);
        };
        let claims = Arc::new(claims);
        match ask {
            Ask::Post { ref body, .. } => self.post_to_all(id, &claims, &token, &body.clone()),
            Ask::Open { last, .. } => {
                let last = last.expect("streams of calls only are opened again");
                let (origin, own) = Origin::of(&last).expect("an event's id says where it comes from");
                self.tell(id, &claims, origin, Ask::Open { token, last: Some(own.to_owned()) });
            }
            _ => {
                self.tell_all(id, &claims, &Ask::Delete { token });
                self.connections[id].accept();
            }
        }
    }

    fn post_to_all(&mut self, id: ConnectionId, claims: &Arc<ManyClaims>, token: &str, body: &Bytes) {
        let said = wire::read(body);
        let post = |body: Bytes| Ask::Post { token: token.to_owned(), body };
        match said.kind {
            Kind::Request => {
                let path = self.path(id, claims, server_of(&said), post(body.clone()));
                let (seek, step) = Seek::new(self.parts(id).known(&path));
                self.connections[id].path = Some((path, Way::Seek(seek, step.clone())));
                self.take_step(id, step);
            }
            Kind::Notification => {
                if said.method == "notifications/cancelled" {
                    self.tell_all(id, claims, &post(body.clone()));
                }
                self.connections[id].accept();
            }
            Kind::Result | Kind::Error => {
                let marked: String = serde_json::from_str(&said.id).expect("ids of questions are texts here");
                let (origin, own) = Origin::of_id(&marked).expect("an id says where it comes from");
                let body = with_id(body, &own).expect("an answer has an id");
                self.tell(id, claims, origin, post(body));
            }
        }
    }

    fn path(&self, id: ConnectionId, claims: &Arc<ManyClaims>, server: usize, ask: Ask) -> Path {
        let snapshot = self.replicas[self.connections[id].replica].snapshot();
        Path { snapshot, claims: Arc::clone(claims), server, ask, meant: None }
    }

    fn parts(&mut self, id: ConnectionId) -> &mut crate::parts::Parts {
        &mut self.replicas[self.connections[id].replica].parts
    }

    /// Says something to the part that is meant, wherever that is.
    fn tell(&mut self, id: ConnectionId, claims: &Arc<ManyClaims>, origin: Origin<'_>, ask: Ask) {
        let mut path = self.path(id, claims, position(origin.member), ask);
        path.meant = Some(origin.part.to_owned());
        let mut pods = path.holders();
        pods.reverse();
        if let Some(known) = self.parts(id).known(&path) {
            pods.sort_by_key(|pod| *pod == known);
        }
        self.connections[id].path = Some((path, Way::Tell(Uid::default(), pods, false)));
        self.tell_next(id);
    }

    fn tell_next(&mut self, id: ConnectionId) {
        let Some((path, Way::Tell(asked, pods, is_away))) = &mut self.connections[id].path else { return };
        let status = if *is_away { 503 } else { 400 };
        let Some(pod) = pods.pop() else { return self.give_up(id, status) };
        asked.clone_from(&pod);
        let stage = to_part(path, &pod, path.ask.clone());
        self.connections[id].stage = stage;
    }

    /// Says something to every part: where this replica knows of none, to every pod that may have it.
    fn tell_all(&mut self, id: ConnectionId, claims: &Arc<ManyClaims>, ask: &Ask) {
        let Connection { client, replica, ref of, .. } = self.connections[id];
        let of = of.clone();
        let known = self.replicas[replica].parts.all(&claims.session);
        let mut told = Vec::new();
        for server in 0..SERVERS.len() {
            let path = self.path(id, claims, server, ask.clone());
            let pods = match known.iter().find(|(at, _)| *at == server) {
                Some((_, pod)) => vec![pod.clone()],
                None => path.holders(),
            };
            told.extend(pods.into_iter().filter(|pod| path.pod(pod).is_some()).map(|pod| (path.clone(), pod)));
        }
        for (path, pod) in told {
            self.open.push(self.connections.len());
            let mut told = Connection::new(client, of.clone(), Purpose::Told, replica, ask.clone());
            told.stage = to_part(&path, &pod, ask.clone());
            self.connections.push(told);
        }
    }

    fn take_step(&mut self, id: ConnectionId, step: Step<Uid>) {
        if matches!(step, Step::AskKnown(_)) {
            self.parts(id).release(id);
        }
        let Some((path, Way::Seek(_, at))) = &mut self.connections[id].path else { return };
        at.clone_from(&step);
        let stage = match step {
            Step::TakeTurn => Stage::Turn,
            Step::AskKnown(pod) | Step::Ask(pod) => to_part(path, &pod, path.ask.clone()),
            Step::Open(pod) => {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":"portolan-opening","method":"initialize","params":{}}}"#,
                    path.claims.client
                );
                to_part(path, &pod, Ask::Initialize { body: body.into(), in_stead: true })
            }
        };
        self.connections[id].stage = stage;
    }

    /// Nothing comes of the request.
    fn give_up(&mut self, id: ConnectionId, status: u16) {
        self.parts(id).release(id);
        let connection = &mut self.connections[id];
        (connection.path, connection.hung_up) = (None, false);
        connection.refuse(status);
    }

    /// A request waits for its client's turn.
    pub(super) fn turn_may_come(&mut self, id: ConnectionId) {
        let Some((path, Way::Seek(mut seek, step))) = self.connections[id].path.take() else { return };
        let parts = self.parts(id);
        let next = match parts.takes_turn(&path, id) {
            true => seek.in_turn(parts.known(&path), path.holders(), path.takers()),
            false => Some(step.clone()),
        };
        self.connections[id].path = Some((path, Way::Seek(seek, step)));
        self.go_on(id, next);
    }

    fn go_on(&mut self, id: ConnectionId, next: Option<Step<Uid>>) {
        match next {
            Some(step) => self.take_step(id, step),
            None => self.give_up(id, 503),
        }
    }

    /// The replica hears a frame of a pod on its way to the client; what it does not take for itself is the client's.
    pub(super) fn passes_replica(&mut self, id: ConnectionId, frame: Frame) -> Option<Frame> {
        match self.connections[id].path.take() {
            None => Some(self.shown(id, frame)),
            Some((path, Way::Seek(seek, Step::Open(pod)))) => self.opening(id, path, seek, pod, &frame),
            Some((path, Way::Seek(mut seek, step))) => {
                let next = match frame {
                    Frame::Refused(404) => seek.unknown(),
                    Frame::Refused(503) => seek.unreachable(false),
                    // A connection that breaks before it says anything: whether the server has begun nobody knows.
                    Frame::Broken => match seek.unreachable(true) {
                        Some(next) => Some(next),
                        None => return Some(self.arrived(id, &path, &step, frame)),
                    },
                    frame => return Some(self.arrived(id, &path, &step, frame)),
                };
                self.connections[id].path = Some((path, Way::Seek(seek, step)));
                self.go_on(id, next);
                None
            }
            Some((path, Way::Tell(_, pods, was_away))) if matches!(frame, Frame::Refused(404 | 503)) => {
                let is_away = was_away || matches!(frame, Frame::Refused(503));
                self.connections[id].path = Some((path, Way::Tell(Uid::default(), pods, is_away)));
                self.tell_next(id);
                None
            }
            Some((path, Way::Tell(pod, ..))) => {
                let is_known = self.parts(id).known(&path).is_some();
                let step = if is_known { Step::TakeTurn } else { Step::Ask(pod) };
                Some(self.arrived(id, &path, &step, frame))
            }
        }
    }

    /// A frame of the answer to the `initialize` of a part.
    fn opening(&mut self, id: ConnectionId, path: Path, mut seek: Seek<Uid>, pod: Uid, frame: &Frame) -> Option<Frame> {
        let has_opened = match frame {
            Frame::Event { message: None, .. } => None,
            Frame::Event { message: Some(answer), .. } => Some(wire::read(answer).kind == Kind::Result),
            Frame::Refused(status) => Some(*status == 409),
            Frame::Broken | Frame::End => Some(false),
            Frame::Named(_) | Frame::Accepted => panic!("no answer to a request: {frame:?}"),
        };
        let next = match has_opened {
            Some(true) => {
                self.run.saw(Seen::Opened);
                seek.opened()
            }
            Some(false) => seek.not_opened(),
            None => Some(Step::Open(pod.clone())),
        };
        self.connections[id].path = Some((path, Way::Seek(seek, Step::Open(pod))));
        if has_opened.is_some() {
            let connection = &mut self.connections[id];
            connection.frames.clear();
            (connection.hold, connection.hung_up) = (None, false);
            self.go_on(id, next);
        }
        None
    }

    /// The request has got to where its part is.
    fn arrived(&mut self, id: ConnectionId, path: &Path, step: &Step<Uid>, frame: Frame) -> Frame {
        let parts = self.parts(id);
        parts.release(id);
        let is_there = !matches!(frame, Frame::Broken | Frame::Refused(_));
        if let Step::Ask(pod) | Step::AskKnown(pod) = step
            && is_there
        {
            parts.note(path, pod);
        }
        self.connections[id].member = Some(path.server);
        self.shown(id, frame)
    }

    /// A frame as the client sees it: events and questions say whose they are.
    fn shown(&self, at: ConnectionId, frame: Frame) -> Frame {
        let Some(server) = self.connections[at].member else { return frame };
        let Frame::Event { id, message } = frame else { return frame };
        let part = self.connections[at].part.as_deref().unwrap_or_default();
        let origin = Origin { member: Member { namespace: NAMESPACE, server: SERVERS[server] }, part };
        let marked = |message: Bytes| {
            let text = std::str::from_utf8(&message).expect("text");
            let is_answer = matches!(wire::read(&message).kind, Kind::Result | Kind::Error);
            with_origin(text, origin).filter(|_| !is_answer).map_or(message.clone(), Bytes::from)
        };
        Frame::Event { id: id.map(|id| origin.marked(&id)), message: message.map(marked) }
    }

    /// A request whose client went does not look for anything any more.
    pub(super) fn leave_path(&mut self, id: ConnectionId) {
        self.connections[id].path = None;
        self.parts(id).release(id);
    }
}

/// The server whose tool is called.
fn server_of(said: &Said) -> usize {
    let name = said.body["name"].as_str().expect("tools are called here");
    position(Owned::of_name(name).expect("a name says whose it is").member)
}

fn position(member: Member<'_>) -> usize {
    SERVERS.iter().position(|server| *server == member.server).expect("a server that is there")
}

fn to_part(path: &Path, uid: &str, ask: Ask) -> Stage {
    let pod = path.pod(uid).expect("it is asked because it is there");
    let mut stage = replica::to(path.route(), pod, path.part(), ask);
    if let Stage::ToPod { part, .. } = &mut stage {
        part.clone_from(&path.meant);
    }
    stage
}
