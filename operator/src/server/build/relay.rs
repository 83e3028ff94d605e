//! The pod in front of a server that runs elsewhere: one container, which relays.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ConfigMapProjection, Container, KeyToPath, ProjectedVolumeSource, ResourceRequirements, SecretProjection,
        Volume, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use portolan_crds::server::{CaSource, Remote, RemoteTls};

use super::{
    Parts, container, flags,
    pod::{self, KEY_MODE},
};
use crate::server::references::{TLS_CERTIFICATE, TLS_KEY};

/// The container that relays.
pub(in crate::server) const RELAY: &str = "relay";
/// Certificates and credential, by the names below.
const FILES: &str = "portolan-remote";
/// Where they are in the container, whose image has a program where a server's container has a folder `/portolan`.
const FILES_PATH: &str = "/etc/portolan/remote";
const KEY_PATH: &str = "/etc/portolan/key";
const KEY_FILE: &str = "/etc/portolan/key/mac";
const CA: &str = "ca.pem";
const CERTIFICATE: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";
const CREDENTIAL: &str = "credential";

/// The container.
pub(super) fn container(parts: &Parts<'_>, remote: &Remote) -> Container {
    let amounts = |amounts: &[(&str, &str)]| {
        let named = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).to_owned()));
        Some(amounts.iter().map(named).collect::<BTreeMap<_, _>>())
    };
    let mut mounts = vec![container::mount(pod::KEY, KEY_PATH, true)];
    if !files(remote).is_empty() {
        mounts.push(container::mount(FILES, FILES_PATH, true));
    }
    Container {
        name: RELAY.into(),
        image: Some(parts.relay.image.to_owned()),
        image_pull_policy: parts.bridge.pull_policy.map(str::to_owned),
        args: Some(args(parts, remote)),
        env: Some(vec![container::pod_uid()]),
        resources: Some(ResourceRequirements {
            requests: amounts(&[("cpu", "10m"), ("memory", "32Mi")]),
            limits: amounts(&[("memory", "256Mi")]),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(mounts),
        ..container::serving()
    }
}

/// The volume that holds what the relay is given, if it is given anything.
pub(super) fn volume(remote: &Remote) -> Option<Volume> {
    let sources = files(remote);
    (!sources.is_empty()).then(|| Volume {
        name: FILES.into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(KEY_MODE), sources: Some(sources) }),
        ..Volume::default()
    })
}

fn args(parts: &Parts<'_>, remote: &Remote) -> Vec<String> {
    let mut args = vec!["relay".to_owned()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    let file = |name: &str| format!("{FILES_PATH}/{name}");
    // Kubernetes reads `$(NAME)` in arguments as a variable.
    flag("--url", &remote.url.replace('$', "$$"));
    flag("--transport", remote.transport.flag());
    if let Some(tls) = &remote.tls {
        if tls.ca_certificate_ref.is_some() {
            flag("--ca-file", &file(CA));
        }
        if tls.client_certificate_ref.is_some() {
            flag("--client-certificate-file", &file(CERTIFICATE));
            flag("--client-key-file", &file(CLIENT_KEY));
        }
    }
    if let Some(header) = remote.backend_auth.sent_header() {
        flag("--header-name", &header.name);
        flag("--header-file", &file(CREDENTIAL));
    }
    // Only its own: what is allowed for another server changes nothing here.
    if let Some(host) = parts.relay.allowed(remote) {
        flag("--allow-private-host", host);
    }
    args.extend(flags::common(parts.spec, KEY_FILE));
    args
}

fn files(remote: &Remote) -> Vec<VolumeProjection> {
    let tls = remote.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_certificate_ref.as_ref()?.source()).map(|source| match source {
        CaSource::ConfigMap(key) => VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: key.name.clone(),
                items: Some(vec![item(&key.key, CA)]),
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        CaSource::Secret(key) => secret(&key.name, vec![item(&key.key, CA)]),
    });
    let client = tls.and_then(client);
    let header = remote.backend_auth.sent_header().map(|header| &header.secret_key_ref);
    let credential = header.map(|key| secret(&key.name, vec![item(&key.key, CREDENTIAL)]));
    ca.into_iter().chain(client).chain(credential).collect()
}

fn client(tls: &RemoteTls) -> Option<VolumeProjection> {
    let items = vec![item(TLS_CERTIFICATE, CERTIFICATE), item(TLS_KEY, CLIENT_KEY)];
    tls.client_certificate_ref.as_ref().map(|client| secret(&client.name, items))
}

fn secret(name: &str, items: Vec<KeyToPath>) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection { name: name.to_owned(), items: Some(items), optional: None }),
        ..VolumeProjection::default()
    }
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }
}
