//! Ports that two parts must agree on. Manifests and processes take them from here.

/// The bridge's data port: gateways post MCP messages here. No server container may use it.
pub const BRIDGE_DATA: u16 = 8700;
/// The bridge's admin port: probes, metrics, session exits, drain. No server container may use it.
pub const BRIDGE_ADMIN: u16 = 8701;
/// Where a gateway serves MCP over HTTP.
pub const GATEWAY_HTTP: u16 = 8080;
/// Where a gateway serves `/livez`, `/readyz`, `/metrics` and the operator's stream.
pub const GATEWAY_ADMIN: u16 = 8081;
/// Where the operator serves `/livez`, `/readyz` and `/metrics`.
pub const OPERATOR_ADMIN: u16 = 8082;
