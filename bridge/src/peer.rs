//! Whoever the probe talks to: a kept link, or a session of an HTTP server.

use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::revision::Era;
use portolan_mcp::wire::ExitCause;
use serde_json::Value;

use crate::http_peer::HttpPeer;
use crate::kept::{Kept, Over};
use crate::link::Opener;
use crate::probe::{CallError, Rpc};
use crate::process::SpawnError;
use crate::state::{State, lock};
use crate::upstream::Server;

/// Makes peers, one at a time.
#[derive(Debug)]
pub(crate) enum Connector {
    Link(Opener),
    /// A server that knows no sessions is asked over a link, which translates.
    Http(Box<Http>),
}

/// A streamable HTTP server, and who talks to it now.
#[derive(Debug)]
pub(crate) struct Http {
    server: Server,
    current: Option<Arc<HttpPeer>>,
    opener: Opener,
}

impl Connector {
    pub(crate) fn link(opener: Opener) -> Self {
        Self::Link(opener)
    }

    pub(crate) fn http(server: Server, opener: Opener) -> Self {
        Self::Http(Box::new(Http { server, current: None, opener }))
    }

    /// Whether a new peer costs no more than a connection.
    pub(crate) fn is_cheap(&self) -> bool {
        match self {
            Self::Link(opener) => opener.is_cheap(),
            Self::Http(_) => true,
        }
    }

    pub(crate) fn connect(&mut self, state: &Arc<State>) -> Result<Peer, SpawnError> {
        match self {
            Self::Link(opener) => Self::keep(state, opener),
            Self::Http(http) if *state.era.borrow() == Some(Era::Modern) => Self::keep(state, &http.opener),
            Self::Http(http) => {
                let peer = Arc::new(HttpPeer::new(http.server.clone(), state.config.max_message_bytes));
                http.current = Some(Arc::clone(&peer));
                Ok(Peer::Http(peer))
            }
        }
    }

    fn keep(state: &Arc<State>, opener: &Opener) -> Result<Peer, SpawnError> {
        let kept = Kept::open(state, opener)?;
        *lock(&state.kept) = Some(Arc::clone(&kept));
        Ok(Peer::Kept(kept))
    }

    pub(crate) async fn disconnect(&mut self, state: &State, cause: ExitCause) {
        let kept = lock(&state.kept).take();
        if let Some(kept) = kept {
            kept.end(cause).await;
        }
        if let Self::Http(http) = self
            && let Some(peer) = http.current.take()
        {
            peer.close().await;
        }
    }
}

/// One opened conversation.
#[derive(Debug)]
pub(crate) enum Peer {
    Kept(Arc<Kept>),
    Http(Arc<HttpPeer>),
}

impl Peer {
    pub(crate) async fn request(&self, method: &str, params: &str, timeout: Duration) -> Result<Rpc, CallError> {
        match self {
            Self::Kept(kept) => kept.request(method, params, timeout).await,
            Self::Http(peer) => peer.request(method, params, timeout).await,
        }
    }

    /// `initialize` was answered with `result`, which names `revision`.
    pub(crate) async fn opened(&self, result: &Value, revision: &str, timeout: Duration) {
        match self {
            Self::Kept(kept) => kept.opened(result),
            Self::Http(peer) => peer.opened(revision, timeout).await,
        }
    }

    /// Where the server's messages come, in words.
    pub(crate) fn voice(&self) -> &'static str {
        match self {
            Self::Kept(kept) => kept.voice(),
            Self::Http(_) => "HTTP",
        }
    }

    /// The first line that was not MCP, shortened.
    pub(crate) fn garbage(&self) -> Option<String> {
        match self {
            Self::Kept(kept) => kept.garbage(),
            Self::Http(_) => None,
        }
    }

    /// Completes when nothing more will come.
    pub(crate) async fn over(&self) -> Over {
        match self {
            Self::Kept(kept) => kept.over().await,
            Self::Http(_) => std::future::pending().await,
        }
    }
}
