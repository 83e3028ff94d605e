//! Panics that nobody would see: one in a task ends that task, and the request of nobody may have been in it.

use std::panic::{Location, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Fails a test in whose process anything but a test has panicked by the time it is dropped.
#[derive(Debug)]
pub struct Watch(());

/// Notes panics of this process from now on.
#[must_use]
pub fn watch() -> Watch {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(is_of_a_test) {
                SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            before(panic);
        }));
    });
    Watch(())
}

impl Drop for Watch {
    fn drop(&mut self) {
        let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A test that fails by itself is heard of already, and a second panic would end the whole suite.
        assert!(std::thread::panicking() || seen.is_empty(), "{seen:#?}");
    }
}

/// What tests and the servers that they make say by a panic is their report.
fn is_of_a_test(location: &Location<'_>) -> bool {
    location.file().contains("tests/")
}

/// Fails a test whose process of ours has said in its log that it panicked.
///
/// # Panics
/// It has.
pub fn assert_none_in(log: &str) {
    let said: Vec<&str> =
        log.lines().filter(|line| line.starts_with("thread '") && line.contains("panicked at")).collect();
    assert!(std::thread::panicking() || said.is_empty(), "{said:#?}");
}
