//! The container that holds the server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Volume;

/// The image, the process and what it is given.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.transport != 'Stdio' || (has(self.command) && size(self.command) > 0)")
        .message("Stdio needs the program to run: write command, such as [node, index.js] (the image's entrypoint is not used)")
        .field_path(".command"),
    validation = Rule::new("self.transport != 'Stdio' || !has(self.port)")
        .message("a Stdio server listens on no port: remove port, or write transport: StreamableHTTP or SSE")
        .field_path(".port"),
    validation = Rule::new("self.transport != 'Stdio' || !has(self.path)")
        .message("a Stdio server has no HTTP path: remove path, or write transport: StreamableHTTP or SSE")
        .field_path(".path"),
    validation = Rule::new("self.transport != 'StreamableHTTP' || has(self.port)")
        .message("StreamableHTTP needs the port that the server listens on: write port, such as 3000")
        .field_path(".port"),
    validation = Rule::new("self.transport != 'SSE' || has(self.port)")
        .message("SSE needs the port that the server listens on: write port, such as 3000")
        .field_path(".port"),
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name))")
        .message("every volumeMounts[].name must be the name of one of volumes")
        .field_path(".volumeMounts")
)]
pub struct Container {
    /// The image to run.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^[^ \\t\\r\\n]+$')")
        .message("write an image reference without spaces, such as registry.example/server:1.0"))]
    pub image: String,

    /// How the server speaks MCP.
    pub transport: Transport,

    /// The program and its first arguments, in place of the image's entrypoint. Required for `Stdio`: the bridge
    /// starts one process of it per session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::strings::<64, 4096>")]
    pub command: Vec<String>,

    /// Arguments after `command`, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::strings::<256, 4096>")]
    pub args: Vec<String>,

    /// Environment variables by name. They win over `envFrom`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Environment variables from whole Secrets and ConfigMaps; a later one wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFrom>,

    /// The port on which a `StreamableHTTP` or `SSE` server listens. Listening on loopback is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    #[x_kube(validation = Rule::new("self != 8700 && self != 8701")
        .message("8700 and 8701 are the bridge's ports in the same pod: let the server listen on another one"))]
    pub port: Option<u16>,

    /// The HTTP path of the MCP endpoint of a `StreamableHTTP` server, `/mcp` when not set, or of the event stream of an
    /// `SSE` server, `/sse` when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/[!$&-;=@A-Z_a-z~%]*$')")
        .message("write an absolute path without query or spaces, such as /mcp"))]
    pub path: Option<String>,

    /// CPU and memory of the container. Sessions of a `Stdio` server share them.
    #[serde(default)]
    pub resources: Resources,

    /// Volumes that `volumeMounts` may mount, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(volume, !has(volume.persistentVolumeClaim) || self.exists_one(other, has(other.persistentVolumeClaim) && other.persistentVolumeClaim.claimName == volume.persistentVolumeClaim.claimName))")
        .message("two volumes name one claim, which the kubelet cannot mount: keep one of them and mount it more than once"))]
    pub volumes: Vec<Volume>,

    /// Where the volumes appear in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<VolumeMount>,

    /// When to pull the image. When not set, `Always` for the tag `latest` and `IfNotPresent` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of the same namespace with credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalName>,
}

impl Container {
    /// The HTTP path of the endpoint, or of the event stream of an `SSE` server.
    #[must_use]
    pub fn http_path(&self) -> &str {
        let usual = if self.transport == Transport::Sse { "/sse" } else { "/mcp" };
        self.path.as_deref().unwrap_or(usual)
    }
}

/// How a server speaks MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Transport {
    /// JSON lines on standard input and output: one process per session.
    Stdio,
    /// The streamable HTTP transport on a port of the container.
    #[serde(rename = "StreamableHTTP")]
    StreamableHttp,
    /// The older HTTP+SSE transport (2024-11-05) on a port of the container: one event stream per session. Clients see
    /// streamable HTTP all the same.
    #[serde(rename = "SSE")]
    Sse,
}

impl Transport {
    /// Whether the server listens on a port, so that the bridge stands beside it.
    #[must_use]
    pub const fn is_http(self) -> bool {
        match self {
            Self::Stdio => false,
            Self::StreamableHttp | Self::Sse => true,
        }
    }
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a pod.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl ImagePullPolicy {
    /// The word that Kubernetes uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// One environment variable.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::exactly_one(&["value", "valueFrom"], "an environment variable has one source"))]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z][-._a-zA-Z0-9]*$')")
        .message("write an environment variable name: letters, digits, '_', '-' or '.', not starting with a digit"))]
    #[x_kube(validation = Rule::new("!self.startsWith('PORTOLAN_')")
        .message("names that start with PORTOLAN_ configure the bridge: write another name"))]
    pub name: String,

    /// The value itself; it may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,

    /// Where to take the value from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

impl EnvVar {
    /// The one source that is set; `None` only for an object that no API server admitted.
    #[must_use]
    pub fn source(&self) -> Option<EnvSource<'_>> {
        match (&self.value, &self.value_from) {
            (Some(value), None) => Some(EnvSource::Value(value)),
            (None, Some(EnvVarSource { secret_key_ref: Some(key), config_map_key_ref: None })) => {
                Some(EnvSource::Secret(key))
            }
            (None, Some(EnvVarSource { secret_key_ref: None, config_map_key_ref: Some(key) })) => {
                Some(EnvSource::ConfigMap(key))
            }
            _ => None,
        }
    }
}

/// The source of an [`EnvVar`], as one of three.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EnvSource<'a> {
    /// The value itself.
    Value(&'a str),
    /// A key of a Secret.
    Secret(&'a KeyRef),
    /// A key of a ConfigMap.
    ConfigMap(&'a KeyRef),
}

/// Where an environment variable's value comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::exactly_one(&["secretKeyRef", "configMapKeyRef"], "valueFrom has one source"))]
pub struct EnvVarSource {
    /// A key of a Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,

    /// A key of a ConfigMap of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a Secret or ConfigMap of the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key within it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,

    /// Whether the server may start without the object or the key.
    #[serde(default)]
    pub optional: bool,
}

/// Environment variables from every key of one Secret or ConfigMap.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::exactly_one(&["secretRef", "configMapRef"], "an entry of envFrom has one source"))]
pub struct EnvFrom {
    /// What to put before each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z][-._a-zA-Z0-9]*$')")
        .message("write a prefix of letters, digits, '_', '-' or '.', not starting with a digit, such as API_"))]
    pub prefix: Option<String>,

    /// A Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretEnv>,

    /// A ConfigMap of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapEnv>,
}

impl EnvFrom {
    /// The one source that is set; `None` only for an object that no API server admitted.
    #[must_use]
    pub fn source(&self) -> Option<EnvFromSource<'_>> {
        match (&self.secret_ref, &self.config_map_ref) {
            (Some(secret), None) => Some(EnvFromSource::Secret(secret)),
            (None, Some(config_map)) => Some(EnvFromSource::ConfigMap(config_map)),
            _ => None,
        }
    }
}

/// The source of an [`EnvFrom`], as one of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EnvFromSource<'a> {
    /// Every key of a Secret.
    Secret(&'a SecretEnv),
    /// Every key of a ConfigMap.
    ConfigMap(&'a ConfigMapEnv),
}

/// A whole Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretEnv {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Whether the server may start without it.
    #[serde(default)]
    pub optional: bool,
}

/// A whole ConfigMap of the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapEnv {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Whether the server may start without it.
    #[serde(default)]
    pub optional: bool,
}

/// An object of the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct LocalName {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// CPU, memory and other resources of a container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::quantities")]
    #[x_kube(validation = crate::rules::quantities())]
    pub requests: BTreeMap<String, Quantity>,

    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::quantities")]
    #[x_kube(validation = crate::rules::quantities())]
    pub limits: BTreeMap<String, Quantity>,
}

/// Where one volume appears in the container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Which of `volumes`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Directory or file in the container.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/[^:]+$') && !self.contains('..')")
        .message("write an absolute path other than / without ':' or '..', such as /data"))]
    #[x_kube(validation = Rule::new("self != '/portolan' && !self.startsWith('/portolan/')")
        .message("/portolan holds the bridge: mount elsewhere, such as /data"))]
    pub mount_path: String,

    /// Path within the volume: its root when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('..')")
        .message("write a path relative to the volume without '..', such as data/cache"))]
    pub sub_path: Option<String>,

    /// Whether the server may only read it.
    #[serde(default)]
    pub read_only: bool,
}
