//! The pod template of a revision, kept as Kubernetes keeps those of a StatefulSet: a later spec no longer says it, and a
//! Deployment that someone edited by hand does not either.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::runtime::RawExtension,
};
use portolan_crds::{OPERATOR_MANAGER, conditions::reasons};

use super::Parts;
use crate::{error::Error, server::rollout::Planned};

pub(super) fn controller_revision(
    parts: &Parts<'_>,
    planned: &Planned,
    template: &PodTemplateSpec,
) -> Result<ControllerRevision, Error> {
    let data = serde_json::to_value(template).map_err(|error| Error::stalled(reasons::INVALID, error.to_string()))?;
    Ok(ControllerRevision {
        metadata: parts.revision_metadata(&planned.name),
        revision: planned.generation,
        data: Some(RawExtension(data)),
    })
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
