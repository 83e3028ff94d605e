//! The Deployment of a revision, and what the operator remembers on it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use portolan_crds::labels;

use super::{Parts, autoscaler};
use crate::server::rollout::Planned;

/// Annotation: when the revision began to serve, RFC 3339.
pub(in crate::server) const SERVING_SINCE: &str = "portolan.dev/serving-since";
/// Annotation: when the revision began to drain, RFC 3339.
pub(in crate::server) const DRAINING_SINCE: &str = "portolan.dev/draining-since";
/// Annotation: at which of the rollout's steps the revision is, from 0.
pub(in crate::server) const STEP: &str = "portolan.dev/canary-step";
/// Annotation: since when it is there, RFC 3339.
pub(in crate::server) const STEP_SINCE: &str = "portolan.dev/canary-step-since";
/// Annotation: why the revision was rolled back.
pub(in crate::server) const ROLLED_BACK: &str = "portolan.dev/rolled-back";

/// Annotation: the release that asked for the revision last.
pub(in crate::server) const RELEASE: &str = "portolan.dev/release";
/// Annotation: that it was made only because that was another release.
pub(in crate::server) const ROLL: &str = "portolan.dev/release-roll";

/// The Deployment of a revision whose template is known; without a number of pods where an autoscaler decides.
pub(super) fn of(
    parts: &Parts<'_>,
    planned: &Planned,
    template: &PodTemplateSpec,
    live: Option<&Deployment>,
) -> Deployment {
    let selector =
        [(labels::SERVER.to_owned(), parts.server.to_owned()), (labels::REVISION.to_owned(), planned.name.clone())];
    let mut template = template.clone();
    let pod_labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    pod_labels.insert(labels::REVISION.into(), planned.name.clone());
    let spec = DeploymentSpec {
        replicas: replicas(parts, planned, live),
        selector: LabelSelector { match_labels: Some(selector.into()), ..LabelSelector::default() },
        template,
        // A change of the template is another Deployment.
        revision_history_limit: Some(0),
        ..DeploymentSpec::default()
    };
    with_state(parts, planned, spec)
}

/// The Deployment of an older revision whose template nobody kept, as the API server has it; `None` when it already is as
/// planned.
pub(super) fn untouched(parts: &Parts<'_>, planned: &Planned, live: &Deployment) -> Option<Deployment> {
    let spec = live.spec.clone()?;
    let replicas = replicas(parts, planned, Some(live));
    let unchanged = replicas.is_none_or(|replicas| spec.replicas == Some(replicas))
        && state(planned).iter().all(|(key, value)| annotation(live, key) == value.as_deref());
    let spec = DeploymentSpec { replicas, ..spec };
    (!unchanged).then(|| with_state(parts, planned, spec))
}

/// How many pods the operator asks for; `None` where an autoscaler does.
fn replicas(parts: &Parts<'_>, planned: &Planned, live: Option<&Deployment>) -> Option<i32> {
    (!autoscaler::decides(parts, planned, live)).then_some(planned.replicas)
}

/// The annotation's value.
pub(in crate::server) fn annotation<'a>(deployment: &'a Deployment, key: &str) -> Option<&'a str> {
    deployment.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn with_state(parts: &Parts<'_>, planned: &Planned, spec: DeploymentSpec) -> Deployment {
    let mut metadata = parts.revision_metadata(&planned.name);
    let annotations: BTreeMap<_, _> =
        state(planned).into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    metadata.annotations = Some(annotations);
    Deployment { metadata, spec: Some(spec), status: None }
}

fn state(planned: &Planned) -> [(&'static str, Option<String>); 8] {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    [
        (labels::GENERATION, Some(planned.generation.to_string())),
        (SERVING_SINCE, text(planned.serving_since)),
        (DRAINING_SINCE, text(planned.draining_since)),
        (STEP, planned.step.map(|step| step.index.to_string())),
        (STEP_SINCE, text(planned.step.map(|step| step.since))),
        (ROLLED_BACK, planned.rolled_back.clone()),
        (RELEASE, planned.made_by.release.clone()),
        (ROLL, planned.made_by.is_roll.then(|| "true".to_owned())),
    ]
}
