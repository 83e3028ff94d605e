//! Ports of loopback for what must be told its port before it starts.
#![allow(unreachable_pub, reason = "the crates that cannot depend on this one take the file by its path")]

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what the kernel hands out by itself and what a cluster gives to its nodes: a port that is free now stays free
/// until the one who asked for it listens there.
const FIRST: u16 = 10_000;
const PORTS: u16 = 20_000;

/// A port of loopback that nobody has at the moment, and that nobody else is given before all others had their turn.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port() -> u16 {
    static TURN: AtomicU16 = AtomicU16::new(0);
    // Test binaries run beside each other: each begins elsewhere.
    let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(PORTS)).expect("below 20,000");
    (0..PORTS)
        .map(|_| FIRST + (begin + TURN.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
