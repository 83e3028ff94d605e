//! What sessions promise, under every order of events that a seed can think of: two gateway replicas, two servers whose
//! pods come, go, drain and inherit each other's addresses, clients that lose connections and come back elsewhere.
//!
//! Nothing here does I/O or reads a clock. What decides is what ships: [`portolan_mcp::session::Session`] at the bridge,
//! session tokens, MACs, and the routes that [`portolan_snapshot::compile()`] makes. A schedule is a seed: the same seed
//! is the same run, to the last step.

#![allow(clippy::expect_used, reason = "a panic is the report")]

mod client;
mod cluster;
mod network;
mod pod;
mod process;
mod replica;
mod wire;
mod world;

pub use world::{Tally, run};
