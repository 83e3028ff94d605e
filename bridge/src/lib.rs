//! The bridge: stands in front of one MCP server and gives it sessions, bounds, a probe and a drain.
//!
//! In a pod it is the binary of this crate; `portolan dev` runs the same [`Bridge`] in its own process.

#![expect(clippy::result_large_err, reason = "a refusal is a response, as the answer it replaces is")]

mod admin;
mod answered;
mod awaited;
mod backend;
mod bridge;
mod caller;
pub mod config;
mod conversation;
mod data;
mod descendants;
mod endpoint;
mod event_stream;
pub mod flags;
mod found;
pub mod guard;
mod http_link;
mod http_peer;
mod kept;
mod lines;
mod link;
mod live;
mod memory;
mod modern;
mod opening;
mod outbox;
mod part;
mod peer;
mod place;
mod post;
mod probe;
mod problem;
mod process;
mod relay;
mod relayed;
#[cfg(feature = "tls")]
pub mod remote;
mod reply;
mod respond;
mod rpc;
mod said;
mod server;
pub mod service;
mod session;
mod sessions;
mod shared;
mod state;
mod stderr;
mod stdout;
mod termination;
mod tools;
mod translated;
mod upstream;

pub use bridge::{Bridge, StartError};
pub use config::Config;
