//! `MCPGateway`: the front door, a set of proxies that authenticate callers and route them to servers.

mod authentication;
mod status;

pub use authentication::{Anonymous, ApiKeys, Authentication, SecretName, ServiceAccounts};
pub use status::MCPGatewayStatus;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom the gateway admits, which servers it serves, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "MCPGateway",
    plural = "mcpgateways",
    shortname = "mcpgw",
    category = "portolan",
    namespaced,
    doc = "A gateway in front of MCP servers. It counts only in namespaces that the operator was told are the platform's.",
    derive = "PartialEq",
    status = "MCPGatewayStatus",
    validation = crate::rules::name_is_a_service_name(),
    validation = crate::rules::name_has_at_most(crate::MAX_GATEWAY_NAME_LENGTH),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
#[x_kube(validation = Rule::new("has(self.authentication.serviceAccounts) || has(self.authentication.anonymous) || (has(self.authentication.apiKeys) && size(self.authentication.apiKeys) > 0)")
    .message("authentication admits nobody: add apiKeys or serviceAccounts, or spell out `anonymous: {}`")
    .field_path(".authentication"))]
pub struct MCPGatewaySpec {
    /// How many pods serve. Any of them answers any request.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 50))]
    pub replicas: i32,

    /// Whom the gateway admits. At least one way in must be written out: nothing lets anyone in by default.
    // Defaulted so that a spec without it meets the rule above, which says what to write, and not only "Required value".
    #[serde(default)]
    pub authentication: Authentication,

    /// Which servers it serves: those of every enrolled namespace when empty.
    #[serde(default)]
    pub servers: ServerSelection,

    /// How it serves HTTP.
    #[serde(default)]
    pub http: Http,
}

fn two() -> i32 {
    2
}

/// Which servers a gateway serves. Both selectors must match; one that is not set matches everything enrolled.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelection {
    /// Selects namespaces by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Selects `MCPServer` objects by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// How a gateway serves HTTP.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// Host names, besides those of the gateway's own Service and loopback, under which requests may come. One
    /// without a port stands for every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::strings::<64, 260>")]
    #[x_kube(validation = crate::rules::hosts())]
    pub allowed_hosts: Vec<String>,

    /// Origins of web pages that may call. A request without an `Origin` header needs no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::strings::<64, 512>")]
    #[x_kube(validation = crate::rules::origins())]
    pub allowed_origins: Vec<String>,

    /// Largest request body in bytes. A larger one gets 413.
    #[serde(default = "max_body_bytes")]
    #[schemars(range(min = 1024, max = 67_108_864), extend("format" = "int64"))]
    pub max_body_bytes: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self { allowed_hosts: Vec::new(), allowed_origins: Vec::new(), max_body_bytes: max_body_bytes() }
    }
}

fn max_body_bytes() -> u64 {
    4 * 1024 * 1024
}
