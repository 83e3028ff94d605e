//! Changes of a stand that clients are not to notice, each waited for until nothing of what was before is left.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_crds::server::RevisionState;
use serde_json::{Value, json};

use crate::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use crate::front::service;
use crate::operator::led;
use crate::pods::{evict, restart, settled};
use crate::stand::{GATEWAY, Stand};
use crate::wait::{PATIENCE, until};

/// Selects the pods of the stand's gateway.
pub const GATEWAY_PODS: &str = "portolan.dev/gateway=failure";
/// From the moment that pods are told to go until all of their sessions were ended by their clients: within the drain timeout.
pub const DRAINED: Duration = Duration::from_secs(130);

/// Selects the pods of a server.
#[must_use]
pub fn pods_of(server: &str) -> String {
    format!("portolan.dev/server={server}")
}

/// A spec that differs in a variable of its container: other pods.
fn edited(value: &str) -> Value {
    json!({"container": {"env": [{"name": "EDIT", "value": value}]}})
}

/// What `rollout` says where a new revision takes everything at once.
fn at_once() -> Value {
    json!({"type": "BlueGreen", "canary": null, "promote": null, "abort": null})
}

impl Stand {
    /// An edit that replaces every pod of the server.
    ///
    /// # Panics
    /// It is not made in time, as is so for every change here.
    pub async fn edit(&self, value: &str) {
        let before = self.cluster.serving_revision(TENANT, &self.server).await;
        self.cluster.patch_spec(TENANT, &self.server, &edited(value)).await;
        self.has_replaced(&before).await;
    }

    /// An edit that gives a new revision a share, and then everything because someone says so.
    ///
    /// # Panics
    /// As above.
    pub async fn promote(&self, value: &str) {
        let before = self.cluster.serving_revision(TENANT, &self.server).await;
        let canary = self.share(value).await;
        self.cluster.patch_spec(TENANT, &self.server, &json!({"rollout": {"promote": canary}})).await;
        self.has_replaced(&before).await;
        self.cluster.patch_spec(TENANT, &self.server, &json!({"rollout": at_once()})).await;
        self.cluster.ready(TENANT, &self.server).await;
    }

    /// An edit that gives a new revision a share, takes it back, and has the spec say again what serves.
    ///
    /// # Panics
    /// As above.
    pub async fn roll_back(&self, value: &str) {
        let (cluster, server) = (&self.cluster, self.server.as_str());
        let before = cluster.serving_revision(TENANT, server).await;
        let spec = cluster.api::<MCPServer>(TENANT).get(server).await.expect("it is there").spec;
        let env = serde_json::to_value(spec.container.map(|container| container.env)).expect("JSON");
        let canary = self.share(value).await;
        cluster.patch_spec(TENANT, server, &json!({"rollout": {"abort": canary}})).await;
        cluster.condition(TENANT, server, "Ready", "False", "RolloutAborted", PATIENCE).await;
        until("the pods of the one that was taken back have ended", DRAINED, || async {
            let pods = pods_with(cluster, &format!("portolan.dev/revision={canary}")).await?;
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
        })
        .await;
        cluster.patch_spec(TENANT, server, &json!({"container": {"env": env}, "rollout": at_once()})).await;
        cluster.ready(TENANT, server).await;
        assert_eq!(cluster.serving_revision(TENANT, server).await, before);
    }

    /// Gives a new revision half of the new sessions for some seconds and then more of them, and returns its name.
    async fn share(&self, value: &str) -> String {
        let (cluster, server) = (&self.cluster, self.server.as_str());
        let mut spec = edited(value);
        let steps = json!([{"setWeight": 50, "pause": "5s"}, {"setWeight": 75, "pause": "10m"}]);
        spec["rollout"] = json!({"type": "Canary", "canary": {"steps": steps}});
        cluster.patch_spec(TENANT, server, &spec).await;
        until("a new revision has had its share for a while", PATIENCE, || async {
            let server = cluster.api::<MCPServer>(TENANT).get(server).await.map_err(|error| error.to_string())?;
            let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
            let canary = revisions.iter().find(|revision| revision.state == RevisionState::Canary);
            let canary = canary.filter(|canary| canary.weight == 75);
            canary.map(|canary| canary.name.clone()).ok_or_else(|| format!("{revisions:?}"))
        })
        .await
    }

    async fn has_replaced(&self, before: &str) {
        let (cluster, server) = (&self.cluster, self.server.as_str());
        cluster.ready(TENANT, server).await;
        assert_ne!(cluster.serving_revision(TENANT, server).await, before, "another revision serves");
        cluster.gone::<Deployment>(TENANT, before, DRAINED).await;
    }

    /// A rolling update of the gateway.
    ///
    /// # Panics
    /// As above.
    pub async fn restart_gateway(&self) {
        restart(&self.cluster, PLATFORM, &service(GATEWAY), GATEWAY_PODS, 2 * PATIENCE).await;
    }

    /// Another operator in place of the one that leads.
    ///
    /// # Panics
    /// As above.
    pub async fn restart_operator(&self) {
        restart(&self.cluster, PLATFORM, "portolan-operator", OPERATOR, PATIENCE).await;
        led(&self.cluster).await;
        self.cluster.ready(TENANT, &self.server).await;
    }

    /// So many pods of the server; those that are not needed any more are waited for until their sessions have ended.
    ///
    /// # Panics
    /// As above.
    pub async fn scale(&self, replicas: usize) {
        let count = replicas.to_string();
        kubectl(&["scale", "--namespace", TENANT, "mcps", &self.server, "--replicas", &count]).await.expect("scaled");
        settled(&self.cluster, TENANT, &pods_of(&self.server), replicas, DRAINED).await;
        self.cluster.ready(TENANT, &self.server).await;
    }

    /// The eviction of one of the server's pods.
    ///
    /// # Panics
    /// As above.
    pub async fn evict_a_server_pod(&self) {
        self.evict(TENANT, &pods_of(&self.server)).await;
        self.cluster.ready(TENANT, &self.server).await;
    }

    /// The eviction of one of the gateway's pods.
    ///
    /// # Panics
    /// As above.
    pub async fn evict_a_gateway_pod(&self) {
        self.evict(PLATFORM, GATEWAY_PODS).await;
    }

    async fn evict(&self, namespace: &str, labels: &str) {
        let pods = self.cluster.pods(namespace, labels).await;
        let name = pods.first().map(ResourceExt::name_any).expect("a pod");
        evict(&self.cluster, namespace, &name).await;
        self.cluster.gone::<Pod>(namespace, &name, DRAINED).await;
        settled(&self.cluster, namespace, labels, pods.len(), PATIENCE).await;
    }
}

async fn pods_with(cluster: &Cluster, labels: &str) -> Result<Vec<String>, String> {
    let listed = cluster.api::<Pod>(TENANT).list(&kube::api::ListParams::default().labels(labels)).await;
    Ok(listed.map_err(|error| error.to_string())?.iter().map(ResourceExt::name_any).collect())
}
