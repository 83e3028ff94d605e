//! The revision that a spec asks for; and, where only another release of this program makes it another one than the one that serves, that
//! it may have to wait.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{Parts, pod};
use crate::{
    apply::Owner,
    config::Config,
    error::Error,
    server::{
        observed::Observed,
        revision,
        rollout::{self, Existing, MadeBy},
        validate::Validated,
    },
};

/// What the spec asks for.
#[derive(Debug)]
pub(in crate::server) struct Wanted {
    /// The revision; `None` while what it refers to is missing.
    pub(super) desired: Option<String>,
    /// The template of its pods; `None` where those that it has stay.
    pub(super) template: Option<PodTemplateSpec>,
    /// What makes it so; `None` where that is not told anew.
    pub(super) made_by: Option<MadeBy>,
    /// That only another release makes it another revision than the one that serves.
    pub(in crate::server) roll: Option<Roll>,
}

/// A rollout for another release.
#[derive(Debug)]
pub(in crate::server) struct Roll {
    /// The revision that serves.
    serving: String,
    /// Whether the other one is there.
    pub(in crate::server) has_begun: bool,
}

/// What the spec asks for now.
pub(in crate::server) fn wanted(
    validated: &Validated<'_>,
    observed: &Observed,
    remembered: Option<&str>,
    owner: &Owner,
    config: &Config,
) -> Result<Wanted, Error> {
    let parts = Parts::new(validated, owner, config);
    let template = pod::template(&parts);
    let desired = match (&validated.content, &template) {
        (Ok(content), Some(template)) => Some(revision::name(parts.server, template, content)?),
        _ => None,
    };
    let made_by = MadeBy { release: Some(config.release()), generation: Some(validated.generation) };
    let roll = desired.as_deref().and_then(|desired| roll(desired, &made_by, validated, observed, remembered));
    Ok(Wanted { desired, template, made_by: Some(made_by), roll })
}

impl Wanted {
    /// The revision that serves, as it is, in the place of another release's.
    pub(in crate::server) fn put_off(self) -> Self {
        match self.roll {
            Some(Roll { serving, .. }) => Self { desired: Some(serving), template: None, made_by: None, roll: None },
            None => self,
        }
    }
}

fn roll(
    desired: &str,
    made_by: &MadeBy,
    validated: &Validated<'_>,
    observed: &Observed,
    remembered: Option<&str>,
) -> Option<Roll> {
    let existing = observed.revisions();
    let current = rollout::current(Some(desired), remembered, &existing).filter(|current| *current != desired)?;
    let serving = existing.iter().find(|revision| revision.name == current)?;
    let is_asked_by_release =
        is_of_another_release(serving, made_by) && has_something_to_lose(serving, validated, observed);
    let has_begun = observed.deployment(desired).is_some();
    is_asked_by_release.then(|| Roll { serving: current.to_owned(), has_begun })
}

/// Whether another release asked for it, with the spec that there is now. One that did not say when it was asked for last was so when it was
/// made.
fn is_of_another_release(serving: &Existing, made_by: &MadeBy) -> bool {
    let asked_at = serving.made_by.generation.unwrap_or(serving.generation);
    serving.made_by.release != made_by.release && Some(asked_at) == made_by.generation
}

/// Whether it answers, or would if it were called. One that does not answer can only get better.
fn has_something_to_lose(serving: &Existing, validated: &Validated<'_>, observed: &Observed) -> bool {
    observed.answering(&serving.name).next().is_some() || serving.replicas == 0 && validated.sleep().is_some()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use portolan_crds::MCPServer;
    use serde_json::json;

    use super::*;
    use crate::server::{build::*, fixtures, validate};

    const OLD: &str = "everything-00000000";

    fn serving(annotations: &serde_json::Value) -> Observed {
        let mut deployment = json!({
            "metadata": {"name": OLD, "annotations": {(SERVING_SINCE): "1970-01-01T00:00:01Z"}},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
        });
        let all = deployment["metadata"]["annotations"].as_object_mut().unwrap();
        all.extend(annotations.as_object().unwrap().clone());
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pods = vec![fixtures::pod("p", OLD, true)];
        Observed { deployments: vec![deployment], pods, ..fixtures::nothing() }
    }

    fn wanted_of(server: &MCPServer, observed: &Observed) -> Wanted {
        let validated = validate::validate(server, "everything", observed);
        wanted(&validated, observed, Some(OLD), &Owner::of(server).unwrap(), &fixtures::config()).unwrap()
    }

    #[test]
    fn what_only_another_release_makes_another_revision_has_to_wait_and_what_its_author_changed_has_not() {
        let server = fixtures::stdio();
        let release = fixtures::config().release();
        let rolls = |annotations: serde_json::Value| wanted_of(&server, &serving(&annotations)).roll.is_some();
        assert!(rolls(json!({(RELEASE): "before", (ASKED_AT): "3"})));
        assert!(rolls(json!({"portolan.dev/generation": "3"})), "a release that did not say");
        assert!(!rolls(json!({(RELEASE): "before", (ASKED_AT): "2"})), "the spec is another");
        assert!(!rolls(json!({(RELEASE): release, (ASKED_AT): "3"})), "a ConfigMap, say, is another");
        let mut silent = serving(&json!({(RELEASE): "before", (ASKED_AT): "3"}));
        silent.pods.clear();
        assert!(wanted_of(&server, &silent).roll.is_none(), "what does not answer has nothing to lose");
    }

    #[test]
    fn a_revision_that_waits_for_its_turn_leaves_the_one_that_serves_as_it_is() {
        let (server, observed) = (fixtures::stdio(), serving(&json!({(RELEASE): "before", (ASKED_AT): "3"})));
        let validated = validate::validate(&server, "everything", &observed);
        let owner = Owner::of(&server).unwrap();
        let plan = |wanted: &Wanted| {
            let built = build(wanted, &validated, &observed, Some(OLD), &owner, &fixtures::config()).unwrap();
            let revision = |planned: &rollout::Planned| (planned.name.clone(), planned.made_by.release.clone());
            built.plan.revisions.iter().map(revision).collect::<Vec<_>>()
        };
        let now = wanted_of(&server, &observed);
        assert!(plan(&now).iter().any(|(name, release)| name != OLD && *release == Some(fixtures::config().release())));
        assert_eq!(plan(&now.put_off()), [(OLD.to_owned(), Some("before".to_owned()))]);
    }
}
