//! A running bridge: its two ports, its sessions and its probe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::wire::{BridgeStatus, CONTRACT, ProbeStatus, SessionCounts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Admin, without_definitions};
use crate::backend::Backend;
use crate::config::Config;
use crate::data::Data;
use crate::state::State;
use crate::{probe, server};

/// How long calls without a session may still come after the drain began.
const LINGER: Duration = Duration::from_secs(2);
/// How often a draining bridge looks whether it is empty.
const LOOK: Duration = Duration::from_millis(100);

/// Why a bridge could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken or not ours to take.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running bridge. It lives on the tokio runtime it was started on, and ends with [`Bridge::shutdown`]; dropping
/// it ends everything too, without waiting.
#[derive(Debug)]
pub struct Bridge {
    reporter: Reporter,
    data: SocketAddr,
    admin: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

/// What reports are made from.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) state: Arc<State>,
    pub(crate) backend: Backend,
}

impl Reporter {
    pub(crate) fn report(&self, definitions: bool) -> BridgeStatus {
        let probe = self.state.probe.borrow().clone();
        BridgeStatus {
            contract: CONTRACT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            probe: if definitions { ProbeStatus::clone(&probe) } else { without_definitions(&probe) },
            sessions: self.counts(),
            draining: self.state.is_draining(),
            exits: self.state.exits.read(),
            counters: self.state.counters.read(),
        }
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        self.backend.counts()
    }
}

impl Bridge {
    /// Starts a bridge with its data port on `data` and its admin port on `admin`; port 0 takes any free one.
    ///
    /// # Errors
    /// A port cannot be listened on.
    pub async fn start(config: Config, data: SocketAddr, admin: SocketAddr) -> Result<Self, StartError> {
        let (data_listener, data) = listen(data).await?;
        let (admin_listener, admin) = listen(admin).await?;
        let upstream = config.upstream.clone();
        let state = Arc::new(State::new(config));
        let (backend, connector) = Backend::start(&state, upstream);
        let reporter = Reporter { state: Arc::clone(&state), backend: backend.clone() };
        let handler = Arc::new(Data { state: Arc::clone(&state), backend: backend.clone() });
        let admin_handler = Arc::new(Admin { reporter: reporter.clone() });
        let tasks = vec![
            tokio::spawn(server::serve(data_listener, handler, state.stop.clone())),
            tokio::spawn(server::serve(admin_listener, admin_handler, state.stop.clone())),
            tokio::spawn(probe::run(Arc::clone(&state), backend, connector)),
        ];
        Ok(Self { reporter, data, admin, tasks })
    }

    /// Where the data port listens.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.data
    }

    /// Where the admin port listens.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The probe's verdict, definitions of tools included, and every change of it.
    #[must_use]
    pub fn probe(&self) -> watch::Receiver<Arc<ProbeStatus>> {
        self.reporter.state.probe.subscribe()
    }

    /// Everything the bridge knows now; `definitions` adds the tools' definitions.
    #[must_use]
    pub fn report(&self, definitions: bool) -> BridgeStatus {
        self.reporter.report(definitions)
    }

    /// Whether anything would break off if the bridge ended now: a session, or a call that has none.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.reporter.backend.is_busy()
    }

    /// Takes no new sessions from now on, and waits until the present ones ended or the drain timeout has passed. Calls
    /// without a session are taken to the end, because nobody is told to ask elsewhere: it lasts long enough for gateways
    /// to see that this pod goes. Nothing is waited for once nobody can reach it any more ([`wire::ABANDON`]).
    ///
    /// [`wire::ABANDON`]: portolan_mcp::wire::ABANDON
    pub async fn drain(&self) {
        let state = &self.reporter.state;
        state.draining.send_replace(true);
        let empty = async {
            if state.config.sessions.stateless {
                tokio::time::sleep(LINGER).await;
            }
            if self.is_busy() {
                let (sessions, calls) = (self.reporter.counts().active, self.reporter.backend.in_flight());
                tracing::info!(sessions, calls, "the drain waits for what is under way");
            }
            while self.is_busy() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let mut abandoned = state.abandoned.subscribe();
        let end = tokio::select! {
            () = empty => "nothing is under way",
            () = tokio::time::sleep(state.config.drain_timeout) => "the drain timeout has passed",
            _ = abandoned.wait_for(|abandoned| *abandoned) => "nobody can reach the sessions",
        };
        tracing::info!(end, "drained");
        state.drained.send_replace(true);
    }

    /// Ends every session, process and port, and waits until they are gone. Says what was known at the end.
    pub async fn shutdown(mut self) -> BridgeStatus {
        self.reporter.state.draining.send_replace(true);
        self.reporter.backend.end_all().await;
        self.reporter.state.drained.send_replace(true);
        self.reporter.state.stop.cancel();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the bridge failed");
            }
        }
        self.report(false)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.reporter.state.draining.send_replace(true);
        self.reporter.backend.sessions.end_now();
        self.reporter.state.stop.cancel();
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
