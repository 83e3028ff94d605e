//! What every reconcile shares.

use std::sync::Arc;

use kube::runtime::events::Recorder;

use crate::{
    analysis::Analyses, bridge_client::BridgeClient, canaries::Canaries, cluster::Cluster, config::Config,
    gateway::KeyMemory, gateways::Gateways, loaded::LoadedView, macs::MacCache, metrics::Metrics, probes::Probes,
    requeue::Requeue, scaling::Scaling, stores::Stores, stream_keys::StreamKeys, turns::Turns, written::Written,
};

/// What every reconcile shares; one per process.
pub struct Ctx {
    /// Settings.
    pub config: Config,
    /// The API server.
    pub cluster: Cluster,
    /// Publishes Events; only [`crate::status`] does.
    pub recorder: Recorder,
    /// Conditions as last written.
    pub written: Written,
    /// Counters.
    pub metrics: Metrics,
    /// Asks bridges on their admin ports.
    pub bridges: BridgeClient,
    /// What their probes find.
    pub probes: Probes,
    /// What known-answer checks find.
    pub canaries: Canaries,
    /// How revisions that share calls compare.
    pub analyses: Analyses,
    /// How many pods servers are to have whose load decides.
    pub scaling: Scaling,
    /// Whose turn it is to roll for another release.
    pub turns: Turns,
    /// With what gateways are asked.
    pub stream_keys: StreamKeys,
    /// Which gateways there are and what they select.
    pub gateways: Arc<Gateways>,
    /// What their replicas have loaded.
    pub loaded: LoadedView,
    /// MAC keys of servers.
    pub macs: MacCache,
    /// The gateways' own keys.
    pub gateway_keys: KeyMemory,
    /// Every `MCPServer` and `MCPGateway`, as watched.
    pub stores: Stores,
    /// Wakes `MCPServer` objects.
    pub servers: Requeue,
    /// `MCPServer` objects that are gone, though pods of theirs may not be.
    pub gone_servers: Requeue,
    /// Wakes `MCPGateway` objects.
    pub gateway_requeue: Requeue,
}

impl Ctx {
    /// Wakes every server: something changed about all gateways.
    pub fn wake_servers(&self) {
        for (namespace, name) in self.stores.server_names() {
            self.servers.wake(&namespace, &name);
        }
    }

    /// Wakes every gateway that counts: something changed about the servers that they may select.
    pub fn wake_gateways(&self) {
        for (namespace, name) in self.stores.gateway_names() {
            if self.config.enrols_gateway(&namespace, &name) {
                self.gateway_requeue.wake(&namespace, &name);
            }
        }
    }
}
