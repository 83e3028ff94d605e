//! The three ways to serve sessions, chosen once at start.

use std::sync::Arc;

use portolan_mcp::wire::SessionCounts;

use crate::config::Upstream;
use crate::link::Opener;
use crate::memory;
use crate::peer::Connector;
use crate::relay::Relay;
use crate::sessions::Sessions;
use crate::shared::Shared;
use crate::state::State;
use crate::upstream::Server;

/// What stands behind the data port.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// One link per session.
    Links(Arc<Sessions>),
    /// One link for all.
    Shared(Arc<Shared>),
    /// A streamable HTTP server.
    Http(Arc<Relay>),
}

impl Backend {
    pub(crate) fn start(state: &Arc<State>, upstream: Upstream) -> (Self, Connector) {
        match upstream {
            Upstream::Stdio(command) => Self::over_links(state, Opener::Process(command)),
            Upstream::Sse(endpoint) => Self::over_links(state, Opener::Sse(Server::new(endpoint))),
            Upstream::Http(endpoint) => {
                let server = Server::new(endpoint);
                (Self::Http(Relay::start(state, server.clone())), Connector::http(server))
            }
        }
    }

    fn over_links(state: &Arc<State>, opener: Opener) -> (Self, Connector) {
        let connector = Connector::link(opener.clone());
        if state.config.sessions.stateless {
            watch_memory(state, None);
            return (Self::Shared(Arc::new(Shared::new(state))), connector);
        }
        let sessions = Sessions::start(state, opener);
        watch_memory(state, Some(Arc::clone(&sessions)));
        (Self::Links(sessions), connector)
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        match self {
            Self::Links(sessions) => sessions.counts(),
            Self::Shared(shared) => shared.counts(),
            Self::Http(relay) => relay.counts(),
        }
    }

    /// Calls that wait for the server and belong to no session that is counted.
    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Links(_) => 0,
            Self::Shared(shared) => shared.in_flight(),
            Self::Http(relay) => relay.in_flight(),
        }
    }

    /// Ends every session and waits for what it held.
    pub(crate) async fn end_all(&self) {
        match self {
            Self::Links(sessions) => sessions.end_all().await,
            // The kept link is the probe's to end.
            Self::Shared(_) => {}
            Self::Http(relay) => relay.end_all().await,
        }
    }
}

/// Watches the memory that the server's processes share; an HTTP server has a container of its own.
fn watch_memory(state: &Arc<State>, sessions: Option<Arc<Sessions>>) {
    if let Some(dir) = state.config.cgroup.clone() {
        tokio::spawn(memory::watch(Arc::clone(state), sessions, dir));
    }
}
