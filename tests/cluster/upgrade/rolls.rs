//! What happens to the revisions of a crew, and what its servers say meanwhile, in the order in which it happens.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::NamespaceResourceScope;
use portolan_crds::MCPServer;
use portolan_crds::conditions::{find, is_true};
use portolan_crds::labels::{REVISION, SERVER};
use portolan_tests::cluster::{Cluster, TENANT};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::crew::NAMES;

/// What a server says that waits for its turn.
pub(crate) const WAITS: &str = "when it is its turn";

/// A revision after something happened to it.
#[derive(Clone, Debug)]
struct Change {
    server: String,
    revision: String,
    /// Whether it is there and has not served yet.
    comes_up: bool,
}

/// What a server said.
#[derive(Clone, Debug)]
struct Said {
    server: String,
    is_ready: bool,
    progressing: String,
}

/// All of it, as long as this is kept.
pub(crate) struct Rolls {
    changes: Arc<Mutex<Vec<Change>>>,
    said: Arc<Mutex<Vec<Said>>>,
    watches: JoinSet<()>,
}

impl Rolls {
    /// Begins to watch.
    pub(crate) async fn watch(cluster: &Cluster) -> Self {
        let (changes, said, mut watches) = (Arc::default(), Arc::default(), JoinSet::new());
        let labels = format!("{SERVER} in ({})", NAMES.join(","));
        let (into, from) = (Arc::clone(&changes), cluster.api::<Deployment>(TENANT));
        let version = version(&from).await;
        watches.spawn(follow(from, labels, version, move |deployment, is_gone| {
            lock(&into).extend(change(&deployment, is_gone));
        }));
        let (into, from) = (Arc::clone(&said), cluster.api::<MCPServer>(TENANT));
        let version = self::version(&from).await;
        watches.spawn(follow(from, String::new(), version, move |server, is_gone| {
            if !is_gone && NAMES.contains(&server.name_any().as_str()) {
                lock(&into).push(told(&server));
            }
        }));
        Self { changes, said, watches }
    }

    /// The servers in the order in which another revision began to come up.
    pub(crate) fn order(&self) -> Vec<String> {
        let mut order = Vec::new();
        for change in lock(&self.changes).iter().filter(|change| change.comes_up) {
            if !order.contains(&change.server) {
                order.push(change.server.clone());
            }
        }
        order
    }

    /// The most servers that had a revision which did not serve yet at one moment, but for one server.
    pub(crate) fn most_at_once(&self, but_for: &str) -> usize {
        let (mut coming, mut most) = (BTreeSet::new(), 0);
        for Change { server, revision, comes_up } in lock(&self.changes).iter().filter(|one| one.server != but_for) {
            if *comes_up {
                coming.insert((server.clone(), revision.clone()));
            } else {
                coming.remove(&(server.clone(), revision.clone()));
            }
            most = most.max(coming.iter().map(|(server, _)| server).collect::<BTreeSet<_>>().len());
        }
        most
    }

    /// Who waited for its turn said so, and was Ready all the while.
    pub(crate) fn assert_waited(&self, server: &str) {
        let said = lock(&self.said);
        let mut of_it = said.iter().filter(|said| said.server == server);
        let first = of_it.find(|said| !said.is_ready || said.progressing.contains(WAITS));
        assert!(first.is_some_and(|said| said.is_ready), "{server} waits for its turn and is Ready: {first:?}");
        let unwell = of_it.find(|said| said.progressing.contains(WAITS) && !said.is_ready);
        assert!(unwell.is_none(), "{unwell:?}");
    }

    /// Ends the watches, none of which ended before.
    pub(crate) async fn end(mut self) {
        assert!(self.watches.try_join_next().is_none(), "both watched to the end");
        self.watches.shutdown().await;
    }
}

fn change(deployment: &Deployment, is_gone: bool) -> Option<Change> {
    let annotations = deployment.annotations();
    let is_past = ["serving-since", "draining-since", "rolled-back"]
        .iter()
        .any(|since| annotations.contains_key(&format!("portolan.dev/{since}")));
    let label = |key| deployment.labels().get(key).cloned();
    Some(Change { server: label(SERVER)?, revision: label(REVISION)?, comes_up: !is_past && !is_gone })
}

fn told(server: &MCPServer) -> Said {
    let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let progressing = find(conditions, "Progressing").map(|condition| condition.message.clone());
    Said {
        server: server.name_any(),
        is_ready: is_true(conditions, "Ready"),
        progressing: progressing.unwrap_or_default(),
    }
}

/// The version of what there is now.
async fn version<K>(api: &Api<K>) -> String
where
    K: kube::Resource + Clone + DeserializeOwned + Debug,
{
    let listed = api.list_metadata(&ListParams::default()).await.expect("listed");
    listed.metadata.resource_version.expect("a list has a version")
}

/// Tells what happens to objects from a version on, and whether it was their end.
async fn follow<K>(api: Api<K>, labels: String, mut version: String, tell: impl Fn(K, bool))
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    // One watch lasts some minutes.
    loop {
        let mut events = api.watch(&WatchParams::default().labels(&labels), &version).await.expect("watched").boxed();
        while let Some(event) = events.next().await {
            let (object, is_gone) = match event.expect("an event") {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(why) => panic!("the watch goes on: {why:?}"),
            };
            version = object.meta().resource_version.clone().expect("an object has a version");
            tell(object, is_gone);
        }
    }
}

fn lock<T>(what: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
