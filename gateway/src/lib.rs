//! The data path: authenticates callers, routes their MCP messages to the bridges of servers, and relays what comes back.
//!
//! `listen` → `stack` (the order of the layers) → `message` or `stream` → `session`, `limit`, `upstream`, `pool` → `relay`.
//! What is served comes in by `source`, is compiled by `portolan_snapshot`, and swapped whole in `state`.

mod admin;
mod aggregate;
mod authenticate;
mod batch;
mod body;
mod budget;
mod check;
#[cfg(feature = "kube")]
pub mod config;
mod cors;
mod drain;
mod endpoint;
mod gateway;
mod http1;
mod http2;
mod limit;
mod listen;
mod message;
mod metrics;
mod modern;
mod negotiate;
mod opening;
mod options;
mod outlier;
mod pod;
mod pool;
mod record;
mod recorded;
mod relay;
mod respond;
mod route;
mod runtime;
mod series;
mod session;
mod sleep;
mod socket;
mod source;
mod stack;
mod state;
mod stream;
mod traffic;
mod unread;
mod upstream;

pub use gateway::{Bound, StartError, run};
pub use options::{Bounds, Config, Drain};
pub use runtime::runtime;
pub use source::{Latest, Source};
