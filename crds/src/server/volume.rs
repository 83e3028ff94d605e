//! Volumes of a server's pod.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One volume, from exactly one source.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::exactly_one(
    &["configMap", "secret", "emptyDir", "persistentVolumeClaim"],
    "a volume has one source",
))]
pub struct Volume {
    /// The name that `volumeMounts` uses.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("write a volume name of lower-case letters, digits and '-', such as data"))]
    #[x_kube(validation = Rule::new("!self.startsWith('portolan-')")
        .message("volume names that start with portolan- are the operator's: write another name"))]
    pub name: String,

    /// Keys of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,

    /// Keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,

    /// A directory that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,

    /// Storage that outlives the pod. It must be mountable by several pods, as during a rollout two revisions hold it; one that
    /// is not needs `rollout.type: Recreate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
}

impl Volume {
    /// The one source that is set; `None` only for an object that no API server admitted.
    #[must_use]
    pub fn source(&self) -> Option<VolumeSource<'_>> {
        match (&self.config_map, &self.secret, &self.empty_dir, &self.persistent_volume_claim) {
            (Some(source), None, None, None) => Some(VolumeSource::ConfigMap(source)),
            (None, Some(source), None, None) => Some(VolumeSource::Secret(source)),
            (None, None, Some(source), None) => Some(VolumeSource::EmptyDir(source)),
            (None, None, None, Some(source)) => Some(VolumeSource::PersistentVolumeClaim(source)),
            _ => None,
        }
    }
}

/// The source of a [`Volume`], as one of four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VolumeSource<'a> {
    /// A ConfigMap's keys.
    ConfigMap(&'a ConfigMapVolume),
    /// A Secret's keys.
    Secret(&'a SecretVolume),
    /// The pod's own directory.
    EmptyDir(&'a EmptyDir),
    /// A claim.
    PersistentVolumeClaim(&'a PersistentVolumeClaim),
}

/// A ConfigMap of the same namespace as files.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapVolume {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Which keys become which files: all of them, under their own names, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub items: Vec<KeyToPath>,

    /// Whether the server may start without it.
    #[serde(default)]
    pub optional: bool,
}

/// A Secret of the same namespace as files.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,

    /// Which keys become which files: all of them, under their own names, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub items: Vec<KeyToPath>,

    /// Whether the server may start without it.
    #[serde(default)]
    pub optional: bool,
}

/// One key as one file.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct KeyToPath {
    /// Key within the object.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,

    /// The file's path within the volume.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('..')")
        .message("write a path relative to the volume without '..', such as conf/app.yaml"))]
    pub path: String,
}

/// A directory that lives as long as the pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// How much it may hold, such as `64Mi`: the pod is evicted past it. The node's limit when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity")]
    #[x_kube(validation = crate::rules::quantity())]
    pub size_limit: Option<Quantity>,

    /// Where it is kept: the node's disk when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
}

/// Where an emptyDir is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Medium {
    /// In memory, counted against the container's memory limit.
    Memory,
}

/// A PersistentVolumeClaim of the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    /// Name of the claim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,

    /// Whether it is attached for reading only.
    #[serde(default)]
    pub read_only: bool,
}
