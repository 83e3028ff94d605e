//! A gateway in front of one server that stands where a pod with its bridge would: what the gateway alone costs.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use portolan_gateway::{Bounds, Config, Drain, Source};
use portolan_mcp::mac::KEY_LEN;
use portolan_policy::api_key::Hash;
use portolan_snapshot::Inputs;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Between gateway and bridge; it guards nothing here.
pub(super) const MAC_KEY: [u8; KEY_LEN] = [0x42; KEY_LEN];
/// The one caller's.
pub(super) const API_KEY: &str = "ptl_bench";
/// The one pod's UID.
pub(super) const POD: &str = "pod-server-0";
/// Where the first server is served.
pub(super) const PATH: &str = "/default/server-0/mcp";
/// Where the second one is, if there is one.
pub(super) const SECOND_PATH: &str = "/default/server-1/mcp";

/// What is started.
#[derive(Args, Debug)]
pub(crate) struct AloneArgs {
    /// Where clients are served
    #[arg(long)]
    listen: SocketAddr,
    /// Where bridges, or what stands there, listen
    #[arg(long)]
    pod: SocketAddr,
    /// Servers, all of them in that place
    #[arg(long, default_value_t = 1)]
    servers: usize,
    /// Where the last of them is, when it is not in that place
    #[arg(long)]
    last: Option<SocketAddr>,
    /// Lets everyone in
    #[arg(long)]
    anonymous: bool,
}

/// Serves until SIGTERM.
///
/// # Errors
/// It cannot listen.
pub(crate) fn run(args: &AloneArgs) -> anyhow::Result<()> {
    // The one of the command `portolan gateway`.
    let runtime = portolan_gateway::runtime()?;
    runtime.block_on(async {
        let inputs: Inputs = serde_json::from_value(inputs(args)).context("the inputs")?;
        let (_inputs, latest) = watch::channel(Some(Arc::new(inputs)));
        // One client for each connection, and room for ten thousand that do nothing.
        let bounds = Bounds { max_connections: 20_000, max_requests: 20_000, ..Bounds::default() };
        let drain = Drain { delay: std::time::Duration::ZERO, ..Drain::default() };
        let config = Config { listen: args.listen, admin: None, bounds, drain };
        let mut terminated = signal(SignalKind::terminate())?;
        let shutdown = async move {
            terminated.recv().await;
        };
        Ok(portolan_gateway::run(config, Source::Channel(latest), shutdown).await?)
    })
}

/// The objects of a cluster with so many servers.
fn inputs(args: &AloneArgs) -> Value {
    let names: Vec<String> = (0..args.servers).map(|number| format!("server-{number}")).collect();
    let revision = |name: &str| format!("{name}-aaaaaaaa");
    let servers = names.iter().map(|name| {
        json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer",
            "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 1},
            "spec": {
                "container": {"image": "x", "transport": "Stdio", "command": ["x"]},
                "limits": {"maxParallelRequests": 20_000, "maxPendingRequests": 0},
            },
            "status": {"revisions": [{"name": revision(name), "state": "Serving", "weight": 100, "generation": 1}]},
        })
    });
    let slices = names.iter().enumerate().map(|(number, name)| {
        let pod = args.last.filter(|_| number + 1 == args.servers).unwrap_or(args.pod);
        json!({
            "metadata": {
                "namespace": "default", "name": format!("{name}-0"),
                "labels": {"portolan.dev/server": name, "portolan.dev/revision": revision(name)},
            },
            "addressType": "IPv4",
            "ports": [{"name": "data", "port": pod.port()}],
            "endpoints": [{
                "addresses": [pod.ip().to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": format!("pod-{name}"), "uid": format!("pod-{name}")},
            }],
        })
    });
    let mut secret = json!({
        "session.0": STANDARD.encode([1; 32]),
        "stream": STANDARD.encode([8; 32]),
        "apikeys.bench.bench": STANDARD.encode(Hash::of(API_KEY).to_string()),
    });
    let authentication = if args.anonymous {
        json!({"anonymous": {}})
    } else {
        json!({"apiKeys": [{"name": "bench", "secretRef": {"name": "keys"}}]})
    };
    for name in &names {
        secret[format!("server.default.{name}")] = STANDARD.encode(MAC_KEY).into();
    }
    json!({
        "gateway": {
            "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
            "metadata": {"namespace": "portolan", "name": "default", "uid": "uid-gateway", "generation": 1},
            "spec": {"authentication": authentication},
        },
        "servers": servers.collect::<Vec<_>>(),
        "slices": slices.collect::<Vec<_>>(),
        "secret": secret,
    })
}
