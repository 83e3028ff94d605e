//! One gateway process: what its requests share, and its life from bind to drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::admin;
use crate::aggregate::{Catalog, Placed, Views};
use crate::authenticate::Authenticator;
use crate::body::Incoming;
use crate::budget::Budget;
use crate::drain::Drain;
use crate::limit::Gate;
use crate::listen::Listener;
use crate::metrics::Metrics;
use crate::options::{Bounds, Config};
use crate::source::{self, Source};
use crate::stack;
use crate::state::State;

/// Connections of the admin port: probes, a scraper or two, the operator with its checks.
const MAX_ADMIN_CONNECTIONS: usize = 256;

/// How long clients wait for the first configuration: somewhat longer than it takes until what was kept on disk is served.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(5);

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The metrics contradict each other: a fault of ours.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The key that seals the last good inputs cannot be used.
    #[cfg(feature = "kube")]
    #[error(transparent)]
    Seal(#[from] crate::config::SealError),
}

/// What every request of a process shares.
pub(crate) struct Gateway {
    pub(crate) state: State,
    pub(crate) authenticator: Authenticator,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Gate,
    pub(crate) budget: Arc<Budget>,
    pub(crate) catalog: Catalog,
    pub(crate) views: Views,
    pub(crate) placed: Placed,
    pub(crate) bounds: Bounds,
    pub(crate) drain: Drain,
}

impl Gateway {
    fn clients(&self, socket: TcpListener, bounds: Bounds) -> Listener {
        Listener {
            name: "http",
            socket,
            bounds,
            leaving: self.drain.draining.clone(),
            closing: self.drain.closing.clone(),
            connections: self.drain.connections.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Waits for the first configuration, but not for ever. Whoever connects before waits with it, who would be told to try again: while
    /// the API server is away nobody tells a Service that a replica has just started.
    async fn configured(&self) {
        let mut loaded = self.state.reports();
        let first = loaded.wait_for(Option::is_some);
        if tokio::time::timeout(FIRST_CONFIGURATION, first).await.is_err() {
            tracing::warn!("there is no configuration yet: clients are told to try again");
        }
    }

    /// Open until the very end: probes and the operator see how the drain goes.
    fn admin(&self, socket: TcpListener, bounds: Bounds) -> Listener {
        Listener {
            name: "admin",
            socket,
            bounds: Bounds { max_connections: MAX_ADMIN_CONNECTIONS, ..bounds },
            leaving: self.drain.done.clone(),
            closing: self.drain.done.clone(),
            connections: TaskTracker::new(),
            metrics: self.metrics.clone(),
        }
    }
}

/// A gateway that listens, but does not serve yet.
pub struct Bound {
    config: Config,
    socket: TcpListener,
    admin: Option<TcpListener>,
}

impl Bound {
    /// Takes the addresses of `config`.
    ///
    /// # Errors
    /// One of them cannot be listened on.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let socket = listen(config.listen).await?;
        let admin = match config.admin {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { config, socket, admin })
    }

    /// Where clients are served; with a port even where the configuration left that to the system.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    /// Serves what `source` says until `shutdown`, then drains.
    ///
    /// # Errors
    /// Something that is needed from the start is not there.
    pub async fn run(self, source: Source, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let bounds = self.config.bounds;
        let budget = Budget::new(bounds.max_buffered_bytes, metrics.clone());
        let gateway = Arc::new(Gateway {
            state: State::new(budget.clone(), bounds.max_buffered_bytes_per_server),
            authenticator: source::authenticator(&source, &metrics),
            gate: Gate::new(bounds.max_requests, metrics.clone()),
            budget,
            catalog: Catalog::default(),
            views: Views::new(bounds.lists_interval),
            placed: Placed::new(),
            bounds,
            drain: Drain::default(),
            metrics,
        });
        // Configuration is followed to the end: sessions that drain need to know where their pods are.
        let _source = source::start(source, &gateway)?;
        let clients = gateway.clients(self.socket, self.config.bounds);
        let _clients = AbortOnDropHandle::new(tokio::spawn({
            let gateway = gateway.clone();
            async move {
                gateway.configured().await;
                clients
                    .serve(move |peer, request| stack::serve(gateway.clone(), peer, request.map(Incoming::Stream)))
                    .await;
            }
        }));
        let _admin = self.admin.map(|socket| {
            let listener = gateway.admin(socket, self.config.bounds);
            let gateway = gateway.clone();
            AbortOnDropHandle::new(tokio::spawn(
                listener.serve(move |peer, request| admin::serve(gateway.clone(), peer, request)),
            ))
        });
        shutdown.await;
        gateway.drain.run(self.config.drain).await;
        Ok(())
    }
}

/// Runs a gateway from start to drained.
///
/// # Errors
/// It cannot start.
pub async fn run(config: Config, source: Source, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    Bound::new(config).await?.run(source, shutdown).await
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, error })
}
