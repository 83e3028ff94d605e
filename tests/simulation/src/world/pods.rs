//! What happens to pods, processes, replicas and revisions.

use super::{ADDRESSES, REPLICAS, World};
use crate::{
    client::Client,
    cluster::{self, Listed, Objects, REMOTE, SERVERS},
    pod::Pod,
    replica::Replica,
    tally::Seen,
};

impl World {
    /// Timers of some pod fire. When nothing breaks any more only those of calls that wait in vain do.
    pub(super) fn time_passes(&mut self) {
        self.drain_times_out();
        if !self.run.chaos {
            return self.vain_calls_time_out();
        }
        let alive: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].alive).collect();
        if let Some(pod) = self.run.rng.choice(alive) {
            self.pods[pod].time_passes(&mut self.connections, &mut self.run);
        }
    }

    fn vain_calls_time_out(&mut self) {
        if self.clients.iter().all(|client| !client.means_to_come_back()) {
            let pods = self.pods.iter_mut().filter(|pod| pod.alive);
            pods.for_each(|pod| pod.one_expires(&mut self.run));
        }
        for (pod, session) in self.waiting_in_vain() {
            self.pods[pod].session_times_out(&session, &mut self.connections, &mut self.run);
        }
    }

    /// Sessions in which a call may wait for ever. One may have missed a question when it had nothing to resume from, or at
    /// a bound; one that its client does not know any more misses them all.
    pub(super) fn waiting_in_vain(&self) -> Vec<(usize, String)> {
        let may_wait = |pod: &Pod, session: &str| {
            let client = self.clients.iter().find(|client| client.name() == session);
            client.is_none_or(Client::may_wait_in_vain) || pod.has_dropped(session)
        };
        let alive = self.pods.iter().enumerate().filter(|(_, pod)| pod.alive);
        let waiting = alive.flat_map(|(position, pod)| pod.waiting().map(move |session| (position, pod, session)));
        waiting
            .filter(|(_, pod, session)| may_wait(pod, session))
            .map(|(at, _, session)| (at, session.into()))
            .collect()
    }

    pub(super) fn process_ends(&mut self) {
        let alive: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].alive).collect();
        let Some(pod) = self.run.rng.choice(alive.clone()) else { return };
        if !self.is_remote(pod) {
            return self.pods[pod].process_ends(&mut self.connections, &mut self.run);
        }
        // What runs elsewhere is the same behind all its pods.
        let relays: Vec<usize> = alive.into_iter().filter(|pod| self.is_remote(*pod)).collect();
        for pod in relays {
            self.pods[pod].processes_end(&mut self.connections, &mut self.run);
        }
    }

    fn is_remote(&self, pod: usize) -> bool {
        let uid = &self.pods[pod].uid;
        self.cluster.objects().pods.iter().any(|listed| listed.uid == *uid && listed.server == REMOTE)
    }

    /// A replica goes with all its connections; another takes its place and knows nothing but the cluster.
    pub(super) fn replica_dies(&mut self) {
        let replica = self.run.rng.usize(0..REPLICAS);
        for id in self.open.clone() {
            if self.connections[id].replica == replica {
                self.break_off(id);
            }
        }
        self.replicas[replica] = Replica::new(&self.cluster, self.now());
    }

    pub(super) fn pod_dies(&mut self) {
        let alive: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].alive).collect();
        let Some(pod) = self.run.rng.choice(alive) else { return };
        if !self.pods[pod].is_idle() {
            self.run.saw(Seen::Killed);
        }
        self.end_pod(pod);
    }

    /// A pod has drained for as long as it may.
    fn drain_times_out(&mut self) {
        let draining: Vec<usize> =
            (0..self.pods.len()).filter(|pod| self.pods[*pod].alive && self.pods[*pod].draining).collect();
        if let Some(pod) = self.run.rng.choice(draining).filter(|_| self.run.rng.u8(0..20) == 0) {
            self.end_pod(pod);
        }
    }

    fn end_pod(&mut self, pod: usize) {
        self.pods[pod].die(&mut self.connections);
        let uid = &self.pods[pod].uid;
        self.cluster.change().pods.retain(|listed| listed.uid != *uid);
    }

    pub(super) fn start_pod(&mut self, server: usize) {
        let taken: Vec<usize> = self.pods.iter().filter(|pod| pod.alive).map(|pod| pod.address).collect();
        let own = self.cluster.objects().pods.iter().filter(|pod| pod.server == server).count();
        if own + 1 >= ADDRESSES {
            // The other server keeps room for a pod.
            return;
        }
        let free: Vec<usize> = (1..=ADDRESSES).filter(|address| !taken.contains(address)).collect();
        let Some(address) = self.run.rng.choice(free) else { return };
        let uid = format!("pod-{}", self.pods.len());
        let manner = self.manners[server].clone();
        self.pods.push(Pod::new(uid.clone(), address, cluster::mac_of(server), manner));
        let revision = self.cluster.objects().serving[server];
        self.cluster.change().pods.push(Listed { uid, server, revision, address, terminating: false });
    }

    /// A new revision serves: its pod comes up, those of the one before drain.
    pub(super) fn revision_changes(&mut self) {
        let server = self.run.rng.usize(0..SERVERS.len());
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
    pub(super) fn missing_pods_start(&mut self) {
        for server in 0..SERVERS.len() {
            let is_served = self.cluster.objects().pods.iter().any(|pod| pod.server == server && !pod.terminating);
            if !is_served && self.run.rng.u8(0..20) == 0 {
                self.start_pod(server);
            }
        }
    }

    pub(super) fn drained_pods_end(&mut self) {
        let is_drained = |pod: &Pod| pod.alive && pod.draining && pod.is_idle();
        let drained: Vec<usize> = (0..self.pods.len()).filter(|pod| is_drained(&self.pods[*pod])).collect();
        for pod in drained {
            self.end_pod(pod);
        }
    }
}
