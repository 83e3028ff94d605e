//! What the operator found out about a gateway.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::conditions;

/// What the operator found out about a gateway.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
pub struct MCPGatewayStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state by condition type; `Ready` is the summary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Pods of the gateway.
    #[serde(default)]
    pub replicas: i32,

    /// Pods of the gateway that are ready.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Label selector of the gateway's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// How many servers it selects.
    #[serde(default)]
    pub servers: i32,

    /// Base URL within the cluster; a server's path is appended to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl MCPGatewayStatus {
    /// The condition of that type (see [`conditions::types`]), when it has been written.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        conditions::find(&self.conditions, type_)
    }
}
