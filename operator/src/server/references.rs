//! Which ConfigMaps, Secrets and claims a spec names, and which field names them.

use std::{collections::BTreeSet, fmt};

use portolan_crds::{
    MCPServerSpec,
    server::{CaSource, Container, EnvFromSource, EnvSource, KeyToPath, Place, Remote, VolumeSource},
};

/// The keys of a Secret of type `kubernetes.io/tls`.
pub(super) const TLS_CERTIFICATE: &str = "tls.crt";
/// The key that belongs to the certificate.
pub(super) const TLS_KEY: &str = "tls.key";

/// A kind whose content reaches the server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

/// One mention of an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// What it names.
    pub(super) kind: Kind,
    /// The object's name.
    pub(super) name: String,
    /// The key it must have; any content will do when `None`.
    pub(super) key: Option<String>,
    /// Whether the server may start without it.
    pub(super) optional: bool,
    /// Whether the content reaches the process, so that a change of it makes a revision.
    pub(super) content: bool,
    /// The field that names it, for messages.
    pub(super) field: String,
}

/// Every ConfigMap and Secret that the spec names, in the order of its fields.
pub(super) fn references(spec: &MCPServerSpec) -> Vec<Reference> {
    match spec.place() {
        Some(Place::Container(container)) => of_container(container),
        Some(Place::Remote(remote)) => of_remote(remote),
        None => Vec::new(),
    }
}

fn of_container(container: &Container) -> Vec<Reference> {
    let mut found = Vec::new();
    from_env(container, &mut found);
    from_env_from(container, &mut found);
    from_volumes(container, &mut found);
    for (index, secret) in container.image_pull_secrets.iter().enumerate() {
        found.push(Reference {
            kind: Kind::Secret,
            name: secret.name.clone(),
            key: None,
            optional: false,
            content: false,
            field: format!("spec.container.imagePullSecrets[{index}]"),
        });
    }
    found
}

/// What the relay is given; nothing of it is optional.
fn of_remote(remote: &Remote) -> Vec<Reference> {
    let reference = |kind, name: &str, key: &str, field: &str| Reference {
        kind,
        name: name.to_owned(),
        key: Some(key.to_owned()),
        optional: false,
        content: true,
        field: format!("spec.remote.{field}"),
    };
    let tls = remote.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_certificate_ref.as_ref()?.source()).map(|source| match source {
        CaSource::ConfigMap(key) => (Kind::ConfigMap, key),
        CaSource::Secret(key) => (Kind::Secret, key),
    });
    let client = tls.and_then(|tls| tls.client_certificate_ref.as_ref());
    let header = remote.backend_auth.sent_header().map(|header| &header.secret_key_ref);
    let ca = ca.map(|(kind, key)| reference(kind, &key.name, &key.key, "tls.caCertificateRef"));
    let client = client.into_iter().flat_map(|client| {
        [TLS_CERTIFICATE, TLS_KEY].map(|key| reference(Kind::Secret, &client.name, key, "tls.clientCertificateRef"))
    });
    let header = header.map(|key| reference(Kind::Secret, &key.name, &key.key, "backendAuth.header.secretKeyRef"));
    ca.into_iter().chain(client).chain(header).collect()
}

/// Every PersistentVolumeClaim that the spec names.
pub(super) fn claims(spec: &MCPServerSpec) -> BTreeSet<String> {
    spec.container
        .iter()
        .flat_map(|container| &container.volumes)
        .filter_map(|volume| match volume.source() {
            Some(VolumeSource::PersistentVolumeClaim(claim)) => Some(claim.claim_name.clone()),
            _ => None,
        })
        .collect()
}

fn from_env(container: &Container, found: &mut Vec<Reference>) {
    for variable in &container.env {
        let (kind, reference) = match variable.source() {
            Some(EnvSource::Secret(reference)) => (Kind::Secret, reference),
            Some(EnvSource::ConfigMap(reference)) => (Kind::ConfigMap, reference),
            Some(EnvSource::Value(_)) | None => continue,
        };
        found.push(Reference {
            kind,
            name: reference.name.clone(),
            key: Some(reference.key.clone()),
            optional: reference.optional,
            content: true,
            field: format!("spec.container.env[{}]", variable.name),
        });
    }
}

fn from_env_from(container: &Container, found: &mut Vec<Reference>) {
    for (index, entry) in container.env_from.iter().enumerate() {
        let (kind, name, optional) = match entry.source() {
            Some(EnvFromSource::Secret(source)) => (Kind::Secret, &source.name, source.optional),
            Some(EnvFromSource::ConfigMap(source)) => (Kind::ConfigMap, &source.name, source.optional),
            None => continue,
        };
        let field = format!("spec.container.envFrom[{index}]");
        found.push(Reference { kind, name: name.clone(), key: None, optional, content: true, field });
    }
}

fn from_volumes(container: &Container, found: &mut Vec<Reference>) {
    for volume in &container.volumes {
        let (kind, name, items, optional) = match volume.source() {
            Some(VolumeSource::ConfigMap(source)) => (Kind::ConfigMap, &source.name, &source.items, source.optional),
            Some(VolumeSource::Secret(source)) => (Kind::Secret, &source.secret_name, &source.items, source.optional),
            Some(VolumeSource::EmptyDir(_) | VolumeSource::PersistentVolumeClaim(_)) | None => continue,
        };
        let field = format!("spec.container.volumes[{}]", volume.name);
        let reference = |key: Option<&KeyToPath>| Reference {
            kind,
            name: name.clone(),
            key: key.map(|item| item.key.clone()),
            optional,
            content: true,
            field: field.clone(),
        };
        if items.is_empty() {
            found.push(reference(None));
        }
        found.extend(items.iter().map(|item| reference(Some(item))));
    }
}
