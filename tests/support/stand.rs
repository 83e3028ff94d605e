//! A gateway of two replicas and a server of a test's own, with callers who have keys, for a load that goes on while
//! something changes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use portolan_crds::MCPServer;
use portolan_policy::api_key::Hash;
use serde_json::{Map, Value, json};

use crate::cluster::{Cluster, PLATFORM, TENANT};
use crate::demo;
use crate::front::Front;
use crate::load::{Load, Plan};

/// The gateway, which is also the label by which it selects servers, and the name of its callers' keys.
pub const GATEWAY: &str = "failure";
/// How many callers there are: a server's pods are chosen by who calls, as long as nobody has a session.
const CALLERS: usize = 8;
/// Sessions that are alive at every moment.
pub const SESSIONS: usize = 50;
/// A session lives for [`SESSIONS`] times this.
const RENEWAL: Duration = Duration::from_millis(400);

/// Both, serving.
pub struct Stand {
    /// The cluster.
    pub cluster: Cluster,
    /// The gateway.
    pub front: Front,
    /// The server's name, in [`TENANT`].
    pub server: String,
}

impl Stand {
    /// Makes the gateway and a server of so many replicas, and waits until they serve.
    ///
    /// # Panics
    /// They do not within [`crate::wait::PATIENCE`].
    pub async fn open(cluster: &Cluster, server: &str, replicas: u32) -> Self {
        let keys: Map<_, _> = keys().enumerate().map(|(index, key)| (format!("caller-{index}"), hash(&key))).collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": GATEWAY, "namespace": PLATFORM}, "stringData": keys});
        cluster.apply::<Secret>(&secret).await.expect("the callers have keys");
        let gateway = json!({
            "replicas": 2,
            "authentication": {"apiKeys": [{"name": "callers", "secretRef": {"name": GATEWAY}}]},
            "servers": {"selector": {"matchLabels": {"tests/front": GATEWAY}}},
        });
        let manifest = manifest(server, replicas);
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        let front = Front::open(GATEWAY, &gateway).await;
        cluster.ready(TENANT, server).await;
        Self { cluster: cluster.clone(), front, server: server.to_owned() }
    }

    /// Deletes both. It is enough to know the name, so that a test can do it whatever came of them.
    ///
    /// # Panics
    /// They do not go.
    pub async fn close(cluster: &Cluster, server: &str) {
        tokio::join!(cluster.delete::<MCPServer>(TENANT, server), Front::close(cluster, GATEWAY));
        cluster.delete::<Secret>(PLATFORM, GATEWAY).await;
    }

    /// The server's URL at the gateway's Service.
    #[must_use]
    pub fn url(&self) -> String {
        self.front.direct_url(TENANT, &self.server)
    }

    /// What a caller presents.
    #[must_use]
    pub fn key() -> String {
        key(0)
    }

    /// The load that is meant where nothing else is said: [`SESSIONS`] sessions, and so many calls a second.
    #[must_use]
    pub fn plan(&self, rate: u32) -> Plan {
        let credentials = keys().map(Some).collect();
        Plan { url: self.url(), credentials, sessions: SESSIONS, rate, renewal: RENEWAL, streams: 0 }
    }

    /// Begins to call.
    ///
    /// # Panics
    /// The sessions do not open.
    pub async fn load(&self, rate: u32) -> Load {
        Load::start(self.plan(rate)).await
    }
}

/// An `MCPServer` that a stand's gateway serves.
#[must_use]
pub fn manifest(name: &str, replicas: u32) -> Value {
    let mut manifest = demo::stdio(TENANT, name);
    manifest["metadata"]["labels"] = json!({"tests/front": GATEWAY});
    manifest["spec"]["replicas"] = replicas.into();
    // One pod holds all of them when the others are gone.
    manifest["spec"]["sessions"] = json!({"maxPerReplica": 4 * SESSIONS, "maxPerCaller": 4 * SESSIONS});
    manifest["spec"]["rollout"] = json!({"drainTimeout": "2m"});
    manifest
}

fn keys() -> impl Iterator<Item = String> {
    (0..CALLERS).map(key)
}

fn key(caller: usize) -> String {
    format!("ptl_{}", char::from(b'a' + u8::try_from(caller).unwrap_or_default()).to_string().repeat(43))
}

fn hash(key: &str) -> Value {
    Hash::of(key).to_string().into()
}
