//! How a replica goes away: unready first, then no new connections, then the calls in flight, streams last.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::options;

/// How long connections may take to close once nothing runs on them any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What each part of the process watches to know how far the end has come.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Unready, but serving.
    pub(crate) draining: CancellationToken,
    /// No new connections; idle ones close.
    pub(crate) closing: CancellationToken,
    /// Standing streams end. A client that has one opens it again at a replica that stays.
    pub(crate) streams: CancellationToken,
    /// Calls in flight, streams aside.
    pub(crate) calls: TaskTracker,
    /// Connections of clients.
    pub(crate) connections: TaskTracker,
    /// The admin port closes.
    pub(crate) done: CancellationToken,
}

impl Drain {
    /// Whether the replica is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Runs the steps. When it returns, calls that were still in flight have been cut off.
    pub(crate) async fn run(&self, bounds: options::Drain) {
        // Unready, but serving as before: load balancers need time to notice.
        self.draining.cancel();
        tracing::info!(delay = ?bounds.delay, "draining: not ready any more");
        tokio::time::sleep(bounds.delay).await;
        self.closing.cancel();
        self.calls.close();
        tracing::info!(calls = self.calls.len(), timeout = ?bounds.timeout, "draining: no new connections");
        if tokio::time::timeout(bounds.timeout, self.calls.wait()).await.is_err() {
            tracing::warn!(calls = self.calls.len(), "calls in flight were not answered within the drain timeout");
        }
        // Only now: a call that was in flight may have asked its client something on a stream.
        self.streams.cancel();
        self.connections.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections did not close in time");
        }
        self.done.cancel();
    }
}
