//! The ways to serve clients, chosen once at start.

use std::sync::{Arc, Weak};

use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::SessionCounts;

use crate::config::Upstream;
use crate::link::Opener;
use crate::memory;
use crate::peer::Connector;
use crate::relay::Relay;
#[cfg(feature = "tls")]
use crate::remote::Transport;
use crate::sessions::Sessions;
use crate::shared::Shared;
use crate::state::{Held, State};
use crate::upstream::Server;

/// What stands behind the data port.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) way: Way,
    /// Links of clients' own, and of callers who have no session.
    pub(crate) sessions: Arc<Sessions>,
    /// Whether it is one streamable HTTP server that all of them are with.
    is_http: bool,
}

/// How clients with sessions are served.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// One link per session.
    Links,
    /// One link for all.
    Shared(Arc<Shared>),
    /// A streamable HTTP server, whose answers are relayed.
    Http(Arc<Relay>),
}

impl Backend {
    pub(crate) fn start(state: &Arc<State>, upstream: Upstream) -> (Self, Connector) {
        match upstream {
            Upstream::Stdio(command) => Self::over_links(state, Opener::Process(command)),
            Upstream::Sse(endpoint) => Self::over_links(state, Opener::Sse(Server::new(endpoint))),
            Upstream::Http(endpoint) => Self::over_http(state, Server::new(endpoint)),
            #[cfg(feature = "tls")]
            Upstream::Remote(remote) => match remote.transport {
                Transport::StreamableHttp => Self::over_http(state, Server::elsewhere(*remote)),
                Transport::Sse => Self::over_links(state, Opener::Sse(Server::elsewhere(*remote))),
            },
        }
    }

    fn over_links(state: &Arc<State>, opener: Opener) -> (Self, Connector) {
        let connector = Connector::new(opener.clone());
        let is_http = matches!(opener, Opener::Http(_));
        let starts_processes = matches!(opener, Opener::Process(_));
        let sessions = Sessions::start(state, opener, Box::new(|_| Held::default()));
        if let Some(dir) = state.config.cgroup.clone().filter(|_| starts_processes) {
            // The server's processes share its memory; an HTTP server has a container of its own.
            tokio::spawn(memory::watch(Arc::clone(state), Arc::clone(&sessions), dir));
        }
        let way = if state.config.sessions.stateless { Way::Shared(Arc::new(Shared::new(state))) } else { Way::Links };
        (Self { way, sessions, is_http }, connector)
    }

    fn over_http(state: &Arc<State>, server: Server) -> (Self, Connector) {
        if state.config.document {
            // What is relayed passes as it is; a link is where something of ours can stand.
            return Self::over_links(state, Opener::Http(server));
        }
        let relay = Relay::start(state, server.clone());
        let of_relay: Weak<Relay> = Arc::downgrade(&relay);
        let beside = move |caller: Option<&SessionKey>| {
            of_relay.upgrade().map_or_else(Held::default, |relay| relay.held(caller))
        };
        let opener = Opener::Http(server);
        let sessions = Sessions::start(state, opener.clone(), Box::new(beside));
        relay.beside(&sessions);
        (Self { way: Way::Http(relay), sessions, is_http: true }, Connector::new(opener))
    }

    /// Ends what is open with a server over HTTP, in whose place one of the other era has come.
    pub(crate) fn end_replaced(&self) {
        if let Way::Http(relay) = &self.way {
            relay.end_replaced();
        }
        if self.is_http {
            self.sessions.end_replaced();
        }
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        let counts = self.sessions.counts();
        match &self.way {
            Way::Links => counts,
            // What is kept for everyone is nobody's session.
            Way::Shared(_) => SessionCounts { active: 0, ..counts },
            Way::Http(relay) => SessionCounts {
                active: counts.active.saturating_add(u32::try_from(relay.held(None).all).unwrap_or(u32::MAX)),
                ..counts
            },
        }
    }

    /// Calls that wait for the server and belong to no session that is counted.
    pub(crate) fn in_flight(&self) -> usize {
        match &self.way {
            Way::Links => 0,
            Way::Shared(shared) => shared.in_flight() + self.sessions.busy(),
            Way::Http(relay) => relay.in_flight(),
        }
    }

    /// Whether anything would break off if the bridge ended now. What is kept for a caller without a session does not,
    /// while nothing of it is under way.
    pub(crate) fn is_busy(&self) -> bool {
        let relayed = match &self.way {
            Way::Links | Way::Shared(_) => 0,
            Way::Http(relay) => relay.held(None).all,
        };
        relayed > 0 || self.sessions.busy() > 0 || self.in_flight() > 0
    }

    /// Ends every session and waits for what it held.
    pub(crate) async fn end_all(&self) {
        // The kept link is the probe's to end.
        self.sessions.end_all().await;
        if let Way::Http(relay) = &self.way {
            relay.end_all().await;
        }
    }
}
