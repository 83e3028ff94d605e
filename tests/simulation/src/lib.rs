//! What Portolan promises to clients of both eras, under every order of events that a seed can think of: two gateway
//! replicas, two servers of either era, one of which runs elsewhere behind relays, whose pods come, go, drain and inherit
//! each other's addresses, clients of either era, of one server and of all as one, who lose connections and come back
//! elsewhere, or never.
//!
//! Nothing here does I/O or reads a clock. What decides is what ships: [`portolan_mcp::session::Session`],
//! [`portolan_mcp::modern::Mux`] and [`portolan_mcp::translate`] at the bridge, [`portolan_mcp::aggregate::Seek`] at the
//! gateway's endpoint of all servers, names of sessions, of their parts and of parked calls, MACs, and the routes that
//! [`portolan_snapshot::compile()`] makes. A schedule is a seed: the same seed is the same run, to the last step.

#![allow(clippy::expect_used, reason = "a panic is the report")]

mod client;
mod cluster;
mod network;
mod parts;
mod pod;
mod replica;
mod run;
mod server;
mod tally;
mod wire;
mod world;

pub use tally::{Seen, Tally};
pub use world::run;
