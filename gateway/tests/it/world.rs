//! Objects as an API server would have them, and gateways that serve from them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use portolan_gateway::{Bound, Bounds, Config, Drain, Source};
use portolan_policy::api_key::Hash;
use portolan_snapshot::Inputs;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::bridge::Bridge;
use crate::client::{Client, until};

pub const MAC_KEY: [u8; 32] = [7; 32];
pub const STREAM_KEY: [u8; 32] = [8; 32];
pub const ALICE: &str = "ptl_alice";
pub const BOB: &str = "ptl_bob";
pub const ROUTE: &str = "/default/everything/mcp";
pub const OTHER_ROUTE: &str = "/default/other/mcp";

/// Pods as (UID, address, revision, ready, serving, terminating).
type Pods = Vec<(String, SocketAddr, String, bool, bool, bool)>;

/// What a test may change of the objects.
pub struct Objects {
    pub gateway: Value,
    pub server: Value,
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
    pub fn new(bridges: &[&Bridge]) -> Self {
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
    pub fn of(servers: &[(&'static str, &[&Bridge])]) -> Self {
        let servers = servers.iter().map(|(name, bridges)| (*name, Some(pods(bridges)))).collect();
        Self { servers, ..Self::new(&[]) }
    }

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

fn pods(bridges: &[&Bridge]) -> Pods {
    let pod = |bridge: &&Bridge| (bridge.uid.clone(), bridge.address, "everything-aaaaaaaa".into(), true, true, false);
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

/// A gateway in this process.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    inputs: watch::Sender<Option<Arc<Inputs>>>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

pub fn config() -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: Some(([127, 0, 0, 1], 0).into()),
        bounds: Bounds::default(),
        drain: Drain { delay: Duration::ZERO, timeout: Duration::from_secs(10) },
    }
}

impl Gateway {
    pub async fn start(objects: &Objects) -> Self {
        Self::start_with(config(), Some(objects.inputs())).await
    }

    pub async fn start_with(config: Config, inputs: Option<Arc<Inputs>>) -> Self {
        let is_loaded = inputs.is_some();
        let (sender, latest) = watch::channel(inputs);
        let gateway = Self { inputs: sender, ..Self::start_from(config, Source::Channel(latest)).await };
        if is_loaded {
            gateway.until_ready().await;
        }
        gateway
    }

    /// Starts it on another source than what [`Self::load`] says.
    pub async fn start_from(config: Config, source: Source) -> Self {
        let bound = Bound::new(config).await.expect("ports");
        let (address, admin) = (bound.address().expect("bound"), bound.admin_address().expect("bound"));
        let (shutdown, wanted) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                // A dropped sender means that the test is over.
                let _ended = wanted.await;
            };
            bound.run(source, shutdown).await.expect("runs");
        });
        Self { address, admin, inputs: watch::Sender::new(None), shutdown: Some(shutdown), task }
    }

    pub async fn until_ready(&self) {
        until("the gateway is ready", async || self.admin().get("/readyz").await.status == 200).await;
    }

    /// A client with Alice's key.
    pub fn client(&self) -> Client {
        Client::new(self.address).key(ALICE)
    }

    pub fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    /// Swaps the configuration and waits until it is served.
    pub async fn load(&self, inputs: Arc<Inputs>) {
        let generation = self.metric("portolan_gateway_config_generation").await;
        self.inputs.send_replace(Some(inputs));
        until("the inputs are served", async || self.metric("portolan_gateway_config_generation").await > generation)
            .await;
    }

    /// The value of one series; 0 where there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin().get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Tells the gateway to end.
    pub fn shut_down(&mut self) {
        self.shutdown.take().expect("once").send(()).expect("runs");
    }

    /// Waits until it has.
    pub async fn ended(self) {
        self.task.await.expect("no panic");
    }
}
