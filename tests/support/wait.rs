//! Waiting for a condition, with what was seen last when it does not come.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a pod to be pulled, started and verified on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks `check` until it gives a value, and returns it with how long that took.
///
/// # Panics
/// The condition did not come within `limit`; the message carries what `check` said last.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        let last = match check().await {
            Ok(value) => return value,
            Err(why) => why,
        };
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}; last seen: {last}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
