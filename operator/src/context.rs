//! What every reconcile shares.

use std::sync::Arc;

use kube::runtime::events::Recorder;

use crate::{
    bridge_client::BridgeClient, cluster::Cluster, config::Config, gateways::Gateways, loaded::LoadedView,
    metrics::Metrics, requeue::Requeue,
};

/// What every reconcile shares; one per process.
pub struct Ctx {
    /// Settings.
    pub config: Config,
    /// The API server.
    pub cluster: Cluster,
    /// Publishes Events; only [`crate::status`] does.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
    /// Reads bridges' admin ports.
    pub bridges: BridgeClient,
    /// Which gateways there are and what they select.
    pub gateways: Arc<Gateways>,
    /// What their replicas have loaded.
    pub loaded: LoadedView,
    /// Wakes `MCPServer` objects.
    pub servers: Requeue,
    /// Wakes `MCPGateway` objects.
    pub gateway_requeue: Requeue,
}
