//! What the operator found out about a server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions;

/// What the operator found out about a server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
pub struct MCPServerStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state by condition type; `Ready` is the summary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// What the server said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerInfo>,

    /// The tools of the serving revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Tools>,

    /// Pod templates that exist now. Gateways route by this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub revisions: Vec<Revision>,

    /// Where callers reach the server, one entry per gateway that selects it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["gateway".into()]))]
    pub endpoints: Vec<Endpoint>,

    /// Pods of all revisions.
    #[serde(default)]
    pub replicas: i32,

    /// Pods of the serving revision that answer.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Label selector of the server's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

impl MCPServerStatus {
    /// The condition of that type (see [`conditions::types`]), when it has been written.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        conditions::find(&self.conditions, type_)
    }
}

/// What the server said of itself when a bridge last shook hands with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// Its name.
    pub name: String,

    /// Its version.
    pub version: String,

    /// The protocol revision in use, such as `2025-11-25`.
    pub protocol_version: String,

    /// Which eras of the protocol it speaks.
    pub era: Era,

    /// Every protocol revision that it was found to speak.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_versions: Vec<String>,

    /// Names of its capabilities, such as `tools` and `resources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// Eras of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Era {
    /// Revisions with `initialize` and sessions, up to 2025-11-25.
    Legacy,
    /// Revisions without sessions, from 2026-07-28.
    Modern,
    /// Both.
    Both,
}

/// The tools of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tools {
    /// How many.
    #[schemars(extend("format" = "int32"))]
    pub count: u32,

    /// Hash of their definitions: it changes when one of them does.
    pub hash: String,
}

/// One pod template that exists now.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// `<server>-<8 hex digits>`: the name of its Deployment and Service.
    pub name: String,

    /// What it does.
    pub state: RevisionState,

    /// Share of new sessions, in percent.
    #[schemars(range(min = 0, max = 100), extend("format" = "int32"))]
    pub weight: u8,

    /// `metadata.generation` of the spec that made it.
    pub generation: i64,
}

/// What a revision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RevisionState {
    /// It comes up and is reachable for checks only.
    Pending,
    /// It takes new sessions.
    Serving,
    /// It takes a share of new sessions, and may yet be taken back.
    Canary,
    /// It keeps the sessions it has and takes no new ones.
    Draining,
    /// It did not come up, or was taken back; sessions that it has go on until they end.
    Failed,
}

/// Where one gateway serves the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The gateway, as `namespace/name`.
    pub gateway: String,

    /// The URL for MCP clients.
    pub url: String,
}
