//! The gateways that count, what each selects, and its live pods: kept by the gateway reconciler and by the watches of
//! pods and namespaces, read by the server reconciler.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::ResourceExt;
use portolan_crds::{MCPServer, gateway::ServerSelection};
use portolan_snapshot::select::{self, Namespaces};
use tokio::sync::watch;

/// `namespace/name` of a gateway.
pub type GatewayName = String;

/// A gateway that counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateway {
    /// Base URL within the cluster.
    pub url: String,
    /// Which servers it serves.
    pub selection: ServerSelection,
}

/// A pod of a gateway that has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// Address of the pod.
    pub ip: String,
    /// Whether it takes requests.
    pub ready: bool,
}

/// The gateways that count.
#[derive(Debug, Default)]
pub struct Gateways {
    state: RwLock<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    gateways: BTreeMap<GatewayName, Gateway>,
    replicas: BTreeMap<GatewayName, Vec<Replica>>,
    namespaces: Namespaces,
}

impl Gateways {
    /// Every gateway that serves `server`, as `namespace/name`, with the server's URL there. Sorted.
    #[must_use]
    pub fn endpoints_of(&self, server: &MCPServer) -> Vec<(GatewayName, String)> {
        let state = self.read();
        let namespace = server.namespace().unwrap_or_default();
        let name = server.name_any();
        state
            .gateways
            .iter()
            // A selector that cannot be read selects nothing; its gateway says so in its own conditions.
            .filter(|(_, gateway)| select::selects(&gateway.selection, &state.namespaces, server).unwrap_or(false))
            .map(|(gateway, view)| (gateway.clone(), format!("{}/{namespace}/{name}/mcp", view.url)))
            .collect()
    }

    /// The ready pods of a gateway. Sorted.
    #[must_use]
    pub fn ready_replicas_of(&self, gateway: &str) -> Vec<Replica> {
        let state = self.read();
        let replicas = state.replicas.get(gateway).into_iter().flatten();
        replicas.filter(|replica| replica.ready).cloned().collect()
    }

    /// Every gateway and its pods, ready or not.
    #[must_use]
    pub fn replicas(&self) -> BTreeMap<GatewayName, Vec<Replica>> {
        let state = self.read();
        state
            .gateways
            .keys()
            .map(|name| (name.clone(), state.replicas.get(name).cloned().unwrap_or_default()))
            .collect()
    }

    /// Labels of the enrolled namespaces.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        self.read().namespaces.clone()
    }

    /// Sets what is known of a gateway, or forgets it. Whether that changed anything.
    pub fn set(&self, name: &str, gateway: Option<&Gateway>) -> bool {
        let changed = {
            let mut state = self.write();
            let before = match gateway {
                Some(gateway) => state.gateways.insert(name.to_owned(), gateway.clone()),
                None => state.gateways.remove(name),
            };
            before.as_ref() != gateway
        };
        if changed {
            self.changes.send_replace(());
        }
        changed
    }

    /// Tells when gateways or their pods changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Names of the gateways that count.
    #[must_use]
    pub fn names(&self) -> Vec<GatewayName> {
        self.read().gateways.keys().cloned().collect()
    }

    /// Sets the pods of all gateways of a namespace. Whether that changed anything.
    pub fn set_replicas(&self, namespace: &str, mut replicas: BTreeMap<GatewayName, Vec<Replica>>) -> bool {
        replicas.values_mut().for_each(|pods| pods.sort());
        let prefix = format!("{namespace}/");
        let mut state = self.write();
        let before: BTreeMap<_, _> =
            state.replicas.iter().filter(|(name, _)| name.starts_with(&prefix)).map(clone_pair).collect();
        if before == replicas {
            return false;
        }
        state.replicas.retain(|name, _| !name.starts_with(&prefix));
        state.replicas.extend(replicas);
        drop(state);
        self.changes.send_replace(());
        true
    }

    /// Sets the labels of a namespace. Whether that changed anything.
    pub fn set_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.write().namespaces.insert(name.to_owned(), labels.clone()).as_ref() != Some(labels)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clone_pair<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}
