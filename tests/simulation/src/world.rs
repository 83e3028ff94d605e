//! One run: what may happen next, and which of it does.

use fastrand::Rng;

use crate::{
    client::{Client, Counts, Purpose, Told},
    cluster::{self, Cluster, Listed, Objects, SERVERS},
    network::{Connection, ConnectionId, Frame, Stage},
    pod::Pod,
    replica::{Decision, Replica},
};

const CLIENTS: usize = 3;
const REPLICAS: usize = 2;
/// Few, so that pods inherit each other's.
const ADDRESSES: usize = 4;
const STEPS_PER_SECOND: u64 = 10;
/// Steps in which anything may happen.
const CHAOS: usize = 400;
/// Steps after that, in which nothing breaks any more and everything has to come to its end.
const CALM: usize = 20_000;

/// What came of one or many runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Sessions that clients asked for.
    pub sessions: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls whose client knows that nobody will answer.
    pub lost: u64,
    /// Streams that were resumed.
    pub resumed: u64,
    /// Questions of servers that reached their client.
    pub questions: u64,
    /// Pods that ended with sessions on them.
    pub killed: u64,
    /// Requests that met another pod at the address they were sent to.
    pub strangers: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.answered += other.answered;
        self.lost += other.lost;
        self.resumed += other.resumed;
        self.questions += other.questions;
        self.killed += other.killed;
        self.strangers += other.strangers;
    }
}

#[derive(Debug)]
struct World {
    rng: Rng,
    steps: u64,
    cluster: Cluster,
    replicas: Vec<Replica>,
    pods: Vec<Pod>,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    /// Of each connection: the session it belongs to, and what it is for.
    purposes: Vec<(String, Purpose)>,
    open: Vec<ConnectionId>,
    tally: Tally,
}

/// Runs the schedule that `seed` stands for.
///
/// # Panics
/// A promise is broken; the message says which.
#[must_use]
pub fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..CHAOS {
        world.step(true);
    }
    for _ in 0..CALM {
        if world.is_settled() {
            return world.tally();
        }
        world.step(false);
    }
    panic!("this never comes to an end: {world:#?}");
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            steps: 0,
            cluster: Cluster::default(),
            replicas: Vec::new(),
            pods: Vec::new(),
            clients: (0..CLIENTS).map(|number| Client::new(number, number % SERVERS.len())).collect(),
            connections: Vec::new(),
            purposes: Vec::new(),
            open: Vec::new(),
            tally: Tally::default(),
        };
        for server in 0..SERVERS.len() {
            world.start_pod(server);
        }
        world.replicas = (0..REPLICAS).map(|_| Replica::new(&world.cluster, 0)).collect();
        world
    }

    fn tally(mut self) -> Tally {
        for Client { counts, .. } in &self.clients {
            let Counts { sessions, answered, lost, resumed, questions } = *counts;
            self.tally += Tally { sessions, answered, lost, resumed, questions, ..Tally::default() };
        }
        self.tally
    }

    /// Whether every call has come to an end that its client knows.
    fn is_settled(&self) -> bool {
        self.clients.iter().all(|client| client.session.as_ref().is_none_or(|session| session.calls.is_empty()))
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        self.steps / STEPS_PER_SECOND
    }

    fn step(&mut self, chaos: bool) {
        self.steps += 1;
        let now = self.now();
        for replica in self.replicas.iter_mut().filter(|replica| replica.is_behind(now)) {
            replica.learn(&mut self.cluster, now);
        }
        match self.rng.u8(0..if chaos { 100 } else { 94 }) {
            0..20 => self.client_acts(chaos),
            20..65 => self.connection_moves(),
            65..89 => self.pod_moves(),
            89..94 => {
                let replica = self.rng.usize(0..REPLICAS);
                self.replicas[replica].learn(&mut self.cluster, now);
            }
            94..97 => self.connection_breaks(),
            97 if self.rng.bool() => self.replica_dies(),
            97 => self.pod_dies(),
            98 => {
                let server = self.rng.usize(0..SERVERS.len());
                self.start_pod(server);
            }
            _ => self.revision_changes(),
        }
        self.drained_pods_end();
        self.missing_pods_start();
    }

    fn client_acts(&mut self, chaos: bool) {
        let number = self.rng.usize(0..CLIENTS);
        let client = &mut self.clients[number];
        let Some((purpose, ask)) = client.act(chaos, &mut self.rng) else { return };
        let id = self.connections.len();
        client.sent(purpose, id);
        let session = client.session.as_ref().map(|session| session.name.clone()).unwrap_or_default();
        let replica = self.rng.usize(0..REPLICAS);
        self.connections.push(Connection::new(number, replica, ask));
        self.purposes.push((session, purpose));
        self.open.push(id);
    }

    /// A connection gets a step further: towards a pod, or with a frame to its client.
    fn connection_moves(&mut self) {
        let now = self.now();
        let Some(id) = self.rng.choice(self.open.clone()) else { return };
        if !self.connections[id].frames.is_empty() {
            return self.frame_arrives(id);
        }
        match self.connections[id].stage.clone() {
            Stage::ToReplica(ask) => {
                let Connection { client, replica, .. } = self.connections[id];
                let server = self.clients[client].server;
                match self.replicas[replica].decide(client, server, ask, now, &mut self.rng) {
                    Decision::Forward { stage, name } => {
                        self.connections[id].stage = stage;
                        self.connections[id].name = name;
                    }
                    Decision::Refuse(status) => {
                        self.connections[id].send(Frame::Refused(status));
                        self.connections[id].stage = Stage::Done;
                    }
                }
            }
            Stage::ToPod { address, .. } => self.request_arrives(id, address),
            Stage::AtPod { pod } if self.connections[id].hung_up => {
                if let Some((key, attachment)) = self.connections[id].hold.take() {
                    self.pods[pod].closed(&key, id, attachment);
                }
                self.connections[id].stage = Stage::Done;
            }
            Stage::AtPod { .. } => {}
            Stage::Done => self.open.retain(|open| *open != id),
        }
    }

    fn request_arrives(&mut self, id: ConnectionId, address: usize) {
        let found = self.pods.iter().position(|pod| pod.alive && pod.address == address);
        let Some(pod) = found else {
            self.connections[id].send(Frame::Refused(503));
            self.connections[id].stage = Stage::Done;
            return;
        };
        self.pods[pod].take(pod, id, &mut self.connections, &mut self.rng);
        if matches!(self.connections[id].frames.front(), Some(Frame::Refused(_))) {
            self.tally.strangers += 1;
        }
    }

    fn frame_arrives(&mut self, id: ConnectionId) {
        let Some(frame) = self.connections[id].frames.pop_front() else { return };
        let (session, purpose) = self.purposes[id].clone();
        let client = &mut self.clients[self.connections[id].client];
        if client.take(&session, purpose, id, frame) == Told::Unknown {
            self.session_is_unknown(id, &session);
        }
    }

    /// A client was told that its session is gone: then it has to be so.
    fn session_is_unknown(&mut self, id: ConnectionId, session: &str) {
        let client = &mut self.clients[self.connections[id].client];
        let holders = self.pods.iter().filter(|pod| pod.alive && pod.serves(session));
        let known: Vec<&str> = holders.map(|pod| pod.uid.as_str()).collect();
        assert!(known.is_empty(), "{session} is on {known:?}, and its client is told 404");
        client.over();
    }

    fn pod_moves(&mut self) {
        let Some(pod) = self.rng.choice(0..self.pods.len()) else { return };
        self.pods[pod].step(&mut self.connections, &mut self.rng);
    }

    fn connection_breaks(&mut self) {
        let Some(id) = self.rng.choice(self.open.clone()) else { return };
        self.break_off(id);
    }

    fn break_off(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        connection.cut();
        if !matches!(connection.stage, Stage::AtPod { .. }) {
            // What was on its way to a pod may still get there: the sender only does not hear of it.
            if !matches!(connection.stage, Stage::ToPod { .. }) {
                connection.stage = Stage::Done;
            }
        }
    }

    /// A replica goes with all its connections; another takes its place and knows nothing but the cluster.
    fn replica_dies(&mut self) {
        let replica = self.rng.usize(0..REPLICAS);
        for id in self.open.clone() {
            if self.connections[id].replica == replica {
                self.break_off(id);
            }
        }
        self.replicas[replica] = Replica::new(&self.cluster, self.now());
    }

    fn pod_dies(&mut self) {
        let alive: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].alive).collect();
        let Some(pod) = self.rng.choice(alive) else { return };
        self.tally.killed += u64::from(!self.pods[pod].is_idle());
        self.end_pod(pod);
    }

    fn end_pod(&mut self, pod: usize) {
        self.pods[pod].die(&mut self.connections);
        let uid = &self.pods[pod].uid;
        self.cluster.change().pods.retain(|listed| listed.uid != *uid);
    }

    fn start_pod(&mut self, server: usize) {
        let taken: Vec<usize> = self.pods.iter().filter(|pod| pod.alive).map(|pod| pod.address).collect();
        let free: Vec<usize> = (1..=ADDRESSES).filter(|address| !taken.contains(address)).collect();
        let Some(address) = self.rng.choice(free) else { return };
        let uid = format!("pod-{}", self.pods.len());
        self.pods.push(Pod::new(uid.clone(), address, cluster::mac_of(server)));
        let revision = self.cluster.objects().serving[server];
        self.cluster.change().pods.push(Listed { uid, server, revision, address, terminating: false });
    }

    /// A new revision serves: its pod comes up, those of the one before drain.
    fn revision_changes(&mut self) {
        let server = self.rng.usize(0..SERVERS.len());
        let before = self.cluster.objects().pods.len();
        self.cluster.change().serving[server] += 1;
        self.start_pod(server);
        if self.cluster.objects().pods.len() == before {
            self.cluster.change().serving[server] -= 1;
            return;
        }
        let Objects { pods, serving } = self.cluster.change();
        let serving = serving[server];
        for listed in pods {
            if listed.server == server && listed.revision != serving {
                listed.terminating = true;
                let pod = self.pods.iter_mut().find(|pod| pod.uid == listed.uid).expect("a listed pod exists");
                pod.draining = true;
            }
        }
    }

    /// A server whose last pod went gets another one, after a while.
    fn missing_pods_start(&mut self) {
        for server in 0..SERVERS.len() {
            let is_served = self.cluster.objects().pods.iter().any(|pod| pod.server == server && !pod.terminating);
            if !is_served && self.rng.u8(0..20) == 0 {
                self.start_pod(server);
            }
        }
    }

    fn drained_pods_end(&mut self) {
        let drained: Vec<usize> = (0..self.pods.len())
            .filter(|pod| self.pods[*pod].alive && self.pods[*pod].draining && self.pods[*pod].is_idle())
            .collect();
        for pod in drained {
            self.end_pod(pod);
        }
    }
}
