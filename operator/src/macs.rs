//! MAC keys of servers, read by name: remembered for a while, so that a burst of news is not a burst of reads, and so
//! that a Secret which someone deleted comes back with the key that running pods and gateways have.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use portolan_crds::MCPServer;
use portolan_mcp::mac::KEY_LEN;
use tokio::time::Instant;

use crate::{cluster::Cluster, error::Error, requeue::Key};

/// How long a key is believed without a look. One that was replaced by hand reaches the gateways within that.
const FRESH: Duration = Duration::from_secs(25);
/// The only entry of a server's Secret.
pub(crate) const ENTRY: &str = "mac";

/// Name of the Secret of that server.
pub(crate) fn secret_name(server: &str) -> String {
    format!("{server}-mac")
}

/// Whether the server has run: then a key that is known by its name is its own, and not that of a deleted one before it.
pub(crate) fn has_run(server: &MCPServer) -> bool {
    server.status.as_ref().is_some_and(|status| !status.revisions.is_empty())
}

/// MAC keys by server.
#[derive(Debug, Default)]
pub struct MacCache(Mutex<HashMap<Key, Known>>);

#[derive(Clone, Debug)]
struct Known {
    server_uid: String,
    mac: Vec<u8>,
    /// The key before this one: pods of a deleted server of the same name may still have it.
    before: Option<Vec<u8>>,
    read: Instant,
}

impl MacCache {
    /// The key of a server, as its reconciler made it; the last one known while its Secret is missing; `None` when there
    /// never was one.
    ///
    /// # Errors
    /// The API server did not say.
    pub(crate) async fn get(
        &self,
        cluster: &Cluster,
        namespace: &str,
        server: &str,
        server_uid: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let key = (namespace.to_owned(), server.to_owned());
        if let Some(known) = self.fresh(&key, server_uid) {
            return Ok(Some(known));
        }
        self.read(cluster, namespace, server, server_uid).await
    }

    /// As [`MacCache::get`], but never from memory while there is a Secret.
    ///
    /// # Errors
    /// The API server did not say.
    pub(crate) async fn read(
        &self,
        cluster: &Cluster,
        namespace: &str,
        server: &str,
        server_uid: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let key = (namespace.to_owned(), server.to_owned());
        let secret = cluster.get::<Secret>(namespace, &secret_name(server)).await?;
        // A Secret of that name that is not this server's is not its key.
        let ours = secret.filter(|secret| {
            let owners = secret.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == server_uid && owner.controller == Some(true))
        });
        let mac = ours.and_then(|mut secret| secret.data.as_mut()?.remove(ENTRY)).map(|bytes| bytes.0);
        let mac = mac.filter(|mac| mac.len() == KEY_LEN);
        Ok(self.keep(key, server_uid, mac))
    }

    /// Remembers what was read; a server's last key when its Secret held none.
    fn keep(&self, key: Key, server_uid: &str, read: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut known = self.lock();
        let last = known.get(&key).cloned();
        let own = last.as_ref().filter(|last| last.server_uid == server_uid).map(|last| last.mac.clone());
        let mac = read.or(own)?;
        let before = last.and_then(|last| if last.mac == mac { last.before } else { Some(last.mac) });
        let entry = Known { server_uid: server_uid.to_owned(), mac: mac.clone(), before, read: Instant::now() };
        known.insert(key, entry);
        Some(mac)
    }

    /// Keys that pods of a server of that name may have, the latest first: the server may be gone, or another one.
    pub(crate) fn last(&self, namespace: &str, server: &str) -> Vec<Vec<u8>> {
        let known = self.lock();
        let known = known.get(&(namespace.to_owned(), server.to_owned()));
        known.into_iter().flat_map(|known| [Some(known.mac.clone()), known.before.clone()]).flatten().collect()
    }

    /// Forgets what has not been asked for in a long time: deleted servers.
    pub fn sweep(&self) {
        self.lock().retain(|_, known| known.read.elapsed() < 10 * FRESH);
    }

    fn fresh(&self, key: &Key, server_uid: &str) -> Option<Vec<u8>> {
        let known = self.lock();
        let known = known.get(key)?;
        (known.server_uid == server_uid && known.read.elapsed() < FRESH).then(|| known.mac.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_outlives_its_secret_and_not_its_server() {
        let cache = MacCache::default();
        let key = || ("team".to_owned(), "files".to_owned());
        assert_eq!(cache.keep(key(), "uid-1", None), None);
        assert_eq!(cache.keep(key(), "uid-1", Some(vec![1])), Some(vec![1]));
        assert_eq!(cache.keep(key(), "uid-1", None), Some(vec![1]), "the Secret was deleted by hand");
        assert_eq!(cache.keep(key(), "uid-1", Some(vec![2])), Some(vec![2]), "what the Secret holds counts");
        assert_eq!(cache.keep(key(), "uid-2", None), None, "a server of the same name is another one");
        assert_eq!(cache.last("team", "files"), [[2], [1]], "pods of the first may still run");
        assert_eq!(cache.keep(key(), "uid-2", Some(vec![3])), Some(vec![3]));
        assert_eq!(cache.keep(key(), "uid-2", Some(vec![3])), Some(vec![3]));
        assert_eq!(cache.last("team", "files"), [[3], [2]]);
        assert_eq!(cache.fresh(&key(), "uid-1"), None);
        assert!(cache.last("team", "other").is_empty());
    }
}
