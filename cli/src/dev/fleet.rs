//! Every server with its revisions: what the operator's reconcilers keep in a cluster.

use std::collections::BTreeMap;

use portolan_crds::MCPServerSpec;
use portolan_crds::conditions::reasons;
use portolan_crds::server::{RevisionState, RolloutType};
use portolan_mcp::mac::MacKey;
use tokio::sync::mpsc;

use super::files::{Located, Objects};
use super::keys::{self, NoRandomness};
use super::launch::{self, Launch, Run};
use super::objects::Name;
use super::problem::Problem;
use super::revision::{Event, News, Revision};

/// Every server with its revisions.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) servers: BTreeMap<Name, Server>,
    events: mpsc::Sender<Event>,
    /// Hosts of remote servers that may have private addresses.
    allowed: Vec<String>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    /// What the files say, latest version.
    pub(super) spec: MCPServerSpec,
    /// Labels, for the gateway's selector.
    pub(super) labels: BTreeMap<String, String>,
    /// Counts versions of the spec, from 1.
    pub(super) generation: i64,
    pub(super) uid: String,
    pub(super) mac: [u8; 32],
    /// Why the latest version runs nothing.
    pub(super) blocked: Option<Blocked>,
    /// Oldest first.
    pub(super) revisions: Vec<Revision>,
    /// What is to run: started as soon as nothing is in its way.
    wanted: Option<Launch>,
    /// Whether no file has it any more: it goes once its sessions are gone.
    pub(super) deleted: bool,
}

/// Why the latest version of a server runs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Fleet {
    /// No servers yet; revisions tell `events` of themselves, and remote ones at `allowed` may have private addresses.
    pub(super) fn new(events: mpsc::Sender<Event>, allowed: Vec<String>) -> Self {
        Self { servers: BTreeMap::new(), events, allowed }
    }

    /// Turns towards `objects`; what could not be resolved is told, and nothing that runs is torn down for it.
    pub(super) fn apply(&mut self, objects: &Objects) -> Result<Vec<Problem>, NoRandomness> {
        let mut problems = Vec::new();
        for (name, located) in &objects.servers {
            let launch = launch::launch(name, &located.object.spec, objects, &self.allowed);
            let server = self.server(name, located)?;
            let launch = match launch {
                _ if server.spec.replicas == 0 => {
                    server.block(reasons::SCALED_TO_ZERO, "spec.replicas is 0".to_owned());
                    server.drain();
                    continue;
                }
                Ok(launch) => launch,
                Err(unresolved) => {
                    problems.extend(unresolved.iter().map(|one| located.origin.problem(&one.path, &*one.message)));
                    if let Some(first) = unresolved.into_iter().next() {
                        server.block(first.reason, first.message);
                    }
                    continue;
                }
            };
            server.blocked = None;
            self.turn(name, launch)?;
        }
        for (name, server) in &mut self.servers {
            if !objects.servers.contains_key(name) {
                server.deleted = true;
                server.drain();
            }
        }
        self.forget();
        Ok(problems)
    }

    /// The server `name` with the spec of its file.
    fn server(
        &mut self,
        name: &Name,
        located: &Located<portolan_crds::MCPServer>,
    ) -> Result<&mut Server, NoRandomness> {
        let (spec, labels) = (&located.object.spec, located.object.metadata.labels.clone().unwrap_or_default());
        let server = match self.servers.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Server {
                spec: spec.clone(),
                labels: BTreeMap::new(),
                generation: 1,
                uid: keys::uid()?,
                mac: keys::key()?,
                blocked: None,
                revisions: Vec::new(),
                wanted: None,
                deleted: false,
            }),
        };
        server.deleted = false;
        server.labels = labels;
        if server.spec != *spec {
            server.spec = spec.clone();
            server.generation += 1;
        }
        Ok(server)
    }

    /// Makes `launch` the revision that is wanted.
    fn turn(&mut self, name: &Name, launch: Launch) -> Result<(), NoRandomness> {
        let Some(server) = self.servers.get_mut(name) else { return Ok(()) };
        let (wanted, generation) = (launch.revision(&name.name), server.generation);
        server.wanted = Some(launch.clone());
        let present = server.revisions.iter().position(|revision| revision.name == wanted && !revision.is_ending());
        if let Some(present) = present {
            // The newest stands last: it is the one that is wanted.
            let mut revision = server.revisions.remove(present);
            revision.generation = generation;
            if revision.state == RevisionState::Draining {
                revision.recall();
            }
            server.revisions.push(revision);
        } else if server.spec.rollout.type_ == RolloutType::Recreate && !server.revisions.is_empty() {
            let message = "the version before ends first, as its sessions do or spec.rollout.drainTimeout has passed";
            server.blocked = Some(Blocked { reason: reasons::DRAINING, message: message.to_owned() });
            server.revisions.iter_mut().for_each(Revision::make_way);
            return Ok(());
        } else {
            let port = launch.port();
            let can_start = |run: &Run| matches!(run, Run::Command(command) if command.find_program().is_ok());
            if port.is_some() && can_start(&launch.run) {
                // One machine has each port once: the old process makes way, with its sessions.
                server.revisions.iter_mut().filter(|old| old.port == port).for_each(Revision::stop);
            }
            server.start(name, launch, &self.events)?;
        }
        // What never served is not worth keeping beside the new one.
        let newest = server.revisions.len().saturating_sub(1);
        server.revisions[..newest]
            .iter_mut()
            .filter(|old| old.state == RevisionState::Pending)
            .for_each(Revision::stop);
        server.settle();
        Ok(())
    }

    /// Takes in what a revision tells.
    pub(super) fn hear(&mut self, event: Event) -> Result<(), NoRandomness> {
        let Some(server) = self.servers.get_mut(&event.server) else { return Ok(()) };
        let Some(index) = server.revisions.iter().position(|revision| revision.uid == event.uid) else { return Ok(()) };
        let revision = &mut server.revisions[index];
        match event.news {
            News::Listening(address) => revision.address = Some(address),
            News::Health(health) => revision.health = health,
            News::Ended => _ = server.revisions.remove(index),
        }
        server.start_wanted(&event.server, &self.events)?;
        server.settle();
        self.forget();
        Ok(())
    }

    /// Drops servers of which nothing is left.
    fn forget(&mut self) {
        self.servers.retain(|_, server| !(server.deleted && server.revisions.is_empty()));
    }

    /// Ends everything and waits for it.
    pub(super) async fn end(self) {
        let mut servers = self.servers;
        let revisions = servers.values_mut().flat_map(|server| std::mem::take(&mut server.revisions));
        let mut ends: Vec<_> = revisions.map(|revision| tokio::spawn(revision.end())).collect();
        for end in &mut ends {
            if let Err(error) = end.await {
                tracing::error!(%error, "a revision could not be ended");
            }
        }
    }
}

impl Server {
    /// The revision that new sessions go to.
    pub(super) fn serving(&self) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Serving)
    }

    /// The revision that the latest version of the spec wants.
    pub(super) fn latest(&self) -> Option<&Revision> {
        self.revisions.last().filter(|revision| revision.generation == self.generation && self.blocked.is_none())
    }

    /// Starts what is to run and does not, once nothing is in its way: one that was wanted back may have been about to end.
    fn start_wanted(&mut self, name: &Name, events: &mpsc::Sender<Event>) -> Result<(), NoRandomness> {
        let Some(launch) = self.wanted.clone() else { return Ok(()) };
        let wanted = launch.revision(&name.name);
        let is_there = self.revisions.iter().any(|revision| revision.name == wanted && !revision.is_ending());
        let must_be_alone = self.spec.rollout.type_ == RolloutType::Recreate;
        if is_there || (must_be_alone && !self.revisions.is_empty()) {
            return Ok(());
        }
        self.blocked = None;
        self.start(name, launch, events)
    }

    /// Starts what `launch` says beside what runs.
    fn start(&mut self, name: &Name, launch: Launch, events: &mpsc::Sender<Event>) -> Result<(), NoRandomness> {
        if let Some(mac) = MacKey::new(&self.mac) {
            let uid = keys::uid()?;
            self.revisions.push(Revision::start(name, self.generation, uid, launch, mac, events.clone()));
        }
        Ok(())
    }

    fn block(&mut self, reason: &'static str, message: String) {
        self.wanted = None;
        self.blocked = Some(Blocked { reason, message });
    }

    fn drain(&mut self) {
        self.wanted = None;
        self.revisions.iter_mut().for_each(Revision::drain);
    }

    /// Cuts over to the newest revision once it is ready.
    fn settle(&mut self) {
        let Some((newest, older)) = self.revisions.split_last_mut() else { return };
        if newest.state == RevisionState::Pending && newest.health.ready && newest.address.is_some() {
            newest.serve();
            older.iter_mut().for_each(Revision::drain);
        }
    }
}
