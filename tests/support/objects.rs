//! Objects as an API server would have them, for a gateway to serve from.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use portolan_policy::api_key::Hash;
use portolan_snapshot::Inputs;
use serde_json::{Value, json};

/// What gateway and bridges sign with, whatever the server.
pub const MAC_KEY: [u8; 32] = [7; 32];
/// What gateway and operator sign with.
pub const STREAM_KEY: [u8; 32] = [8; 32];
/// A key that the gateway knows.
pub const ALICE: &str = "ptl_alice";
/// Another one.
pub const BOB: &str = "ptl_bob";
/// Path of the server `everything`.
pub const ROUTE: &str = "/default/everything/mcp";
/// Path of the server `other`.
pub const OTHER_ROUTE: &str = "/default/other/mcp";

/// What stands where a bridge does.
pub trait Pod {
    /// Its UID.
    fn uid(&self) -> &str;
    /// Where it takes requests.
    fn address(&self) -> SocketAddr;
}

/// Pods as (UID, address, revision, ready, serving, terminating).
pub type Pods = Vec<(String, SocketAddr, String, bool, bool, bool)>;

/// What a test may change of the objects.
pub struct Objects {
    /// The spec of the gateway.
    pub gateway: Value,
    /// The spec of every server.
    pub server: Value,
    /// `status.revisions` of every server.
    pub revisions: Value,
    /// Of every server that has none of its own.
    pub pods: Pods,
    /// Names of servers, all of the namespace `default`, with pods of their own.
    pub servers: Vec<(&'static str, Option<Pods>)>,
    /// Names of toolsets of the same namespace, and their specs.
    pub toolsets: Vec<(&'static str, Value)>,
}

impl Objects {
    /// One server of one revision with these pods, and a gateway that knows Alice's and Bob's keys.
    #[must_use]
    pub fn new(bridges: &[&dyn Pod]) -> Self {
        Self {
            gateway: json!({"authentication": {"apiKeys": [{"name": "ci", "secretRef": {"name": "keys"}}]}}),
            server: json!({
                "container": {"image": "x", "transport": "Stdio", "command": ["x"]},
                "timeouts": {"request": "30s"},
            }),
            revisions: json!([{"name": "everything-aaaaaaaa", "state": "Serving", "weight": 100, "generation": 1}]),
            pods: pods(bridges),
            servers: vec![("everything", None), ("other", None)],
            toolsets: Vec::new(),
        }
    }

    /// Servers with pods of their own, and the same gateway.
    #[must_use]
    pub fn of(servers: &[(&'static str, &[&dyn Pod])]) -> Self {
        let servers = servers.iter().map(|(name, bridges)| (*name, Some(pods(bridges)))).collect();
        Self { servers, ..Self::new(&[]) }
    }

    /// All of it, as a gateway reads it.
    ///
    /// # Panics
    /// What a test changed is no object any more.
    #[must_use]
    pub fn inputs(&self) -> Arc<Inputs> {
        let server = |name: &str| {
            json!({
                "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer",
                "metadata": {
                    "namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 1,
                    "labels": {"name": name},
                },
                "spec": self.server,
                "status": {"revisions": self.revisions},
            })
        };
        let slices = self.servers.iter().flat_map(|(name, own)| slices(name, own.as_ref().unwrap_or(&self.pods)));
        let toolset = |(name, spec): &(&str, Value)| {
            json!({
                "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPToolset",
                "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 1},
                "spec": spec,
            })
        };
        let mut inputs = json!({
            "gateway": {
                "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
                "metadata": {"namespace": "portolan", "name": "default", "uid": "uid-gateway", "generation": 1},
                "spec": self.gateway,
            },
            "servers": self.servers.iter().map(|(name, _)| server(name)).collect::<Vec<_>>(),
            "toolsets": self.toolsets.iter().map(toolset).collect::<Vec<_>>(),
            "slices": slices.collect::<Vec<_>>(),
            "secret": {
                "session.0": STANDARD.encode([1; 32]),
                "stream": STANDARD.encode(STREAM_KEY),
                "apikeys.ci.alice": STANDARD.encode(Hash::of(ALICE).to_string()),
                "apikeys.ci.bob": STANDARD.encode(Hash::of(BOB).to_string()),
            },
        });
        for (name, _) in &self.servers {
            inputs["secret"][format!("server.default.{name}")] = STANDARD.encode(MAC_KEY).into();
        }
        Arc::new(serde_json::from_value(inputs).expect("inputs"))
    }
}

fn pods(bridges: &[&dyn Pod]) -> Pods {
    let pod =
        |bridge: &&dyn Pod| (bridge.uid().into(), bridge.address(), "everything-aaaaaaaa".into(), true, true, false);
    bridges.iter().map(pod).collect()
}

fn slices(server: &str, pods: &Pods) -> Vec<Value> {
    let slice = |(index, (uid, address, revision, ready, serving, terminating)): (
        usize,
        &(String, SocketAddr, String, bool, bool, bool),
    )| {
        json!({
            "metadata": {
                "namespace": "default", "name": format!("{server}-{index}"),
                "labels": {"portolan.dev/server": server, "portolan.dev/revision": revision},
            },
            "addressType": "IPv4",
            "ports": [{"name": "data", "port": address.port()}],
            "endpoints": [{
                "addresses": [address.ip().to_string()],
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": uid, "uid": uid},
            }],
        })
    };
    pods.iter().enumerate().map(slice).collect()
}
