//! The containers of a hosted server's pod: the server, the bridge beside an HTTP server, and the one that copies the bridge in.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapEnvSource, ConfigMapKeySelector, Container, ContainerPort, EnvFromSource, EnvVar,
        EnvVarSource, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe,
        ResourceRequirements, SecretEnvSource, SecretKeySelector, SecurityContext, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use portolan_crds::{
    ports,
    server::{self, EnvSource, Transport},
};
use portolan_mcp::wire;

use super::{
    Parts, flags, pod,
    pod::some,
    service::{ADMIN, DATA},
};

/// The container that runs the server.
pub(in crate::server) const SERVER: &str = "server";
/// The bridge beside an HTTP server.
pub(in crate::server) const BRIDGE: &str = "bridge";
/// The init container that copies the bridge in; a name of its own, as the API server wants it.
const INSTALL: &str = "install-bridge";

/// The bridge in its own image.
const BRIDGE_IN_IMAGE: &str = "/portolan-bridge";
/// Where the init container puts it.
const BRIDGE_IN_POD: &str = "/portolan/bin/portolan-bridge";
const BIN_PATH: &str = "/portolan/bin";
const KEY_PATH: &str = "/portolan/key";
/// The file that holds the MAC key.
pub(super) const KEY_FILE: &str = "/portolan/key/mac";
/// Writable in every server's container.
pub(super) const TMP_PATH: &str = "/tmp";
/// `HOME` of a server that sets none; writable.
pub(super) const HOME_PATH: &str = "/home/mcp";

/// Copies the bridge to where the server's container finds it.
pub(super) fn install(parts: &Parts<'_>) -> Container {
    Container {
        name: INSTALL.into(),
        command: Some(vec![BRIDGE_IN_IMAGE.into(), "install".into(), BRIDGE_IN_POD.into()]),
        volume_mounts: Some(vec![mount(pod::BIN, BIN_PATH, false)]),
        ..bridge(parts)
    }
}

/// A stdio server: the bridge is the first process and starts one of the user's command per session.
pub(super) fn stdio(parts: &Parts<'_>, users: &server::Container) -> Container {
    let mut command = vec![BRIDGE_IN_POD.to_owned(), "stdio".into()];
    command.extend(flags::common(parts.spec, KEY_FILE));
    command.push("--".into());
    command.extend(users.command.iter().chain(&users.args).cloned());
    let mut mounts = server_mounts(users);
    mounts.push(mount(pod::KEY, KEY_PATH, true));
    let server = server(users);
    Container {
        command: Some(command),
        env: Some(server.env.into_iter().flatten().chain([pod_uid()]).collect()),
        volume_mounts: Some(mounts),
        ports: Some(bridge_ports()),
        readiness_probe: Some(readiness()),
        liveness_probe: Some(liveness()),
        termination_message_policy: Some("File".into()),
        ..server
    }
}

/// What every container that serves gateways and the operator has.
pub(super) fn serving() -> Container {
    Container {
        ports: Some(bridge_ports()),
        readiness_probe: Some(readiness()),
        liveness_probe: Some(liveness()),
        termination_message_policy: Some("File".into()),
        security_context: Some(security_context()),
        ..Container::default()
    }
}

/// An HTTP server as its image or `command` starts it. It is told to end only when the bridge beside it has drained.
pub(super) fn http(parts: &Parts<'_>, users: &server::Container) -> Container {
    let port = users.port.map(|port| ContainerPort {
        name: Some("mcp".into()),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    });
    let mut wait = vec![BRIDGE_IN_POD.to_owned(), "wait-drained".into()];
    wait.extend(flags::wait_drained(parts.spec));
    let wait = ExecAction { command: Some(wait) };
    Container {
        command: some(users.command.clone()),
        args: some(users.args.clone()),
        ports: port.map(|port| vec![port]),
        volume_mounts: Some(server_mounts(users)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { exec: Some(wait), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        // The server knows nothing of termination messages: its last lines on stderr are the message.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..server(users)
    }
}

/// The bridge in front of an HTTP server.
pub(super) fn sidecar(parts: &Parts<'_>, users: &server::Container) -> Container {
    let subcommand = if users.transport == Transport::Sse { "sse" } else { "http" };
    let mut command = vec![BRIDGE_IN_IMAGE.to_owned(), subcommand.into()];
    command.extend(flags::http(parts.spec, users));
    Container {
        name: BRIDGE.into(),
        command: Some(command),
        env: Some(vec![pod_uid()]),
        ports: Some(bridge_ports()),
        volume_mounts: Some(vec![mount(pod::KEY, KEY_PATH, true)]),
        readiness_probe: Some(readiness()),
        liveness_probe: Some(liveness()),
        termination_message_policy: Some("File".into()),
        ..bridge(parts)
    }
}

/// Whether the user leaves that path to the operator. Two mounts at one path are refused by the API server.
pub(super) fn mounts_nothing_at(container: &server::Container, path: &str) -> bool {
    container.volume_mounts.iter().all(|mount| mount.mount_path.trim_end_matches('/') != path)
}

/// What every server's container has, whatever its transport.
fn server(users: &server::Container) -> Container {
    Container {
        name: SERVER.into(),
        image: Some(users.image.clone()),
        image_pull_policy: users.image_pull_policy.map(|policy| policy.as_str().into()),
        env: Some(env(users)),
        env_from: some(users.env_from.iter().filter_map(env_from).collect()),
        resources: resources(&users.resources),
        security_context: Some(security_context()),
        ..Container::default()
    }
}

/// What every container of the bridge's own image has.
fn bridge(parts: &Parts<'_>) -> Container {
    let amount = |cpu: Option<&str>, memory: &str| {
        let mut amounts = BTreeMap::from([("memory".to_owned(), Quantity(memory.into()))]);
        amounts.extend(cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.into()))));
        Some(amounts)
    };
    Container {
        image: Some(parts.bridge.image.to_owned()),
        image_pull_policy: parts.bridge.pull_policy.map(str::to_owned),
        resources: Some(ResourceRequirements {
            requests: amount(Some("10m"), "16Mi"),
            limits: amount(None, "256Mi"),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context()),
        ..Container::default()
    }
}

/// Tells a bridge which pod it is in. The API server's default is spelled out, so that an unchanged pod shows no difference.
pub(super) fn pod_uid() -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.uid".into() };
    EnvVar {
        name: wire::POD_VARIABLE.into(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// The strictest that the Pod Security standard knows; the ids are the pod's.
fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

fn server_mounts(users: &server::Container) -> Vec<VolumeMount> {
    let mut mounts = vec![mount(pod::BIN, BIN_PATH, true)];
    for (volume, path) in [(pod::TMP, TMP_PATH), (pod::HOME, HOME_PATH)] {
        if mounts_nothing_at(users, path) {
            mounts.push(mount(volume, path, false));
        }
    }
    mounts.extend(users.volume_mounts.iter().map(|users| VolumeMount {
        sub_path: users.sub_path.clone().filter(|path| !path.is_empty()),
        ..mount(&users.name, &users.mount_path, users.read_only)
    }));
    mounts
}

pub(super) fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// The user's variables; `HOME` first, so that a user's own one wins and may be used by others.
fn env(users: &server::Container) -> Vec<EnvVar> {
    let mut env = Vec::new();
    if users.env.iter().all(|variable| variable.name != "HOME") {
        env.push(EnvVar { name: "HOME".into(), value: Some(HOME_PATH.into()), value_from: None });
    }
    env.extend(users.env.iter().map(variable));
    env
}

fn variable(users: &server::EnvVar) -> EnvVar {
    let mut built = EnvVar { name: users.name.clone(), ..EnvVar::default() };
    match users.source() {
        // The API server drops an empty value, which means the same.
        Some(EnvSource::Value(value)) => built.value = Some(value.to_owned()).filter(|value| !value.is_empty()),
        Some(EnvSource::Secret(key)) => {
            built.value_from = Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: key.name.clone(),
                    key: key.key.clone(),
                    optional: key.optional.then_some(true),
                }),
                ..EnvVarSource::default()
            });
        }
        Some(EnvSource::ConfigMap(key)) => {
            built.value_from = Some(EnvVarSource {
                config_map_key_ref: Some(ConfigMapKeySelector {
                    name: key.name.clone(),
                    key: key.key.clone(),
                    optional: key.optional.then_some(true),
                }),
                ..EnvVarSource::default()
            });
        }
        None => {}
    }
    built
}

fn env_from(users: &server::EnvFrom) -> Option<EnvFromSource> {
    let prefix = users.prefix.clone().filter(|prefix| !prefix.is_empty());
    Some(match users.source()? {
        server::EnvFromSource::Secret(source) => EnvFromSource {
            prefix,
            secret_ref: Some(SecretEnvSource { name: source.name.clone(), optional: source.optional.then_some(true) }),
            ..EnvFromSource::default()
        },
        server::EnvFromSource::ConfigMap(source) => EnvFromSource {
            prefix,
            config_map_ref: Some(ConfigMapEnvSource {
                name: source.name.clone(),
                optional: source.optional.then_some(true),
            }),
            ..EnvFromSource::default()
        },
    })
}

fn resources(users: &server::Resources) -> Option<ResourceRequirements> {
    let some = |amounts: &BTreeMap<String, Quantity>| (!amounts.is_empty()).then(|| amounts.clone());
    let built = ResourceRequirements {
        requests: some(&users.requests),
        limits: some(&users.limits),
        ..ResourceRequirements::default()
    };
    (built != ResourceRequirements::default()).then_some(built)
}

fn bridge_ports() -> Vec<ContainerPort> {
    [(DATA, ports::BRIDGE_DATA), (ADMIN, ports::BRIDGE_ADMIN)]
        .map(|(name, number)| ContainerPort {
            name: Some(name.into()),
            container_port: number.into(),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        })
        .into()
}

/// Every second: how soon a new revision serves depends on it.
fn readiness() -> Probe {
    Probe { period_seconds: Some(1), timeout_seconds: Some(2), failure_threshold: Some(3), ..get(wire::READYZ) }
}

/// The bridge itself. A server that hangs is the readiness probe's matter.
fn liveness() -> Probe {
    Probe { period_seconds: Some(10), timeout_seconds: Some(5), failure_threshold: Some(3), ..get(wire::LIVEZ) }
}

fn get(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(ADMIN.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
