//! What a gateway promises, from the client's side: a real gateway on loopback in front of an upstream that checks
//! every MAC and writes down whatever reaches it.

#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub, reason = "a panic is the report")]

mod admin;
mod aggregate;
mod aggregate_changes;
mod aggregate_sessions;
mod aggregate_trouble;
mod asleep;
mod batches;
mod bounds;
mod bridge;
mod budgets;
mod checks;
mod client;
mod client_http2;
#[cfg(feature = "kube")]
mod crowds;
mod drain;
mod endpoints;
mod eras;
mod frames;
mod handles;
mod http1_bounds;
mod http2;
mod http2_bounds;
mod identity;
#[cfg(feature = "kube")]
mod idle;
#[cfg(feature = "kube")]
mod last_good;
mod log;
#[cfg(feature = "kube")]
mod memory;
mod modern;
mod offers;
mod outliers;
#[path = "../../../tests/support/ports.rs"]
mod ports;
mod real_bridge;
mod refusals;
#[cfg(feature = "kube")]
mod replicas;
mod sessions;
mod shares;
#[cfg(feature = "kube")]
mod slow;
mod smuggling;
mod tenants;
mod toolsets;
mod world;
