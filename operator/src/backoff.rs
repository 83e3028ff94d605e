//! Delay per object: kube gives no attempt count, so failures are counted here.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use portolan_crds::conditions::reasons;

use crate::{
    error::{Class, Error},
    requeue::Key,
};

/// First delay.
const FIRST: Duration = Duration::from_secs(1);
/// Longest delay.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Longest delay after what can be over any moment without any news of it.
const LONGEST_UNWATCHED: Duration = Duration::from_secs(30);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<Key, u32>>);

impl Backoff {
    /// How long to wait after `error` on `object`.
    pub fn after(&self, object: &Key, error: &Error) -> Duration {
        match error.class {
            Class::Waiting(after) => {
                self.reset(object);
                after
            }
            Class::Transient | Class::Stalled => {
                let mut failures = self.lock();
                let failures = failures.entry(object.clone()).or_default();
                let delay = delay(*failures).min(longest(error));
                *failures = failures.saturating_add(1);
                delay
            }
        }
    }

    /// `object` succeeded, or is gone.
    pub fn reset(&self, object: &Key) {
        self.lock().remove(object);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A foreign object goes away, a quota is freed, an admission policy is mended, an API server comes back: none of that is
/// watched.
fn longest(error: &Error) -> Duration {
    match error.reason {
        reasons::FOREIGN_OBJECT | reasons::INVALID | reasons::API_SERVER_ERROR | reasons::FORBIDDEN => {
            LONGEST_UNWATCHED
        }
        _ => LONGEST,
    }
}

/// Doubles from one second to five minutes.
fn delay(failures: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_start_again_after_a_success() {
        let backoff = Backoff::default();
        let error = Error::transient(reasons::CONFLICT, "someone was faster");
        let delays: Vec<u64> = (0..11).map(|_| backoff.after(&key("a"), &error).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.after(&key("b"), &error).as_secs(), 1);
        backoff.reset(&key("a"));
        assert_eq!(backoff.after(&key("a"), &error).as_secs(), 1);
    }

    #[test]
    fn what_ends_without_news_is_looked_at_every_half_minute_at_least() {
        let backoff = Backoff::default();
        for reason in [reasons::FOREIGN_OBJECT, reasons::INVALID, reasons::API_SERVER_ERROR, reasons::FORBIDDEN] {
            let longest = (0..20).map(|_| backoff.after(&key(reason), &Error::stalled(reason, "no"))).max();
            assert_eq!(longest, Some(Duration::from_secs(30)), "{reason}");
        }
    }

    #[test]
    fn waiting_takes_as_long_as_it_says_and_does_not_count_as_a_failure() {
        let backoff = Backoff::default();
        let waiting = Error::waiting(Duration::from_secs(7), "Pending", "starting");
        let stalled = Error::stalled("Invalid", "no");
        assert_eq!(backoff.after(&key("a"), &stalled).as_secs(), 1);
        assert_eq!(backoff.after(&key("a"), &waiting).as_secs(), 7);
        assert_eq!(backoff.after(&key("a"), &stalled).as_secs(), 1);
    }
}
