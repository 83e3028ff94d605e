//! Where inputs come from, and the loop that turns each into what is served.

use std::sync::Arc;
use std::time::Duration;

use portolan_snapshot::Inputs;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::aggregate;
use crate::authenticate::Authenticator;
use crate::gateway::{Gateway, StartError};
use crate::metrics::Metrics;

/// Changes that come within this time of each other are compiled once: a rollout touches many objects at a time.
const SETTLE: Duration = Duration::from_millis(20);

/// The latest inputs; `None` until the first are there.
pub type Latest = watch::Receiver<Option<Arc<Inputs>>>;

/// Where inputs come from.
pub enum Source {
    /// From whoever holds the other end: `portolan dev`, tests. Tokens of service accounts are refused: there is no
    /// API server to ask.
    Channel(Latest),
    /// From a cluster.
    #[cfg(feature = "kube")]
    Cluster(Box<crate::config::Cluster>),
}

/// What authenticates callers besides the snapshot.
#[cfg_attr(not(feature = "kube"), expect(unused_variables, reason = "only a cluster's has any"))]
pub(crate) fn authenticator(source: &Source, metrics: &Arc<Metrics>) -> Authenticator {
    match source {
        Source::Channel(_) => Authenticator::default(),
        #[cfg(feature = "kube")]
        Source::Cluster(cluster) => cluster.authenticator(metrics),
    }
}

/// Tasks that keep the configuration current; they end when this is dropped.
pub(crate) struct Following(#[expect(dead_code, reason = "held for their drop")] Vec<AbortOnDropHandle<()>>);

/// Serves from `source` from now on.
pub(crate) fn start(source: Source, gateway: &Arc<Gateway>) -> Result<Following, StartError> {
    let loaded = watch::Sender::new(None);
    let (inputs, mut tasks) = match source {
        Source::Channel(inputs) => (inputs, Vec::new()),
        #[cfg(feature = "kube")]
        Source::Cluster(cluster) => cluster.start(loaded.subscribe(), &gateway.metrics)?,
    };
    tasks.push(AbortOnDropHandle::new(tokio::spawn(follow(gateway.clone(), inputs, loaded))));
    Ok(Following(tasks))
}

/// Serves from each of `inputs` as it comes, until the sender is gone. `loaded` is told of those that were good.
async fn follow(gateway: Arc<Gateway>, mut inputs: Latest, loaded: watch::Sender<Option<Arc<Inputs>>>) {
    loop {
        let current = inputs.borrow_and_update().clone();
        if let Some(current) = current {
            match gateway.state.load(&current, &gateway.metrics) {
                Ok(()) => {
                    loaded.send_replace(Some(current));
                    aggregate::learn(&gateway);
                }
                Err(problem) => {
                    gateway.metrics.unusable_inputs.inc();
                    tracing::error!(%problem, "the configuration cannot be served");
                }
            }
        }
        if inputs.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}
