//! MAC keys of servers, read by name: remembered for a while, so that a burst of news is not a burst of reads.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use portolan_mcp::mac::KEY_LEN;
use tokio::time::Instant;

use crate::{cluster::Cluster, error::Error, requeue::Key};

/// How long a key is believed without a look. One that was replaced by hand reaches the gateways within that.
const FRESH: Duration = Duration::from_secs(25);
/// Name of the key in the server's Secret.
const ENTRY: &str = "mac";

/// MAC keys by server.
#[derive(Debug, Default)]
pub struct MacCache(Mutex<HashMap<Key, Known>>);

#[derive(Clone, Debug)]
struct Known {
    server_uid: String,
    mac: Vec<u8>,
    read: Instant,
}

impl MacCache {
    /// The key of a server, as its reconciler made it; `None` while there is none.
    ///
    /// # Errors
    /// The API server did not say.
    pub(super) async fn get(
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
        let secret = cluster.get::<Secret>(namespace, &format!("{server}-mac")).await?;
        // A Secret of that name that is not this server's is not its key.
        let ours = secret.filter(|secret| {
            let owners = secret.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == server_uid && owner.controller == Some(true))
        });
        let mac = ours.and_then(|mut secret| secret.data.as_mut()?.remove(ENTRY)).map(|bytes| bytes.0);
        let mac = mac.filter(|mac| mac.len() == KEY_LEN);
        let mut known = self.lock();
        match &mac {
            Some(mac) => {
                let entry = Known { server_uid: server_uid.to_owned(), mac: mac.clone(), read: Instant::now() };
                known.insert(key, entry);
            }
            None => {
                known.remove(&key);
            }
        }
        Ok(mac)
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
