//! Whoever the probe talks to: a kept link, or a session of an HTTP server.

use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::wire::ExitCause;
use serde_json::Value;

use crate::http_peer::HttpPeer;
use crate::kept::{Kept, Over};
use crate::link::Opener;
use crate::process::SpawnError;
use crate::rpc::{CallError, Rpc};
use crate::state::{State, lock};

/// Makes peers, one at a time.
#[derive(Debug)]
pub(crate) struct Connector {
    opener: Opener,
    current: Option<Arc<HttpPeer>>,
}

impl Connector {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, current: None }
    }

    /// Whether a new peer costs no more than a connection.
    pub(crate) fn is_cheap(&self) -> bool {
        self.opener.is_cheap()
    }

    pub(crate) fn connect(&mut self, state: &Arc<State>) -> Result<Peer, SpawnError> {
        match &self.opener {
            // One that knows no sessions is asked over a link, which translates; and so is one that has our document, which a link adds.
            Opener::Http(server) if !state.is_sessionless() && !state.config.document => {
                let peer = Arc::new(HttpPeer::new(server.clone(), state.config.max_message_bytes));
                self.current = Some(Arc::clone(&peer));
                Ok(Peer::Http(peer))
            }
            opener => {
                let kept = Kept::open(state, opener)?;
                *lock(&state.kept) = Some(Arc::clone(&kept));
                Ok(Peer::Kept(kept))
            }
        }
    }

    pub(crate) async fn disconnect(&mut self, state: &State, cause: ExitCause) {
        let kept = lock(&state.kept).take();
        if let Some(kept) = kept {
            kept.end(cause).await;
        }
        if let Some(peer) = self.current.take() {
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
