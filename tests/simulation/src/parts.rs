//! What a replica knows of sessions with all servers: where their parts are, and how a request gets to one.

use std::{collections::BTreeMap, sync::Arc};

use portolan_mcp::{
    aggregate::{Seek, Step},
    token::{ManyClaims, SessionKey},
};
use portolan_snapshot::{Route, Snapshot, snapshot::Pod};

use crate::{
    cluster::{NAMESPACE, SERVERS},
    network::{Ask, ConnectionId},
};

/// A pod's UID.
pub(crate) type Uid = Box<str>;

/// What is known of the parts, by session and server.
#[derive(Debug, Default)]
pub(crate) struct Parts(BTreeMap<(String, usize), Part>);

#[derive(Debug, Default)]
struct Part {
    pod: Option<Uid>,
    /// The request that looks for it.
    turn: Option<ConnectionId>,
}

impl Parts {
    fn part(&mut self, path: &Path) -> &mut Part {
        self.0.entry((path.claims.session.as_str().to_owned(), path.server)).or_default()
    }

    /// The pod where the part was last, if `path` may go there.
    pub(crate) fn known(&mut self, path: &Path) -> Option<Uid> {
        let uid = self.part(path).pod.clone()?;
        path.pod(&uid).filter(|pod| pod.serving).map(|_| uid)
    }

    pub(crate) fn note(&mut self, path: &Path, pod: &str) {
        self.part(path).pod = Some(pod.into());
    }

    /// Whether request `id` may look for the part now.
    pub(crate) fn takes_turn(&mut self, path: &Path, id: ConnectionId) -> bool {
        *self.part(path).turn.get_or_insert(id) == id
    }

    /// Request `id` does not look for anything any more.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        self.0.values_mut().filter(|part| part.turn == Some(id)).for_each(|part| part.turn = None);
    }

    /// Where parts of `session` are, as far as is known: servers and pods.
    pub(crate) fn all(&self, session: &SessionKey) -> Vec<(usize, Uid)> {
        let own = self.0.iter().filter(|((of, _), _)| *of == session.as_str());
        own.filter_map(|((_, server), part)| Some((*server, part.pod.clone()?))).collect()
    }
}

/// The way of a request to the pod that holds its part of a session. It goes by what the replica knew when it came.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) claims: Arc<ManyClaims>,
    pub(crate) server: usize,
    pub(crate) ask: Ask,
    /// Which of the sessions is meant that the server has had for the client.
    pub(crate) meant: Option<String>,
}

/// How the pod is found.
#[derive(Debug)]
pub(crate) enum Way {
    /// For a request, which opens the part where no pod has it.
    Seek(Seek<Uid>, Step<Uid>),
    /// For what is said of a part that is there: the pod that is asked, those that are asked after it, and whether one could
    /// not be reached.
    Tell(Uid, Vec<Uid>, bool),
}

impl Path {
    pub(crate) fn route(&self) -> &Route {
        let name = format!("{NAMESPACE}/{}", SERVERS[self.server]);
        self.snapshot.routes.get(name.as_str()).expect("servers are never deleted")
    }

    /// The name of the part.
    pub(crate) fn part(&self) -> SessionKey {
        self.claims.session.derived(self.route().name.as_str().as_bytes())
    }

    pub(crate) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.route().pods.get(uid)
    }

    pub(crate) fn holders(&self) -> Vec<Uid> {
        uids(self.route().holders(&self.part()))
    }

    pub(crate) fn takers(&self) -> Vec<Uid> {
        uids(self.route().takers(&self.part()))
    }
}

fn uids(pods: Vec<&Pod>) -> Vec<Uid> {
    pods.into_iter().map(|pod| pod.uid.clone()).collect()
}
