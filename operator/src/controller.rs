//! Streams of objects to reconcile: watches, triggers, concurrency, backoff.

use std::time::Duration;

/// When to look at an object again although nothing about it changes.
///
/// A reconciler is `async fn reconcile(object: &K, ctx: &Ctx) -> Result<Next, Error>`; it writes status in both cases
/// ([`crate::status::write`] or [`crate::status::fail`]), the controller counts, logs and delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not before something changes.
    Change,
    /// After this long.
    After(Duration),
}
