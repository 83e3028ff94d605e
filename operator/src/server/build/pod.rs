//! The pod template of a server: everything but the revision's name, which is a hash of it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
        PodTemplateSpec, SeccompProfile, SecretVolumeSource, TopologySpreadConstraint, Volume,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use portolan_crds::{
    MCPServerSpec,
    server::{self, Place, Transport, VolumeSource},
};

use super::{Parts, container, relay};
use crate::macs;

/// Where the bridge's binary is, for containers other than its own.
pub(super) const BIN: &str = "portolan-bin";
/// The MAC key.
pub(super) const KEY: &str = "portolan-key";
/// Writable `/tmp`.
pub(super) const TMP: &str = "portolan-tmp";
/// Writable home.
pub(super) const HOME: &str = "portolan-home";

/// User and group of a server that asks for none: the `nonroot` of common base images.
const NONROOT: i64 = 65532;
/// Read by owner and group: the group is `fsGroup`, which the bridge's process has.
pub(super) const KEY_MODE: i32 = 0o440;
/// What is left between the bridge's drain timeout and the kubelet's SIGKILL.
const GRACE_SECONDS: u64 = 15;

/// The template without the revision's label; `None` for a spec that does not say where the server runs.
pub(super) fn template(parts: &Parts<'_>) -> Option<PodTemplateSpec> {
    let place = parts.spec.place()?;
    let pod = &parts.spec.pod;
    // The operator's own labels come last: selectors depend on them.
    let labels = pod.labels.clone().into_iter().chain(parts.labels()).collect();
    Some(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations(place, &pod.annotations)),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(parts, place)),
    })
}

/// `kubectl logs` and `kubectl exec` without `-c` mean the server, or its relay.
fn annotations(place: Place<'_>, users: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let default = match place {
        Place::Container(_) => container::SERVER,
        Place::Remote(_) => relay::RELAY,
    };
    let mut all = BTreeMap::from([("kubectl.kubernetes.io/default-container".to_owned(), default.to_owned())]);
    all.extend(users.clone());
    all
}

fn pod_spec(parts: &Parts<'_>, place: Place<'_>) -> PodSpec {
    match place {
        Place::Container(users) => PodSpec {
            init_containers: Some(vec![container::install(parts)]),
            containers: match users.transport {
                Transport::Stdio => vec![container::stdio(parts, users)],
                Transport::StreamableHttp | Transport::Sse => {
                    vec![container::http(parts, users), container::sidecar(parts, users)]
                }
            },
            volumes: Some(volumes(parts, users)),
            share_process_namespace: shares_processes(users),
            image_pull_secrets: some(pull_secrets(parts, &users.image_pull_secrets)),
            ..every_pod(parts)
        },
        Place::Remote(remote) => PodSpec {
            containers: vec![relay::container(parts, remote)],
            volumes: Some([key(parts)].into_iter().chain(relay::volume(remote)).collect()),
            image_pull_secrets: some(pull_secrets(parts, &[])),
            ..every_pod(parts)
        },
    }
}

fn every_pod(parts: &Parts<'_>) -> PodSpec {
    let pod = &parts.spec.pod;
    PodSpec {
        service_account_name: Some(parts.account_name()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_period(parts.spec)),
        security_context: Some(security_context(pod)),
        node_selector: some_map(pod.node_selector.clone()),
        tolerations: some(pod.tolerations.clone()),
        topology_spread_constraints: Some(spread(parts)),
        priority_class_name: pod.priority_class_name.clone(),
        runtime_class_name: pod.runtime_class_name.clone(),
        ..PodSpec::default()
    }
}

/// As the first process of a container a server that handles no SIGTERM does not get it either, and would stay for the
/// whole grace period after its bridge has drained. A stdio server's first process is the bridge.
fn shares_processes(users: &server::Container) -> Option<bool> {
    users.transport.is_http().then_some(true)
}

/// The drain timeout and some seconds more, so that the bridge ends by itself.
fn grace_period(spec: &MCPServerSpec) -> i64 {
    let drain = spec.rollout.drain_timeout.as_std();
    let whole = drain.as_secs() + u64::from(drain.subsec_nanos() > 0);
    i64::try_from(whole + GRACE_SECONDS).unwrap_or(i64::MAX)
}

fn security_context(pod: &server::Pod) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(pod.run_as_user.unwrap_or(NONROOT)),
        run_as_group: Some(pod.run_as_group.unwrap_or(NONROOT)),
        fs_group: Some(pod.fs_group.unwrap_or(NONROOT)),
        // A large volume is not walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".into()),
        supplemental_groups: some(pod.supplemental_groups.clone()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

/// Over the nodes when the user says nothing. It does not depend on `replicas`: scaling must not make a revision.
fn spread(parts: &Parts<'_>) -> Vec<TopologySpreadConstraint> {
    let users = &parts.spec.pod.topology_spread_constraints;
    if !users.is_empty() {
        return users.clone();
    }
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector { match_labels: Some(parts.selector()), ..LabelSelector::default() }),
        // Revisions are Deployments of their own; without this the old one's pods would count.
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    }]
}

/// The user's for the server's image, the operator's for the bridge's or the relay's.
fn pull_secrets(parts: &Parts<'_>, users: &[server::LocalName]) -> Vec<LocalObjectReference> {
    let users = users.iter().map(|secret| &secret.name);
    let mut names: Vec<_> = users.chain(parts.bridge.pull_secrets).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
}

fn volumes(parts: &Parts<'_>, container: &server::Container) -> Vec<Volume> {
    let mut volumes = vec![empty_dir(BIN), key(parts)];
    if container::mounts_nothing_at(container, container::TMP_PATH) {
        volumes.push(empty_dir(TMP));
    }
    if container::mounts_nothing_at(container, container::HOME_PATH) {
        volumes.push(empty_dir(HOME));
    }
    volumes.extend(container.volumes.iter().map(user_volume));
    volumes
}

fn empty_dir(name: &str) -> Volume {
    Volume { name: name.into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn key(parts: &Parts<'_>) -> Volume {
    Volume {
        name: KEY.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(macs::secret_name(parts.server)),
            default_mode: Some(KEY_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn user_volume(volume: &server::Volume) -> Volume {
    let mut built = Volume { name: volume.name.clone(), ..Volume::default() };
    match volume.source() {
        Some(VolumeSource::ConfigMap(source)) => built.config_map = Some(config_map(source)),
        Some(VolumeSource::Secret(source)) => built.secret = Some(user_secret(source)),
        Some(VolumeSource::EmptyDir(source)) => {
            built.empty_dir = Some(EmptyDirVolumeSource {
                medium: source.medium.map(|server::Medium::Memory| "Memory".into()),
                size_limit: source.size_limit.clone(),
            });
        }
        Some(VolumeSource::PersistentVolumeClaim(source)) => {
            built.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: source.claim_name.clone(),
                read_only: source.read_only.then_some(true),
            });
        }
        None => {}
    }
    built
}

fn config_map(source: &server::ConfigMapVolume) -> k8s_openapi::api::core::v1::ConfigMapVolumeSource {
    k8s_openapi::api::core::v1::ConfigMapVolumeSource {
        name: source.name.clone(),
        items: some(items(&source.items)),
        optional: source.optional.then_some(true),
        ..Default::default()
    }
}

fn user_secret(source: &server::SecretVolume) -> SecretVolumeSource {
    SecretVolumeSource {
        secret_name: Some(source.secret_name.clone()),
        items: some(items(&source.items)),
        optional: source.optional.then_some(true),
        ..SecretVolumeSource::default()
    }
}

fn items(items: &[server::KeyToPath]) -> Vec<k8s_openapi::api::core::v1::KeyToPath> {
    items
        .iter()
        .map(|item| k8s_openapi::api::core::v1::KeyToPath {
            key: item.key.clone(),
            path: item.path.clone(),
            mode: None,
        })
        .collect()
}

/// The API server drops empty lists; leaving them out keeps what we want equal to what it has.
pub(super) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn some_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    if map.is_empty() { None } else { Some(map) }
}
