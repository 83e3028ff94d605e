//! The keys with which the operator says to gateways that it is the operator.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use portolan_mcp::mac::MacKey;

use crate::{
    cluster::Cluster,
    error::Error,
    gateway::{STREAM_KEY, child_name},
    gateways::GatewayName,
};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The API server did not give the Secret.
    #[error("{0}")]
    Secret(Error),
    /// The Secret has none.
    #[error("the gateway's Secret has no usable key {STREAM_KEY:?} yet")]
    None,
}

/// Keys by gateway; clones share them.
#[derive(Clone)]
pub struct StreamKeys {
    cluster: Cluster,
    known: Arc<Mutex<HashMap<GatewayName, (MacKey, Instant)>>>,
}

/// How long a key is used that was read: a gateway may have another one by now.
const FRESH: Duration = Duration::from_secs(60);

impl StreamKeys {
    /// None is known yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, known: Arc::default() }
    }

    /// The key as it was within the last minute.
    ///
    /// # Errors
    /// It was not read since, and cannot be.
    pub async fn of(&self, gateway: &str) -> Result<MacKey, KeyError> {
        let known = self.lock().get(gateway).cloned();
        match known {
            Some((key, read)) if read.elapsed() < FRESH => Ok(key),
            _ => self.read(gateway).await,
        }
    }

    /// Reads the key.
    ///
    /// # Errors
    /// There is none, or the API server does not give it.
    pub async fn read(&self, gateway: &str) -> Result<MacKey, KeyError> {
        let (namespace, name) = gateway.split_once('/').ok_or(KeyError::None)?;
        let secret = self.cluster.get::<Secret>(namespace, &child_name(name)).await.map_err(KeyError::Secret)?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let key = data.get(STREAM_KEY).and_then(|bytes| MacKey::new(&bytes.0)).ok_or(KeyError::None)?;
        self.lock().insert(gateway.to_owned(), (key.clone(), Instant::now()));
        Ok(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GatewayName, (MacKey, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
