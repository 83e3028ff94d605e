//! The threads of a process that serves.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// How often a thread looks after what waits for any of them. With more connections than a thread has places for, the rest
/// wait there, and behind everything that comes after them unless they have every second turn.
const SHARED_TURN: u32 = 2;

/// A runtime with as many threads as this process has cores.
///
/// # Errors
/// The system gives it no threads, or nothing to wait for sockets with.
pub fn runtime() -> io::Result<Runtime> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    // A single thread has nobody to share its work with, and does without what sharing takes.
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().global_queue_interval(SHARED_TURN).build()
}
