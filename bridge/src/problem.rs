//! What is wrong with a server.

use std::time::Duration;

use portolan_mcp::wire::ProbeReason;

use crate::kept::Over;
use crate::link::How;
use crate::peer::Peer;
use crate::rpc::CallError;

/// A verdict against the server.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) reason: ProbeReason,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: ProbeReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The problem behind a call that got no answer; `late` is what a timeout means here.
    pub(crate) fn of(error: CallError, late: ProbeReason, waited: Duration, what: &str) -> Self {
        match error {
            CallError::TimedOut => {
                Self::new(late, format!("the server did not answer {what} within {} ms", waited.as_millis()))
            }
            CallError::Over(Over::Ended(end)) => {
                let reason = match &end.how {
                    How::NotStarted(_) => ProbeReason::SpawnFailed,
                    How::Exited { .. } | How::Disconnected(_) => ProbeReason::ServerExited,
                    How::Unreachable(error) => error.probe_reason(),
                    How::NotSse(_) => ProbeReason::NotMcp,
                };
                Self::new(reason, end.describe())
            }
            CallError::Over(Over::ClosedStdout) => {
                Self::new(ProbeReason::NotMcp, "the server closed its stdout, where it should answer")
            }
            CallError::Over(Over::TooLong(error)) => Self::new(ProbeReason::NotMcp, error),
            CallError::Unreachable(reason, error) => Self::new(reason, error),
            CallError::SessionGone => {
                Self::new(ProbeReason::ServerExited, "the server no longer knows the probe's session (HTTP status 404)")
            }
            CallError::NotMcp(error) => Self::new(ProbeReason::NotMcp, error),
        }
    }
}

/// `initialize` got no answer in the time that was `waited`.
pub(crate) fn silence(peer: &Peer, waited: Duration) -> Problem {
    let (voice, waited) = (peer.voice(), waited.as_millis());
    match peer.garbage() {
        Some(line) => Problem::new(
            ProbeReason::NotMcp,
            format!("no answer to initialize within {waited} ms, and what came on {voice} is not MCP: {line}"),
        ),
        None => Problem::new(
            ProbeReason::HandshakeTimeout,
            format!("the server did not answer initialize within {waited} ms, and nothing came on {voice}"),
        ),
    }
}

/// `tools/list` was not answered as it should be.
pub(crate) fn tools_failed(message: String) -> Problem {
    Problem::new(ProbeReason::ToolsListFailed, message)
}
