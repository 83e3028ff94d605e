//! How a revision is, as its condition on an `MCPServer` would say.

use portolan_crds::conditions::reasons;
use portolan_mcp::wire::{ProbeReason, ProbeState, ProbeStatus, ServerFound};

/// How a revision is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether the probe session answers.
    pub(super) ready: bool,
    /// The condition's reason.
    pub(super) reason: &'static str,
    /// The reason in words; empty when there is nothing to say.
    pub(super) message: String,
    /// How many tools it has, once it said so.
    pub(super) tools: Option<u32>,
    /// What it said of itself.
    pub(super) server: Option<ServerFound>,
}

impl Health {
    /// No verdict yet.
    pub(super) fn pending() -> Self {
        Self { ready: false, reason: reasons::PENDING, message: String::new(), tools: None, server: None }
    }

    /// It does not work.
    pub(super) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), ..Self::pending() }
    }

    /// What the bridge's probe found.
    pub(super) fn of_probe(probe: &ProbeStatus) -> Self {
        let reason = match probe.state {
            ProbeState::Ready => reasons::READY,
            ProbeState::Starting => reasons::PENDING,
            ProbeState::Failing => probe.reason.map_or(reasons::PENDING, ProbeReason::as_str),
        };
        Self {
            ready: probe.state == ProbeState::Ready,
            reason,
            message: probe.message.clone(),
            tools: probe.tools.as_ref().map(|tools| tools.count),
            server: probe.server.clone(),
        }
    }
}
