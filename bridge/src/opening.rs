//! Whether the answer to `initialize` opened the session that was made for it.

use std::sync::Arc;

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
    is_open: bool,
}

impl Opening {
    pub(crate) fn new(relay: &Arc<Relay>, key: &SessionKey, session: &Arc<Session>) -> Self {
        Self { relay: Arc::clone(relay), key: key.clone(), session: Arc::clone(session), is_open: false }
    }

    /// What was `seen` of its answer.
    pub(crate) fn decide(&mut self, seen: Seen) {
        self.is_open = seen == Seen::Result;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_open {
            self.relay.never_opened(&self.key, &self.session);
        }
    }
}
