//! The operator: reconciles `MCPServer` and `MCPGateway` objects.
//!
//! A reconcile is five steps: dereference (all reads), validate, build (both pure), apply, status. [`apply`] is the
//! only writer of children, [`status`] the only writer of status, and both only while this process holds the lease.

pub mod admin;
pub mod analysis;
pub mod apply;
pub mod backoff;
pub mod bridge_client;
pub mod canaries;
pub mod cluster;
pub mod compare;
pub mod config;
pub mod context;
pub mod controller;
pub mod error;
pub mod gateway;
pub mod gateways;
pub mod lease;
pub mod loaded;
pub mod macs;
pub mod metrics;
pub mod probes;
pub mod requeue;
pub mod scaling;
pub mod server;
pub mod status;
pub mod stores;
pub mod stream_keys;
pub mod written;

mod census;
mod default_gateway;
mod disruption;
mod hex;
mod lines;
mod refusal;
mod run;
mod stream;
mod surroundings;
pub mod turns;

pub use config::Config;
pub use run::{RunError, run};
