//! What a snapshot is compiled from: objects as the API server has them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::discovery::v1::EndpointSlice};
use portolan_crds::{MCPGateway, MCPServer, MCPToolset};
use serde::{Deserialize, Serialize};

use crate::cluster_domain::ClusterDomain;

/// Everything that decides what one gateway serves. It holds keys: wherever it is written down, it is sealed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    /// The gateway's own object.
    pub gateway: MCPGateway,
    /// The cluster's DNS domain: the gateway's Service has a name in it.
    #[serde(default)]
    pub cluster_domain: ClusterDomain,
    /// Servers of the enrolled namespaces, with status. The gateway's selectors choose among them.
    pub servers: Vec<MCPServer>,
    /// Servers that this release cannot read; each keeps its last good version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
    /// Toolsets of the enrolled namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toolsets: Vec<MCPToolset>,
    /// Toolsets that this release cannot read; each keeps its last good version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable_toolsets: Vec<Unreadable>,
    /// Labels of the enrolled namespaces by name; needed only where the gateway selects by them.
    #[serde(default)]
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// EndpointSlices of the servers' revisions, found by their labels.
    pub slices: Vec<EndpointSlice>,
    /// `data` of the gateway's own Secret; keys as `docs/contracts.md` lists them.
    pub secret: BTreeMap<String, ByteString>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("servers", &self.servers.len())
            .field("slices", &self.slices.len())
            .field("secret", &self.secret.keys())
            .finish_non_exhaustive()
    }
}

/// An object that does not have the shape that this release knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`: another object of the same name is not an earlier version of it.
    #[serde(default)]
    pub uid: Option<String>,
    /// Its labels: a gateway selects by them all the same.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What is wrong with it.
    pub message: String,
}

/// Names of the entries of the gateway's Secret. Operator and `portolan dev` write them, [`crate::compile()`] reads them.
pub mod secret_key {
    /// Seals the last good inputs on disk.
    pub const SEAL: &str = "seal";
    /// Authenticates the operator's stream.
    pub const STREAM: &str = "stream";
    /// Starts the names of the keys that seal session tokens.
    pub const SESSION_PREFIX: &str = "session.";
    /// Starts the names of API key entries.
    pub const API_KEY_PREFIX: &str = "apikeys.";

    /// The `index`th key that seals (0) or opens (all) session tokens.
    #[must_use]
    pub fn session(index: usize) -> String {
        format!("{SESSION_PREFIX}{index}")
    }

    /// The MAC key of a server.
    #[must_use]
    pub fn server(namespace: &str, name: &str) -> String {
        format!("server.{namespace}.{name}")
    }

    /// One API key's hash, copied from entry `entry` of the Secret that list `list` names.
    #[must_use]
    pub fn api_key(list: &str, entry: &str) -> String {
        format!("{API_KEY_PREFIX}{list}.{entry}")
    }
}
