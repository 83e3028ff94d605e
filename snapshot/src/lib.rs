//! Compiles API objects into the immutable snapshot that a gateway serves from.
//!
//! `Inputs` → [`compile::compile`] → [`snapshot::Snapshot`]. Pure: the gateway, `portolan dev` and the operator run the
//! same function on objects that come from a watch, from files, or from a test.

pub mod cluster_domain;
pub mod compile;
pub mod inputs;
pub mod report;
pub mod select;
pub mod snapshot;
pub mod toolset;

mod authentication;
mod pods;
mod settings;

pub use cluster_domain::ClusterDomain;
pub use compile::{Compiled, Diagnostics, Unusable, compile};
pub use inputs::Inputs;
pub use report::Report;
pub use snapshot::{Route, RouteName, Snapshot};
pub use toolset::{Toolset, ToolsetProblem};
