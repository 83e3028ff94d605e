//! Every `MCPServer` and `MCPGateway` of the enrolled namespaces, as the watches of their controllers hold them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{self, Store, store::Writer},
};
use portolan_crds::{MCPGateway, MCPServer};

use crate::requeue::Key;

/// An object that may be malformed: one that is must not stop the watch of the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// How long a watch may take to be filled. One that takes longer must not hold up the others.
const FILLED: Duration = Duration::from_secs(2);

/// What a controller reflects into, by namespace.
pub(crate) type Writers<K> = BTreeMap<String, Writer<Guarded<K>>>;

/// What the watches hold.
pub struct Stores {
    servers: BTreeMap<String, Store<Guarded<MCPServer>>>,
    gateways: BTreeMap<String, Store<Guarded<MCPGateway>>>,
}

impl Stores {
    /// Empty stores, and what fills them.
    #[must_use]
    pub(crate) fn new(tenants: &[String], gateways: &[String]) -> (Self, Writers<MCPServer>, Writers<MCPGateway>) {
        let (mut server_writers, mut gateway_writers) = (Writers::new(), Writers::new());
        let mut stores = Self { servers: BTreeMap::new(), gateways: BTreeMap::new() };
        for namespace in tenants {
            let (reader, writer) = reflector::store();
            stores.servers.insert(namespace.clone(), reader);
            server_writers.insert(namespace.clone(), writer);
        }
        for namespace in gateways {
            let (reader, writer) = reflector::store();
            stores.gateways.insert(namespace.clone(), reader);
            gateway_writers.insert(namespace.clone(), writer);
        }
        (stores, server_writers, gateway_writers)
    }

    /// Every well-formed server, and the namespaces that could not be watched yet: what is there is not known.
    pub async fn servers(&self) -> (Vec<MCPServer>, Vec<String>) {
        let mut unknown = Vec::new();
        for (namespace, store) in &self.servers {
            if !matches!(tokio::time::timeout(FILLED, store.wait_until_ready()).await, Ok(Ok(()))) {
                unknown.push(namespace.clone());
            }
        }
        (well_formed(&self.servers), unknown)
    }

    /// Every well-formed gateway that is known now.
    #[must_use]
    pub fn gateways(&self) -> Vec<MCPGateway> {
        well_formed(&self.gateways)
    }

    /// Namespace and name of every server that is known now.
    #[must_use]
    pub fn server_names(&self) -> Vec<Key> {
        names(&self.servers)
    }

    /// Namespace and name of every gateway that is known now.
    #[must_use]
    pub fn gateway_names(&self) -> Vec<Key> {
        names(&self.gateways)
    }

    /// Whether every gateway of the namespace is known: until its watch has listed them, absence says nothing.
    #[must_use]
    pub fn knows_gateways_of(&self, namespace: &str) -> bool {
        let store = self.gateways.get(namespace);
        store.and_then(|store| store.wait_until_ready().now_or_never()).is_some_and(|ready| ready.is_ok())
    }

    /// Namespaces of the gateway stores, with their readers.
    pub(crate) fn gateway_stores(&self) -> &BTreeMap<String, Store<Guarded<MCPGateway>>> {
        &self.gateways
    }

    /// Namespaces of the server stores, with their readers.
    pub(crate) fn server_stores(&self) -> &BTreeMap<String, Store<Guarded<MCPServer>>> {
        &self.servers
    }
}

fn well_formed<K>(stores: &BTreeMap<String, Store<Guarded<K>>>) -> Vec<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let all = stores.values().flat_map(Store::state);
    all.filter_map(|object| Arc::unwrap_or_clone(object).0.ok()).collect()
}

fn names<K>(stores: &BTreeMap<String, Store<Guarded<K>>>) -> Vec<Key>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let all = stores.values().flat_map(Store::state);
    all.map(|object| (object.namespace().unwrap_or_default(), object.name_any())).collect()
}
