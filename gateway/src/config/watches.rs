//! Watches of the API server, and the objects that they have seen.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use k8s_openapi::api::{core::v1::Namespace, core::v1::Secret, discovery::v1::EndpointSlice};
use kube::api::{Api, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use portolan_crds::{MCPGateway, MCPServer, MCPToolset, labels};
use portolan_snapshot::{ClusterDomain, Inputs, inputs::Unreadable};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::{Cluster, Namespaces, secret};

/// How long the labels of Namespaces may take to be read once.
const LABELS_LIMIT: Duration = Duration::from_secs(2);

/// Objects that a release may be unable to read.
type Guarded<K> = Store<DeserializeGuard<K>>;

/// What the watches have seen so far.
pub(crate) struct Watches {
    client: Client,
    namespace: String,
    name: String,
    cluster_domain: ClusterDomain,
    gateway: Guarded<MCPGateway>,
    servers: Vec<Guarded<MCPServer>>,
    toolsets: Vec<Guarded<MCPToolset>>,
    slices: Vec<Store<EndpointSlice>>,
    secret: watch::Receiver<secret::Data>,
    /// Watched only once a gateway selects by them: not every installation grants that.
    labels: OnceLock<Store<PartialObjectMeta<Namespace>>>,
    changed: Arc<Notify>,
}

/// A watch ended for good, which only happens at the end of the process.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a watch ended")]
pub(crate) struct WatchEnded;

impl Watches {
    /// Starts every watch; their tasks live in `tasks`.
    pub(crate) fn start(cluster: &Cluster, tasks: &mut JoinSet<()>) -> Self {
        let Cluster { client, namespace, name, namespaces, .. } = cluster;
        let changed = Arc::new(Notify::new());
        let own = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let of_servers = watcher::Config::default().labels(labels::SERVER);
        let gateway = follow(Api::namespaced(client.clone(), namespace), own, &changed, tasks);
        let servers = scopes(client, namespaces)
            .into_iter()
            .map(|api| follow(api, watcher::Config::default(), &changed, tasks))
            .collect();
        let toolsets = scopes(client, namespaces)
            .into_iter()
            .map(|api| follow(api, watcher::Config::default(), &changed, tasks))
            .collect();
        let slices = scopes(client, namespaces)
            .into_iter()
            .map(|api| follow(api, of_servers.clone(), &changed, tasks))
            .collect();
        Self {
            client: client.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            cluster_domain: cluster.cluster_domain.clone(),
            gateway,
            servers,
            toolsets,
            slices,
            secret: follow_secret(client, namespace, name, &changed, tasks),
            labels: OnceLock::new(),
            changed,
        }
    }

    /// Waits until each watch has seen everything once.
    pub(crate) async fn wait_until_ready(&self) -> Result<(), WatchEnded> {
        self.gateway.wait_until_ready().await.map_err(|_| WatchEnded)?;
        try_join_all(self.servers.iter().map(Store::wait_until_ready)).await.map_err(|_| WatchEnded)?;
        try_join_all(self.toolsets.iter().map(Store::wait_until_ready)).await.map_err(|_| WatchEnded)?;
        try_join_all(self.slices.iter().map(Store::wait_until_ready)).await.map_err(|_| WatchEnded)?;
        let mut secret = self.secret.clone();
        secret.wait_for(Option::is_some).await.map_err(|_| WatchEnded)?;
        Ok(())
    }

    /// Waits until something has changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What there is now; `None` where the gateway's own object cannot be had, so that the last good inputs stay.
    pub(crate) async fn inputs(&self, tasks: &mut JoinSet<()>) -> Option<Inputs> {
        let gateway = self.own_gateway()?;
        let namespaces = match gateway.spec.servers.namespace_selector {
            Some(_) => self.namespace_labels(tasks).await?,
            None => BTreeMap::new(),
        };
        let (servers, unreadable) = read(&self.servers);
        let (toolsets, unreadable_toolsets) = read(&self.toolsets);
        Some(Inputs {
            gateway,
            cluster_domain: self.cluster_domain.clone(),
            servers,
            unreadable,
            toolsets,
            unreadable_toolsets,
            namespaces,
            slices: self.slices.iter().flat_map(Store::state).map(|slice| EndpointSlice::clone(&slice)).collect(),
            secret: self.secret.borrow().clone().unwrap_or_default(),
        })
    }

    fn own_gateway(&self) -> Option<MCPGateway> {
        let Self { namespace, name, .. } = self;
        match self.gateway.state().first().map(|object| &object.0) {
            Some(Ok(gateway)) => Some(gateway.clone()),
            Some(Err(invalid)) => {
                tracing::error!(error = invalid.error, "MCPGateway {namespace}/{name} cannot be read");
                None
            }
            None => {
                tracing::error!("there is no MCPGateway {namespace}/{name}");
                None
            }
        }
    }

    async fn namespace_labels(&self, tasks: &mut JoinSet<()>) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
        let store = match self.labels.get() {
            Some(store) => store,
            None => {
                let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
                let store = follow(api, watcher::Config::default(), &self.changed, tasks);
                self.labels.get_or_init(|| store)
            }
        };
        // Without the right to list Namespaces this would never come, and nothing else would be taken in meanwhile.
        if !matches!(tokio::time::timeout(LABELS_LIMIT, store.wait_until_ready()).await, Ok(Ok(()))) {
            tracing::error!("the labels of Namespaces cannot be read, which servers.namespaceSelector needs");
            return None;
        }
        Some(store.state().iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect())
    }
}

/// What there is of a kind: objects, and those that this release cannot read.
fn read<K>(stores: &[Guarded<K>]) -> (Vec<K>, Vec<Unreadable>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (mut good, mut unreadable) = (Vec::new(), Vec::new());
    for object in stores.iter().flat_map(Store::state) {
        match &object.0 {
            Ok(readable) => good.push(readable.clone()),
            Err(invalid) => unreadable.push(Unreadable {
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
                uid: object.uid(),
                labels: object.labels().clone(),
                message: invalid.error.clone(),
            }),
        }
    }
    (good, unreadable)
}

/// One API for each enrolled namespace, or one for all.
fn scopes<K>(client: &Client, namespaces: &Namespaces) -> Vec<Api<K>>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespaces {
        Namespaces::All => vec![Api::all(client.clone())],
        Namespaces::Listed(names) => names.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
    }
}

/// Watches `api` into a store for as long as the process lives. Errors are retried with growing pauses.
fn follow<K>(api: Api<K>, config: watcher::Config, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let changed = changed.clone();
    let events = reflector::reflector(writer, watcher(api, config).default_backoff().modify(strip));
    tasks.spawn(events.for_each(move |event| {
        match event {
            // A store shows a list only once it is whole.
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => changed.notify_one(),
            Err(error) => tracing::warn!(%error, kind = %K::kind(&()), "a watch is interrupted"),
        }
        ready(())
    }));
    reader
}

/// Near half of an object's metadata says who wrote which field: nothing here asks.
fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn follow_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    changed: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<secret::Data> {
    let (sender, receiver) = watch::channel(None);
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    tasks.spawn(secret::follow(api, format!("portolan-gateway-{name}"), sender));
    let (changed, mut seen) = (changed.clone(), receiver.clone());
    tasks.spawn(async move {
        while seen.changed().await.is_ok() {
            changed.notify_one();
        }
    });
    receiver
}
