//! Whom a gateway admits.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ways to be admitted. A credential is tried by the one method that it is made for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Callers that show an API key (`Authorization: Bearer ptl_…`) whose hash is in one of these Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub api_keys: Vec<ApiKeys>,

    /// Callers that show a service account's token for one of the audiences, checked by TokenReview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccounts>,

    /// Callers that show no credential. Write `anonymous: {}` only where everyone who can reach the gateway may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

impl Authentication {
    /// Whether any way in is written out. An object that the API server admitted has one.
    #[must_use]
    pub fn admits_someone(&self) -> bool {
        !self.api_keys.is_empty() || self.service_accounts.is_some() || self.anonymous.is_some()
    }
}

/// API keys of one Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeys {
    /// What this list of keys is called, within the gateway.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("write a name of lower-case letters, digits and '-', such as ci"))]
    pub name: String,

    /// The Secret of the same namespace. Each entry is one key: its name is the subject that the key stands for, its
    /// value `sha256:` and the SHA-256 of the key in 64 hexadecimal digits.
    pub secret_ref: SecretName,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Service accounts of this cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ServiceAccounts {
    /// Audiences of which a token must name at least one, such as `portolan`.
    #[schemars(schema_with = "crate::schema::strings::<16, 253>")]
    #[x_kube(validation = Rule::new("size(self) > 0 && self.all(audience, audience != '')")
        .message("write at least one audience, such as portolan, and none that is empty"))]
    pub audiences: Vec<String>,
}

/// Everyone who can reach the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Anonymous {}
