//! Configuration from a cluster: watches → `Inputs`, and the last good ones on disk. With the token reviewer the only
//! code of the data path that knows an API server.

mod seal;
mod secret;
mod watches;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use kube::Client;
use portolan_snapshot::{ClusterDomain, Inputs};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use self::seal::{LastGood, Sealer};
pub use self::seal::{Seal, SealError};
use self::watches::Watches;
use crate::authenticate::{Authenticator, token_review::Reviewer};
use crate::metrics::Metrics;
use crate::source::Latest;

/// How long the API server may take at the start before the sealed inputs are served.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sealed inputs are written at most this often.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);

/// The cluster that a gateway serves, and which of its gateways it is.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to the API server.
    pub client: Client,
    /// Namespace of the gateway's object and Secret.
    pub namespace: String,
    /// Name of the gateway's object.
    pub name: String,
    /// The namespaces whose servers may be served.
    pub namespaces: Namespaces,
    /// The cluster's DNS domain, in which the gateway's Service has a name.
    pub cluster_domain: ClusterDomain,
    /// Where the last good inputs are kept; nowhere when `None`.
    pub seal: Option<Seal>,
}

/// The namespaces whose servers may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one.
    All,
    /// These.
    Listed(Vec<String>),
}

impl Cluster {
    pub(crate) fn authenticator(&self, metrics: &Arc<Metrics>) -> Authenticator {
        Authenticator { reviewer: Some(Reviewer::new(self.client.clone(), metrics.clone())) }
    }

    /// Follows the cluster; inputs in `loaded`, which were found good, are sealed.
    pub(crate) fn start(
        self,
        loaded: Latest,
        metrics: &Arc<Metrics>,
    ) -> Result<(Latest, Vec<AbortOnDropHandle<()>>), SealError> {
        let sealer = match &self.seal {
            Some(seal) => Some(Arc::new(Sealer::new(seal, &self.namespace, &self.name)?)),
            None => None,
        };
        let (sender, latest) = watch::channel(None);
        let mut tasks = Vec::new();
        let kept = Arc::new(OnceLock::new());
        if let Some(sealer) = sealer.clone() {
            tasks.push(tokio::spawn(keep(sealer, kept.clone(), loaded, metrics.clone())));
        }
        tasks.push(tokio::spawn(follow(self, sender, sealer, kept, metrics.clone())));
        Ok((latest, tasks.into_iter().map(AbortOnDropHandle::new).collect()))
    }
}

/// The inputs that were read from disk, where they were.
type Kept = Arc<OnceLock<Arc<Inputs>>>;

/// Sends inputs: the sealed ones where the API server takes too long to answer, then what the watches see.
async fn follow(
    cluster: Cluster,
    inputs: watch::Sender<Option<Arc<Inputs>>>,
    sealer: Option<Arc<Sealer>>,
    kept: Kept,
    metrics: Arc<Metrics>,
) {
    let mut tasks = JoinSet::new();
    let watches = Watches::start(&cluster, &mut tasks);
    let mut ready = std::pin::pin!(watches.wait_until_ready());
    if tokio::time::timeout(PATIENCE, ready.as_mut()).await.is_err() {
        tracing::warn!("the API server does not answer");
        if let Some(last_good) = sealer.and_then(|sealer| open(&sealer, &metrics)) {
            // What this process was told is newer than what an earlier one knew.
            let last_good = Inputs { cluster_domain: cluster.cluster_domain, ..last_good };
            inputs.send_replace(Some(kept.get_or_init(|| Arc::new(last_good)).clone()));
        }
        if ready.await.is_err() {
            return;
        }
        tracing::info!("the API server answers");
    }
    loop {
        if let Some(current) = watches.inputs(&mut tasks).await {
            inputs.send_replace(Some(Arc::new(current)));
            metrics.config_stale_since.set(0);
        }
        watches.changed().await;
    }
}

fn open(sealer: &Sealer, metrics: &Metrics) -> Option<Inputs> {
    let (outcome, inputs) = match sealer.open() {
        Ok(Some(LastGood { inputs, sealed_at })) => {
            let since = sealed_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            metrics.config_stale_since.set(since.try_into().unwrap_or(i64::MAX));
            let age = sealed_at.elapsed().unwrap_or_default().as_secs();
            tracing::warn!(age_seconds = age, "serving the last good configuration, as it was kept on disk");
            ("Loaded", Some(inputs))
        }
        Ok(None) => {
            tracing::warn!("no configuration was kept on disk: not ready until the API server answers");
            ("Absent", None)
        }
        Err(error) => {
            tracing::error!(%error, "the sealed inputs are not used");
            (error.reason(), None)
        }
    };
    metrics.sealed.with_label_values(&[outcome]).inc();
    inputs
}

/// Seals what was found good, but not what comes from disk: its age would be lost.
async fn keep(sealer: Arc<Sealer>, kept: Kept, mut loaded: Latest, metrics: Arc<Metrics>) {
    while loaded.changed().await.is_ok() {
        let Some(inputs) = loaded.borrow_and_update().clone() else { continue };
        if kept.get().is_some_and(|kept| Arc::ptr_eq(kept, &inputs)) {
            continue;
        }
        let sealer = sealer.clone();
        let outcome = match tokio::task::spawn_blocking(move || sealer.seal(&inputs)).await {
            Ok(Ok(())) => "Sealed",
            Ok(Err(error)) => {
                tracing::error!(%error, "the inputs could not be sealed");
                error.reason()
            }
            Err(error) => {
                tracing::error!(%error, "sealing failed");
                "Panic"
            }
        };
        metrics.sealed.with_label_values(&[outcome]).inc();
        tokio::time::sleep(SEAL_INTERVAL).await;
    }
}
