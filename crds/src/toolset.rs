//! `MCPToolset`: some servers of a namespace as one endpoint, with the tools that it shows and the names they have there.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Which servers are together at the endpoint, and what of them is shown.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "MCPToolset",
    plural = "mcptoolsets",
    shortname = "mcpts",
    category = "portolan",
    namespaced,
    doc = "Some of a namespace's MCP servers as one endpoint, /<namespace>/toolsets/<name>/mcp at every gateway that serves the namespace.",
    derive = "PartialEq",
    validation = crate::rules::name_is_a_label(),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
pub struct MCPToolsetSpec {
    /// The servers. Who may not use one of them does not see what it has, and does not reach it here either.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub servers: Vec<ToolsetServer>,

    /// What a client is told of the toolset when it connects, for the model that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub instructions: Option<String>,
}

/// One server of a toolset. Its prompts and resources are all there, under the names that they have at `/mcp`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsetServer {
    /// Name of an `MCPServer` in the toolset's namespace.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,

    /// The tools that are shown: all of them, under the names that they have at `/mcp`, where this is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(tool, !has(tool.__as__) || self.exists_one(other, has(other.__as__) && other.__as__ == tool.__as__))")
        .message("two tools have the same name in `as`: write another one for one of them"))]
    pub tools: Option<Vec<ToolsetTool>>,
}

/// A tool that is shown.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsetTool {
    /// The tool as its server calls it.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,

    /// The name that it has here, in the place of `<namespace>__<server>__<name>`.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*$')")
        .message("write letters, digits and '-', with single '_' between them, such as get_price"))]
    pub shown_as: Option<String>,
}

impl MCPToolsetSpec {
    /// Names in `as` that more than one tool has, each with the tools as (server, tool) in the order of the spec. Within one
    /// server the API server sees to it; across servers that would cost it more than a rule may.
    #[must_use]
    pub fn collisions(&self) -> BTreeMap<&str, Vec<(&str, &str)>> {
        let mut tools: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for server in &self.servers {
            for tool in server.tools.iter().flatten() {
                if let Some(shown) = &tool.shown_as {
                    tools.entry(shown).or_default().push((&server.name, &tool.name));
                }
            }
        }
        tools.retain(|_, tools| tools.len() > 1);
        tools
    }
}
