//! What the suites stand on: the cluster, third-party parts, and waiting for conditions.
//!
//! A suite that cannot run fails: nothing here skips.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

pub mod api_server;
pub mod authority;
pub mod bridge;
pub mod callgrind;
pub mod changes;
pub mod children;
pub mod cluster;
pub mod demo;
pub mod dev;
pub mod front;
pub mod helm;
pub mod images;
pub mod load;
pub mod manifest;
pub mod mcp;
pub mod metrics;
pub mod node;
pub mod objects;
pub mod operator;
pub mod panics;
pub mod paths;
pub mod pods;
pub mod ports;
pub mod process;
pub mod puppet;
pub mod refusal;
pub mod replica;
pub mod round_robin;
pub mod serve;
pub mod sized;
pub mod stand;
pub mod suite;
pub mod thirdparty;
pub mod tidy;
pub mod wait;
