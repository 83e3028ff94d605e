//! The pod template of a revision, kept as Kubernetes keeps those of a StatefulSet: a later spec no longer says it, and a
//! Deployment that someone edited by hand does not either.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::runtime::RawExtension,
};
use portolan_crds::{MCPServerSpec, OPERATOR_MANAGER, conditions::reasons, labels};

use super::Parts;
use crate::{
    error::Error,
    server::rollout::{Plan, Planned},
};

/// Annotations of an object have 256 KiB.
const MAX_SPEC_BYTES: usize = 128 * 1024;

pub(super) fn controller_revision(
    parts: &Parts<'_>,
    planned: &Planned,
    template: &PodTemplateSpec,
    before: Option<&ControllerRevision>,
) -> Result<ControllerRevision, Error> {
    let data = serde_json::to_value(template).map_err(|error| Error::stalled(reasons::INVALID, error.to_string()))?;
    let mut metadata = parts.revision_metadata(&planned.name);
    // That it served once is not forgotten while it comes up again.
    let before = || before?.metadata.annotations.as_ref()?.get(labels::SERVED_SINCE).cloned();
    let served = planned.serving_since.map(|since| since.to_string()).or_else(before);
    let served = served.map(|since| (labels::SERVED_SINCE.to_owned(), since));
    let spec = asked_for(parts).map(|spec| (labels::SPEC.to_owned(), spec));
    metadata.annotations = Some(served.into_iter().chain(spec).collect());
    Ok(ControllerRevision { metadata, revision: planned.generation, data: Some(RawExtension(data)) })
}

/// The spec that asks for the revision; `None` where it does not fit beside the template.
fn asked_for(parts: &Parts<'_>) -> Option<String> {
    let mut spec = serde_json::to_value(parts.spec).ok()?;
    let fields = spec.as_object_mut()?;
    MCPServerSpec::NOT_OF_A_REVISION.iter().for_each(|field| drop(fields.remove(*field)));
    Some(spec.to_string()).filter(|spec| spec.len() <= MAX_SPEC_BYTES)
}

/// Revisions that have served and are gone, of which as many are remembered as `limit` says: those that served last.
pub(super) fn history<'a>(templates: &'a [ControllerRevision], plan: &Plan, limit: u32) -> Vec<&'a str> {
    let served = |template: &'a ControllerRevision| {
        let since = template.metadata.annotations.as_ref()?.get(labels::SERVED_SINCE)?;
        Some((since.parse::<Timestamp>().ok()?, template.metadata.name.as_deref()?))
    };
    let is_gone = |(_, name): &(Timestamp, &str)| plan.revision(name).is_none();
    let mut gone: Vec<_> = templates.iter().filter_map(served).filter(is_gone).collect();
    gone.sort_unstable_by(|one, other| other.cmp(one));
    gone.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|(_, name)| name).collect()
}

/// The template that was kept; `None` when it is not one.
pub(super) fn kept(controller_revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(controller_revision.data.clone()?.0).ok()
}

/// The template that a Deployment runs, where nobody but the operator wrote a field of it.
pub(super) fn unedited(live: &Deployment) -> Option<&PodTemplateSpec> {
    let entries = live.metadata.managed_fields.as_ref()?;
    let is_edited = entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(OPERATOR_MANAGER))
        .any(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:template").is_some()));
    if is_edited { None } else { Some(&live.spec.as_ref()?.template) }
}
