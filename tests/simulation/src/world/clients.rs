//! What clients do, and what becomes of their requests on the way.

use super::{REPLICAS, World};
use crate::{
    client::{Act, Mood, Told},
    network::{Ask, Connection, ConnectionId, Frame, Purpose, Stage},
    replica::Decision,
    run::{Name, Named},
    tally::Seen,
    wire,
};
use serde_json::json;

impl World {
    pub(super) fn client_acts(&mut self, mood: Mood) {
        let number = self.run.rng.usize(0..self.clients.len());
        self.acts(number, mood);
    }

    pub(super) fn acts(&mut self, number: usize, mood: Mood) {
        match self.clients[number].act(mood, &mut self.run) {
            None => {}
            Some(Act::HangUp(id)) => self.break_off(id),
            Some(Act::Ask(purpose, ask)) => {
                let replica = self.through.unwrap_or_else(|| self.run.rng.usize(0..REPLICAS));
                self.clients[number].sent(purpose, self.connections.len(), replica);
                self.connect(number, purpose, replica, ask);
            }
        }
    }

    fn connect(&mut self, client: usize, purpose: Purpose, replica: usize, ask: Ask) {
        self.open.push(self.connections.len());
        let of = self.clients[client].name();
        self.connections.push(Connection::new(client, of, purpose, replica, ask));
    }

    /// A client presents what was given to another.
    pub(super) fn someone_steals(&mut self) {
        let Some(position) = self.run.rng.choice(0..self.run.names.len()) else { return };
        let Named { owner, server, name } = self.run.names[position].clone();
        let thieves: Vec<usize> = (0..self.clients.len())
            .filter(|client| *client != owner && self.clients[*client].server() == server)
            .collect();
        let Some(thief) = self.run.rng.choice(thieves) else { return };
        let ask = match name {
            Name::Session(token) => match self.run.rng.u8(0..3) {
                0 => Ask::Open { token, last: Some("0-0".to_owned()) },
                1 => Ask::Delete { token },
                _ => Ask::Post { token, body: wire::call("thief", 1) },
            },
            Name::Parked { state, tool } => {
                let params = json!({
                    "name": tool, "canary": wire::canary("thief"), "requestState": state, "inputResponses": {},
                    "_meta": wire::introduction(false, 1),
                });
                Ask::Alone(wire::request(1, "tools/call", &params))
            }
        };
        let replica = self.run.rng.usize(0..REPLICAS);
        self.connect(thief, Purpose::Theft, replica, ask);
    }

    pub(super) fn replica_decides(&mut self, id: ConnectionId) {
        let client = self.connections[id].client;
        let Stage::ToReplica(ask) = std::mem::replace(&mut self.connections[id].stage, Stage::Done) else { return };
        match self.clients[client].server() {
            Some(server) => self.one_server_decides(id, server, ask),
            None => self.all_servers_decide(id, ask),
        }
    }

    /// A replica takes a request to one server.
    pub(super) fn one_server_decides(&mut self, id: ConnectionId, server: usize, ask: Ask) {
        let now = self.now();
        let Connection { client, replica, .. } = self.connections[id];
        match self.replicas[replica].decide(client, server, ask, now, &mut self.run.rng) {
            Decision::Forward { stage, name } => {
                self.connections[id].stage = stage;
                self.connections[id].name = name;
            }
            Decision::Refuse(status) => self.connections[id].refuse(status),
            Decision::Stale(pod) => {
                let is_listed = self.cluster.objects().pods.iter().any(|listed| *listed.uid == *pod);
                self.connections[id].was_unheard = is_listed;
                self.connections[id].refuse(400);
            }
        }
    }

    pub(super) fn request_arrives(&mut self, id: ConnectionId, address: usize) {
        let found = self.pods.iter().position(|pod| pod.alive && pod.address == address);
        match found {
            Some(pod) => self.pods[pod].take(pod, id, &mut self.connections, &mut self.run),
            None => self.connections[id].refuse(503),
        }
    }

    pub(super) fn frame_arrives(&mut self, id: ConnectionId) {
        let Some(frame) = self.connections[id].frames.pop_front() else { return };
        let Some(frame) = self.passes_replica(id, frame) else { return };
        let Connection { purpose, client, .. } = self.connections[id];
        let of = self.connections[id].of.clone();
        if purpose == Purpose::Told {
            return;
        }
        if purpose == Purpose::Theft {
            return match frame {
                Frame::Refused(400 | 404) => self.run.saw(Seen::Theft),
                Frame::Refused(503) | Frame::Broken => {}
                other => panic!("a thief is answered with {other:?}"),
            };
        }
        match self.clients[client].take(&of, purpose, id, frame, &mut self.run) {
            Told::Nothing => {}
            Told::Unknown => self.session_is_unknown(client, &of),
            Told::Stale(call) => self.call_is_over(id, &of, call),
        }
    }

    /// A client was told that its session is gone: then it has to be so.
    fn session_is_unknown(&mut self, client: usize, session: &str) {
        assert!(self.clients[client].server().is_some(), "{session}: a session with all servers outlives its parts");
        let holders = self.pods.iter().filter(|pod| pod.alive && pod.serves(session));
        let known: Vec<&str> = holders.map(|pod| pod.uid.as_str()).collect();
        assert!(known.is_empty(), "{session} is on {known:?}, and its client is told 404");
        self.clients[client].is_told_of_its_end(&mut self.run);
    }

    /// A client was told that no call waits for it: then it has to be so, unless the replica had not heard of its pod.
    fn call_is_over(&mut self, id: ConnectionId, caller: &str, call: u64) {
        let holders = self.pods.iter().filter(|pod| pod.holds(caller, call));
        let holders: Vec<&str> = holders.map(|pod| pod.uid.as_str()).collect();
        let is_over = holders.is_empty() || self.connections[id].was_unheard;
        assert!(is_over, "call {call} of {caller} waits on {holders:?}, and its client is told that it is over");
    }

    pub(super) fn connection_breaks(&mut self) {
        let Some(position) = self.run.rng.choice(0..self.open.len()) else { return };
        self.break_off(self.open[position]);
    }

    pub(super) fn break_off(&mut self, id: ConnectionId) {
        self.leave_path(id);
        let connection = &mut self.connections[id];
        connection.cut();
        // What was on its way to a pod may still get there: the sender only does not hear of it.
        if !matches!(connection.stage, Stage::AtPod { .. } | Stage::ToPod { .. }) {
            connection.stage = Stage::Done;
        }
    }
}
