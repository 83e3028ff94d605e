//! The API of Portolan: [`MCPServer`], [`MCPGateway`] and [`MCPToolset`], and the names that every part must agree on.
//!
//! The types are the source of the CRDs in `generated/` (written by the `crdgen` binary). What a field means to the
//! API server (defaults, bounds, CEL rules) is declared on the field itself, so that a rule and its type cannot drift
//! apart. Optional structs carry their defaults on both sides: an object read from the API server and one
//! deserialized from a file hold the same values.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its visibility, inside a function")]

#[cfg(feature = "cel")]
pub mod admission;
pub mod conditions;
pub mod duration;
pub mod gateway;
pub mod labels;
pub mod ports;
pub mod server;
pub mod toolset;

mod render;
mod rules;
mod schema;

pub use duration::Duration;
pub use gateway::{MCPGateway, MCPGatewaySpec, MCPGatewayStatus};
pub use render::{RenderError, render};
pub use server::{MCPServer, MCPServerSpec, MCPServerStatus};
pub use toolset::{MCPToolset, MCPToolsetSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "portolan.dev";
/// The only served and stored version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object: [`GROUP`]`/`[`VERSION`].
pub const API_VERSION: &str = "portolan.dev/v1alpha1";
/// `kubectl get portolan` lists every kind.
pub const CATEGORY: &str = "portolan";

/// Field manager of what the operator applies: children and, under [`STATUS_MANAGER`], status.
pub const OPERATOR_MANAGER: &str = "portolan-operator";
/// Field manager of the status subresources, apart from [`OPERATOR_MANAGER`] so that an apply of one never drops the other.
pub const STATUS_MANAGER: &str = "portolan-operator-status";

/// Longest name of an `MCPServer`: `<name>-<8 hex digits>` is a Service, whose name has at most 63 characters.
pub const MAX_SERVER_NAME_LENGTH: usize = 50;
/// Longest name of an `MCPGateway`: `portolan-gateway-<name>` is a Service, whose name has at most 63 characters.
pub const MAX_GATEWAY_NAME_LENGTH: usize = 46;

/// Every CRD, in the order in which `crdgen` writes them, with the file that holds it.
#[must_use]
pub fn crds() -> [(&'static str, CustomResourceDefinition); 3] {
    [
        ("mcpservers.yaml", MCPServer::crd()),
        ("mcpgateways.yaml", MCPGateway::crd()),
        ("mcptoolsets.yaml", MCPToolset::crd()),
    ]
}
