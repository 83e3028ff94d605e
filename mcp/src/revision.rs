//! Protocol revisions and their eras.

use serde::{Deserialize, Serialize};

/// The newest legacy revision: the one a gateway's clients are served in, and the one the bridge asks servers for.
pub const LATEST_LEGACY: &str = "2025-11-25";

/// The revision an HTTP client speaks when it names none (2025-11-25, "Protocol Version Header").
pub const ASSUMED_WITHOUT_HEADER: &str = "2025-03-26";

/// The only revision with batches: what introduced them was undone by the next one (2025-06-18, "Key Changes").
pub const BATCHING: &str = "2025-03-26";

/// Revisions with `initialize` and sessions, oldest first.
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The first revision whose clients expect a stream to begin with an event that only has an id (2025-11-25, "Streamable
/// HTTP"); clients of older ones may take the empty data for a broken message.
const PRIMED_SINCE: &str = "2025-11-25";

/// Revisions without sessions, oldest first.
pub const MODERN: [&str; 1] = ["2026-07-28"];

/// The `_meta` member that makes a request a modern one (2026-07-28, "Per-request metadata").
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Whether `revision` is one that opens with `initialize`.
#[must_use]
pub fn is_legacy(revision: &str) -> bool {
    LEGACY.contains(&revision)
}

/// Whether streams to a client of `revision` begin with an event that only has an id.
#[must_use]
pub fn is_primed(revision: &str) -> bool {
    // Revisions are dates, so their order is that of their text.
    is_legacy(revision) && revision >= PRIMED_SINCE
}

/// Every revision that clients are served in, the newest first.
pub fn served() -> impl Iterator<Item = &'static str> {
    // Of the oldest, HTTP had another shape: no client of it can arrive here.
    MODERN.iter().rev().chain(LEGACY.iter().skip(1).rev()).copied()
}

/// How a server or client opens a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Era {
    /// `initialize` first, then a session.
    Legacy,
    /// Every request stands alone and names its revision.
    Modern,
    /// A server that answers either.
    Both,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_that_know_of_priming_events_get_them() {
        let primed: Vec<&str> = LEGACY.into_iter().filter(|revision| is_primed(revision)).collect();
        assert_eq!(primed, ["2025-11-25"]);
        assert!(!is_primed("2026-07-28") && !is_primed("9999-12-31") && !is_primed(""));
    }
}
