//! The bridge: stands in front of one MCP server and gives it sessions, bounds, a probe and a drain.
//!
//! In a pod it is the binary of this crate; `portolan dev` runs the same [`Bridge`] in its own process.

mod admin;
mod bridge;
pub mod config;
mod data;
mod descendants;
pub mod guard;
mod kept;
mod lines;
mod peer;
mod probe;
mod process;
mod reply;
mod respond;
mod server;
mod session;
mod sessions;
mod state;
mod stderr;
mod tools;

pub use bridge::{Bridge, StartError};
pub use config::Config;
