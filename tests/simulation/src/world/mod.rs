//! One run: what may happen next, and which of it does.

mod all_servers;
mod clients;
mod ends;
mod pods;

use crate::{
    client::{Client, Mood},
    cluster::{Cluster, REMOTE, SERVERS},
    network::{Connection, ConnectionId, Stage},
    pod::{Manner, Pod},
    replica::Replica,
    run::Run,
    tally::Tally,
};
use portolan_mcp::revision::Era;

/// Clients of either era.
const CLIENTS: usize = 2;
/// Clients of all servers, with sessions.
const CLIENTS_OF_ALL: usize = 2;
const REPLICAS: usize = 2;
/// Few, so that pods inherit each other's.
const ADDRESSES: usize = 4;
const STEPS_PER_SECOND: u64 = 10;
/// Steps in which anything may happen.
const CHAOS: usize = 200;
/// Steps after that, in which nothing breaks any more and everything has to come to its end.
const CALM: usize = 20_000;

#[derive(Debug)]
struct World {
    run: Run,
    steps: u64,
    cluster: Cluster,
    manners: Vec<Manner>,
    replicas: Vec<Replica>,
    /// The only replica that clients go through, while that is so.
    through: Option<usize>,
    pods: Vec<Pod>,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    open: Vec<ConnectionId>,
}

/// Runs the schedule that `seed` stands for.
///
/// # Panics
/// A promise is broken; the message says which.
#[must_use]
pub fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..CHAOS {
        world.step(Mood::Busy);
    }
    world.run.chaos = false;
    world.calm(Mood::Finishing, World::is_settled, "everything that was begun ends");
    for replica in 0..REPLICAS {
        world.everyone_asks_through(replica);
    }
    world.everyone_leaves();
    world.run.tally
}

impl World {
    fn new(seed: u64) -> Self {
        let mut run = Run::new(seed);
        let manners: Vec<Manner> = (0..SERVERS.len())
            .map(|server| Manner {
                era: if run.rng.bool() { Era::Legacy } else { Era::Modern },
                is_shared: run.chance(5),
                is_http: server == REMOTE || run.rng.bool(),
            })
            .collect();
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let server = run.rng.usize(0..SERVERS.len());
            // Sessions at a server without any are not a matter of this crate's machines.
            let has_sessions = !manners[server].is_shared;
            clients.push(if has_sessions { Client::session(number, server) } else { Client::caller(number, server) });
        }
        // Two callers at one server are what must not be mixed up.
        let server = run.rng.usize(0..SERVERS.len());
        clients.extend((CLIENTS..2 * CLIENTS).map(|number| Client::caller(number, server)));
        clients.push(Client::caller_of_all(clients.len(), (0..SERVERS.len()).collect()));
        let with_sessions: Vec<usize> = (0..SERVERS.len()).filter(|server| !manners[*server].is_shared).collect();
        if !with_sessions.is_empty() {
            let all = clients.len()..clients.len() + CLIENTS_OF_ALL;
            clients.extend(all.map(|number| Client::session_with_all(number, with_sessions.clone())));
        }
        let mut world = Self {
            run,
            steps: 0,
            cluster: Cluster::default(),
            manners,
            replicas: Vec::new(),
            through: None,
            pods: Vec::new(),
            clients,
            connections: Vec::new(),
            open: Vec::new(),
        };
        for server in 0..SERVERS.len() {
            world.start_pod(server);
        }
        world.replicas = (0..REPLICAS).map(|_| Replica::new(&world.cluster, 0)).collect();
        world
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        self.steps / STEPS_PER_SECOND
    }

    fn step(&mut self, mood: Mood) {
        self.steps += 1;
        let now = self.now();
        for replica in self.replicas.iter_mut().filter(|replica| replica.is_behind(now)) {
            replica.learn(&mut self.cluster, now);
        }
        match self.run.rng.u8(0..if self.run.chaos { 100 } else { 92 }) {
            0..18 => self.client_acts(mood),
            18..50 => self.connection_moves(),
            50..87 => self.pod_moves(),
            87..90 => {
                let replica = self.run.rng.usize(0..REPLICAS);
                self.replicas[replica].learn(&mut self.cluster, now);
            }
            90..92 => self.time_passes(),
            92..94 => self.connection_breaks(),
            94..96 => self.someone_steals(),
            96 => self.process_ends(),
            97 if self.run.rng.bool() => self.replica_dies(),
            97 => self.pod_dies(),
            98 => {
                let server = self.run.rng.usize(0..SERVERS.len());
                self.start_pod(server);
            }
            _ => self.revision_changes(),
        }
        self.drained_pods_end();
        self.missing_pods_start();
    }

    /// Runs until `is_over`, with nothing breaking any more.
    fn calm(&mut self, mood: Mood, is_over: impl Fn(&Self) -> bool, promise: &str) {
        for _ in 0..CALM {
            if is_over(self) {
                return;
            }
            self.step(mood);
        }
        let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_settled()).collect();
        panic!("{promise}, but this does not: {waiting:#?} {:#?}", self.pods.iter().filter(|pod| pod.alive));
    }

    /// Whether every call has come to an end that its client knows.
    fn is_settled(&self) -> bool {
        self.clients.iter().all(Client::is_settled)
    }

    /// A connection gets a step further: towards a pod, or with a frame to its client.
    fn connection_moves(&mut self) {
        let able: Vec<ConnectionId> =
            self.open.iter().copied().filter(|id| !self.connections[*id].is_at_rest()).collect();
        let Some(id) = self.run.rng.choice(able) else { return };
        if !self.connections[id].frames.is_empty() {
            return self.frame_arrives(id);
        }
        match &self.connections[id].stage {
            Stage::ToReplica(_) => self.replica_decides(id),
            Stage::Turn => self.turn_may_come(id),
            Stage::ToPod { address, .. } => {
                let address = *address;
                self.request_arrives(id, address);
            }
            Stage::AtPod { pod } if self.connections[id].hung_up => {
                let pod = *pod;
                if let Some(hold) = self.connections[id].hold.take() {
                    self.pods[pod].closed(id, hold, &mut self.connections);
                }
                self.connections[id].stage = Stage::Done;
            }
            Stage::AtPod { .. } => {}
            Stage::Done => self.open.retain(|open| *open != id),
        }
    }

    fn pod_moves(&mut self) {
        let able = |pod: &usize| self.pods[*pod].alive && !self.pods[*pod].is_quiet();
        let able: Vec<usize> = (0..self.pods.len()).filter(able).collect();
        if let Some(pod) = self.run.rng.choice(able) {
            self.pods[pod].step(&mut self.connections, &mut self.run);
        }
    }
}
