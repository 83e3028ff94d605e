//! Whoever the probe talks to: a kept process.

use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::wire::ExitCause;
use serde_json::Value;

use crate::config::ServerCommand;
use crate::kept::{Kept, Over};
use crate::probe::{CallError, Rpc};
use crate::process::SpawnError;
use crate::state::State;

/// Makes peers, one at a time.
#[derive(Debug)]
pub(crate) struct Connector {
    command: ServerCommand,
    current: Option<Arc<Kept>>,
}

impl Connector {
    pub(crate) fn new(command: ServerCommand) -> Self {
        Self { command, current: None }
    }

    pub(crate) fn connect(&mut self, state: &Arc<State>) -> Result<Peer, SpawnError> {
        let kept = Kept::spawn(state, &self.command)?;
        self.current = Some(Arc::clone(&kept));
        Ok(Peer(kept))
    }

    pub(crate) async fn disconnect(&mut self, cause: ExitCause) {
        if let Some(kept) = self.current.take() {
            kept.end(cause).await;
        }
    }
}

/// One opened conversation.
#[derive(Debug)]
pub(crate) struct Peer(Arc<Kept>);

impl Peer {
    pub(crate) async fn request(&self, method: &str, params: &str, timeout: Duration) -> Result<Rpc, CallError> {
        self.0.request(method, params, timeout).await
    }

    /// `initialize` was answered with `result`.
    pub(crate) async fn opened(&self, _result: &Value, _revision: &str) {
        self.0.notify("notifications/initialized");
    }

    pub(crate) fn garbage(&self) -> Option<String> {
        self.0.garbage()
    }

    pub(crate) async fn over(&self) -> Over {
        self.0.over().await
    }
}
