//! The gateway's Deployment: restricted pods with a read-only root, that drain before they end.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, KeyToPath,
            LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
            SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use portolan_crds::ports;
use portolan_snapshot::inputs::secret_key;

use super::{Parts, selector};

/// Name of the port for clients.
pub(super) const HTTP: &str = "http";
/// Name of the port for probes and the operator.
const ADMIN: &str = "admin";
/// Where the seal key is mounted.
const SEAL_DIRECTORY: &str = "/var/run/portolan";
/// Where the last good inputs are kept.
const STATE_DIRECTORY: &str = "/var/lib/portolan";
/// User and group of the pods: those that the image names.
const USER: i64 = 65532;
/// From SIGTERM to SIGKILL: longer than a gateway's whole drain (5 s for load balancers, 40 s for calls in flight).
const GRACE_SECONDS: i64 = 60;

pub(super) fn deployment(parts: &Parts<'_>) -> Deployment {
    let labels = selector(parts.owner.name());
    let spec = DeploymentSpec {
        replicas: Some(parts.gateway.spec.replicas),
        selector: LabelSelector { match_labels: Some(labels), ..LabelSelector::default() },
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(1)),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        }),
        revision_history_limit: Some(2),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(parts.labels()), ..ObjectMeta::default() }),
            spec: Some(pod(parts)),
        },
        ..DeploymentSpec::default()
    };
    Deployment { metadata: parts.metadata(), spec: Some(spec), ..Deployment::default() }
}

fn pod(parts: &Parts<'_>) -> PodSpec {
    let config = parts.config;
    let secrets = &config.images.pull_secrets;
    PodSpec {
        service_account_name: Some(config.gateway_service_account.clone()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: (!secrets.is_empty())
            .then(|| secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector(parts.owner.name())),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        }]),
        containers: vec![container(parts)],
        volumes: Some(vec![seal_volume(parts), state_volume()]),
        ..PodSpec::default()
    }
}

fn container(parts: &Parts<'_>) -> Container {
    let config = parts.config;
    Container {
        name: "gateway".into(),
        image: Some(config.images.portolan.clone()),
        image_pull_policy: config.images.pull_policy.clone(),
        args: Some(vec![
            "gateway".into(),
            format!("--name={}", parts.owner.name()),
            format!("--namespace={}", parts.owner.namespace()),
            format!("--tenant-namespaces={}", config.tenant_namespaces.join(",")),
            format!("--cluster-domain={}", config.cluster_domain),
            format!("--seal-key={SEAL_DIRECTORY}/{}", secret_key::SEAL),
            format!("--state-dir={STATE_DIRECTORY}"),
        ]),
        ports: Some(vec![port(HTTP, ports::GATEWAY_HTTP), port(ADMIN, ports::GATEWAY_ADMIN)]),
        readiness_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(2), ..probe("/readyz") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez") }),
        resources: Some(ResourceRequirements {
            requests: Some([quantity("cpu", "50m"), quantity("memory", "64Mi")].into()),
            limits: Some([quantity("memory", "512Mi")].into()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            VolumeMount {
                name: secret_key::SEAL.into(),
                mount_path: SEAL_DIRECTORY.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            VolumeMount { name: "state".into(), mount_path: STATE_DIRECTORY.into(), ..VolumeMount::default() },
        ]),
        ..Container::default()
    }
}

/// One entry of the Secret, not the whole of it: the rest is read by name, so that its changes are seen at once.
fn seal_volume(parts: &Parts<'_>) -> Volume {
    Volume {
        name: secret_key::SEAL.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(parts.name()),
            items: Some(vec![KeyToPath {
                key: secret_key::SEAL.into(),
                path: secret_key::SEAL.into(),
                mode: Some(0o440),
            }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn state_volume() -> Volume {
    Volume {
        name: "state".into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("64Mi".into())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str) -> Probe {
    let get =
        HTTPGetAction { path: Some(path.into()), port: IntOrString::String(ADMIN.into()), ..HTTPGetAction::default() };
    Probe { http_get: Some(get), timeout_seconds: Some(2), ..Probe::default() }
}

fn quantity(resource: &str, amount: &str) -> (String, Quantity) {
    (resource.into(), Quantity(amount.into()))
}
