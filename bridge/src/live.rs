//! What the registry of sessions holds, whichever era its client speaks.

use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::failure::Failure;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::ExitCause;

use crate::caller::CallerSession;
use crate::link::Link;
use crate::session::ClientSession;

/// Something with a link of its own.
#[derive(Clone, Debug)]
pub(crate) enum Live {
    /// A client's session.
    Client(Arc<ClientSession>),
    /// What is kept for a caller without one.
    Caller(Arc<CallerSession>),
}

impl Live {
    pub(crate) fn key(&self) -> &SessionKey {
        match self {
            Self::Client(session) => &session.named.key,
            Self::Caller(caller) => &caller.key,
        }
    }

    /// Whose it is, where that is known.
    pub(crate) fn owner(&self) -> Option<&SessionKey> {
        match self {
            Self::Client(session) => session.named.owner.as_ref(),
            Self::Caller(caller) => caller.owner.as_ref(),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        match self {
            Self::Client(session) => &session.link,
            Self::Caller(caller) => &caller.link,
        }
    }

    pub(crate) fn end(&self, cause: ExitCause, failure: Failure) {
        match self {
            Self::Client(session) => session.end(cause, failure),
            Self::Caller(caller) => caller.end(cause, failure),
        }
    }

    /// Ends it when nobody has used it for `limit`.
    pub(crate) fn end_if_idle(&self, limit: Duration, failure: Failure) {
        match self {
            Self::Client(session) if session.idle_for().is_some_and(|idle| idle >= limit) => {
                session.end(ExitCause::Idle, failure);
            }
            Self::Client(_) => {}
            Self::Caller(caller) => caller.end_if_idle(limit, failure),
        }
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client(one), Self::Client(other)) => Arc::ptr_eq(one, other),
            (Self::Caller(one), Self::Caller(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// How long nobody has used it; `None` while something is under way.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        match self {
            Self::Client(session) => session.idle_for(),
            Self::Caller(caller) => caller.idle_for(),
        }
    }

    /// Completes when it has ended.
    pub(crate) async fn over(&self) {
        match self {
            Self::Client(session) => session.over().await,
            Self::Caller(caller) => caller.over().await,
        }
    }
}
