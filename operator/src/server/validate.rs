//! Whether what the spec names exists and can be used. Pure.

use std::collections::BTreeMap;

use portolan_crds::{
    MCPServer, MCPServerSpec,
    conditions::{reasons, types},
    server::{RolloutType, Sleep},
};
use ring::digest;

use super::{
    observed::{Mac, Observed},
    references::{self, Kind, Reference},
};
use crate::error::Error;

/// Access modes with which the pods of two revisions can hold a claim at once.
const SHAREABLE: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];

/// A spec whose references were looked up.
#[derive(Debug)]
pub(super) struct Validated<'a> {
    /// Name of the server.
    pub(super) server: &'a str,
    /// Its spec.
    pub(super) spec: &'a MCPServerSpec,
    /// `metadata.generation`.
    pub(super) generation: i64,
    /// How many pods it is to have: what the spec says, or its load asks for.
    pub(super) replicas: i32,
    /// The MAC key of its bridges.
    pub(super) mac: Mac,
    /// Digest of everything outside the spec that the process is given; what is missing otherwise. Without it nobody
    /// knows which revision is desired, and those that exist go on.
    pub(super) content: Result<[u8; 32], Error>,
}

impl Validated<'_> {
    /// When the server sleeps; `None` where it always has pods.
    pub(super) fn sleep(&self) -> Option<Sleep> {
        self.spec.autoscaling.as_ref()?.sleep()
    }
}

/// Checks references and claims.
pub(super) fn validate<'a>(server: &'a MCPServer, name: &'a str, observed: &Observed) -> Validated<'a> {
    let references = references::references(&server.spec);
    let content = in_one_place(&server.spec)
        .and_then(|()| references.iter().try_for_each(|reference| resolve(reference, observed)))
        .and_then(|()| claims(&server.spec, observed))
        .map(|()| digest_of(&references, observed));
    Validated {
        server: name,
        spec: &server.spec,
        generation: server.metadata.generation.unwrap_or_default(),
        replicas: observed.replicas,
        mac: observed.mac,
        content,
    }
}

/// An object that came past admission may say otherwise.
fn in_one_place(spec: &MCPServerSpec) -> Result<(), Error> {
    match spec.place() {
        Some(_) => Ok(()),
        None => Err(unresolved(reasons::INVALID, "spec has none or both of container and remote: write one".into())),
    }
}

fn resolve(reference: &Reference, observed: &Observed) -> Result<(), Error> {
    let Reference { kind, name, key, optional, field, .. } = reference;
    if *optional {
        return Ok(());
    }
    let Some(content) = observed.contents.get(&(*kind, name.clone())).and_then(Option::as_ref) else {
        let reason = match kind {
            Kind::Secret => reasons::SECRET_NOT_FOUND,
            Kind::ConfigMap => reasons::CONFIG_MAP_NOT_FOUND,
        };
        return Err(unresolved(
            reason,
            format!("{kind} {name} does not exist and {field} needs it: create it{}", hint(reference)),
        ));
    };
    match key {
        Some(key) if !content.keys.contains(key) => Err(unresolved(
            reasons::KEY_NOT_FOUND,
            format!("{kind} {name} has no key {key} and {field} needs it: add the key{}", hint(reference)),
        )),
        _ => Ok(()),
    }
}

/// Pull secrets have no `optional`, and what a relay is given neither.
fn hint(reference: &Reference) -> &'static str {
    match reference.content {
        true if reference.field.starts_with("spec.remote.") => "",
        true => ", or write optional: true",
        false => ", or remove the entry",
    }
}

fn unresolved(reason: &'static str, message: String) -> Error {
    Error::stalled(reason, message).on(types::RESOLVED_REFS)
}

fn claims(spec: &MCPServerSpec, observed: &Observed) -> Result<(), Error> {
    for (name, modes) in &observed.claims {
        let Some(modes) = modes else {
            let message =
                format!("PersistentVolumeClaim {name} does not exist and spec.container.volumes needs it: create it");
            return Err(unresolved(reasons::CLAIM_NOT_FOUND, message));
        };
        let most = spec.autoscaling.as_ref().map_or(spec.replicas, |autoscaling| autoscaling.max_replicas);
        let together = match (spec.rollout.type_, most) {
            (RolloutType::BlueGreen | RolloutType::Canary, _) => {
                "during a rollout the pods of two revisions mount it at once; write rollout.type: Recreate"
            }
            (RolloutType::Recreate, 2..) => "several replicas mount it at once; write replicas: 1, without autoscaling",
            (RolloutType::Recreate, _) => continue,
        };
        if !modes.iter().any(|mode| SHAREABLE.contains(&mode.as_str())) {
            let message = format!(
                "PersistentVolumeClaim {name} is {}: {together}, or use a claim with access mode ReadWriteMany or \
                 ReadOnlyMany",
                modes.join(", ")
            );
            return Err(unresolved(reasons::CLAIM_NOT_SHAREABLE, message));
        }
    }
    Ok(())
}

/// Digest of the content that reaches the process, each object once, by kind and name.
fn digest_of(references: &[Reference], observed: &Observed) -> [u8; 32] {
    let used: BTreeMap<_, _> = references
        .iter()
        .filter(|reference| reference.content)
        .map(|reference| (reference.kind, reference.name.as_str()))
        .map(|(kind, name)| ((kind, name), observed.contents.get(&(kind, name.to_owned())).and_then(Option::as_ref)))
        .collect();
    let mut context = digest::Context::new(&digest::SHA256);
    for ((kind, name), content) in used {
        context.update(format!("{kind}/{name}\0").as_bytes());
        context.update(content.map_or(&[0; 32], |content| &content.digest));
    }
    // A key that was made anew after its Secret was deleted reaches the bridges with the pods.
    context.update(&observed.mac.0);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests;
