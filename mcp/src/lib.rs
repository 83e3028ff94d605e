//! The Model Context Protocol without I/O: no sockets, no clock, no runtime.
//!
//! Everything here is a value or a state machine that the data path drives: the gateway, the bridge and
//! the operator share these types, so that what crosses a wire between them is written down once.

pub mod aggregate;
pub mod canary;
pub mod envelope;
pub mod failure;
pub mod mac;
pub mod members;
pub mod modern;
pub mod parked;
pub mod revision;
pub mod scan;
pub mod session;
pub mod sse;
pub mod token;
pub mod translate;
pub mod wire;
