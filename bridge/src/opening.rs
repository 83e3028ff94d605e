//! Whether the answer to `initialize` opened the session that was made for it.

use std::sync::Arc;

use http::StatusCode;
use portolan_mcp::token::SessionKey;

use crate::answered::Seen;
use crate::relay::{Relay, Session};

/// A session whose `initialize` is under way. Unless that was answered with a result, the session goes with it: when the
/// client hangs up, the server says no, or nothing comes.
#[derive(Debug)]
pub(crate) struct Opening {
    relay: Arc<Relay>,
    key: SessionKey,
    session: Arc<Session>,
    is_refused: bool,
    is_open: bool,
}

impl Opening {
    pub(crate) fn new(relay: &Arc<Relay>, key: &SessionKey, session: &Arc<Session>) -> Self {
        Self {
            relay: Arc::clone(relay),
            key: key.clone(),
            session: Arc::clone(session),
            is_refused: false,
            is_open: false,
        }
    }

    /// Its answer comes under `status`: one that says no opens nothing, whatever stands below it.
    pub(crate) fn under(mut self, status: StatusCode) -> Self {
        self.is_refused = !status.is_success();
        self
    }

    /// What was `seen` of its answer so far.
    pub(crate) fn decide(&mut self, seen: Seen) {
        self.is_open = !self.is_refused && seen == Seen::Result;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_open {
            self.relay.never_opened(&self.key, &self.session);
        } else if self.session.is_to_begin() {
            tokio::spawn(Arc::clone(&self.relay).begin(Arc::clone(&self.session)));
        }
    }
}
