//! Gateways in this process, serving from objects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_gateway::{Bound, Bounds, Config, Drain, Source};
use portolan_snapshot::Inputs;
pub use portolan_tests::objects::{ALICE, BOB, MAC_KEY, OTHER_ROUTE, Objects, ROUTE, STREAM_KEY};
use portolan_tests::panics::{self, Watch};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::{Client, until};

/// A gateway in this process.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    inputs: watch::Sender<Option<Arc<Inputs>>>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _panics: Watch,
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
        let inputs = watch::Sender::new(None);
        Self { address, admin, inputs, shutdown: Some(shutdown), task, _panics: panics::watch() }
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
