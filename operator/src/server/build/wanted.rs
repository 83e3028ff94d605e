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

/// What status says of what was.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Before<'a> {
    /// The revision that serves.
    pub(in crate::server) serving: Option<&'a str>,
    /// Whether that was what the spec asked for, as the spec is now.
    pub(in crate::server) is_settled: bool,
}

/// What the spec asks for now.
pub(in crate::server) fn wanted(
    validated: &Validated<'_>,
    observed: &Observed,
    before: Before<'_>,
    owner: &Owner,
    config: &Config,
) -> Result<Wanted, Error> {
    let parts = Parts::new(validated, owner, config);
    let template = pod::template(&parts);
    let desired = match (&validated.content, &template) {
        (Ok(content), Some(template)) => Some(revision::name(parts.server, template, content)?),
        _ => None,
    };
    let release = config.release();
    let roll = desired.as_deref().and_then(|desired| roll(desired, &release, validated, observed, before));
    let made_by = MadeBy { release: Some(release), is_roll: roll.is_some() };
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
    release: &str,
    validated: &Validated<'_>,
    observed: &Observed,
    before: Before<'_>,
) -> Option<Roll> {
    let existing = observed.revisions();
    let named = |name: &str| existing.iter().find(|revision| revision.name == name);
    let serving = rollout::current(Some(desired), before.serving, &existing).filter(|current| *current != desired);
    let serving = named(serving?)?;
    let has_begun = named(desired).is_some_and(|revision| revision.made_by.is_roll);
    let is_of_another = serving.made_by.release.as_deref() != Some(release);
    // What its author has changed since is not settled.
    let is_roll = is_of_another
        && (has_begun || before.is_settled && named(desired).is_none())
        && has_something_to_lose(serving, validated, observed);
    is_roll.then(|| Roll { serving: serving.name.clone(), has_begun })
}

/// Whether it answers, or would if it were called. One that does not answer can only get better.
fn has_something_to_lose(serving: &Existing, validated: &Validated<'_>, observed: &Observed) -> bool {
    observed.answering(&serving.name).next().is_some() || serving.replicas == 0 && validated.sleep().is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::apps::v1::Deployment;
    use portolan_crds::MCPServer;
    use serde_json::json;

    use super::*;
    use crate::server::{build::*, fixtures, validate};

    const OLD: &str = "everything-00000000";

    /// A revision that serves, of the release before.
    fn serving() -> Observed {
        let pods = vec![fixtures::pod("p", OLD, true)];
        Observed {
            deployments: vec![deployment(OLD, &[(SERVING_SINCE, "1970-01-01T00:00:01Z"), (RELEASE, "before")])],
            pods,
            ..fixtures::nothing()
        }
    }

    fn deployment(name: &str, annotations: &[(&str, &str)]) -> Deployment {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
        }))
        .unwrap()
    }

    fn wanted_of(server: &MCPServer, observed: &Observed, is_settled: bool) -> Wanted {
        let validated = validate::validate(server, "everything", observed);
        let before = Before { serving: Some(OLD), is_settled };
        wanted(&validated, observed, before, &Owner::of(server).unwrap(), &fixtures::config()).unwrap()
    }

    #[test]
    fn what_only_another_release_makes_another_revision_has_to_wait_and_what_its_author_changed_has_not() {
        let (server, config) = (fixtures::stdio(), fixtures::config());
        let rolls =
            |observed: &Observed, is_settled| wanted_of(&server, observed, is_settled).roll.map(|roll| roll.has_begun);
        assert_eq!(rolls(&serving(), true), Some(false));
        assert_eq!(rolls(&serving(), false), None, "the spec is another since");
        let desired = wanted_of(&server, &serving(), true).desired.unwrap();
        let beside = |annotations: &[(&str, &str)]| {
            let mut observed = serving();
            observed.deployments.push(deployment(&desired, annotations));
            observed
        };
        assert_eq!(rolls(&beside(&[(ROLL, "true")]), false), Some(true), "it goes on as it began");
        assert_eq!(rolls(&beside(&[]), true), None, "its author has asked for that one");
        let mut same = serving();
        same.deployments[0].metadata.annotations.get_or_insert_default().insert(RELEASE.into(), config.release());
        assert_eq!(rolls(&same, true), None, "a ConfigMap, say, is another");
        let mut unmarked = serving();
        unmarked.deployments[0].metadata.annotations.get_or_insert_default().remove(RELEASE);
        assert_eq!(rolls(&unmarked, true), Some(false), "of a release that did not say which it was");
        let mut silent = serving();
        silent.pods.clear();
        assert_eq!(rolls(&silent, true), None, "what does not answer has nothing to lose");
    }

    #[test]
    fn a_revision_that_waits_for_its_turn_leaves_the_one_that_serves_as_it_is() {
        let (server, observed) = (fixtures::stdio(), serving());
        let validated = validate::validate(&server, "everything", &observed);
        let owner = Owner::of(&server).unwrap();
        let plan = |wanted: &Wanted| {
            let built = build(wanted, &validated, &observed, Some(OLD), &owner, &fixtures::config()).unwrap();
            let revision = |planned: &rollout::Planned| (planned.name.clone(), planned.made_by.clone());
            built.plan.revisions.iter().map(revision).collect::<Vec<_>>()
        };
        let now = wanted_of(&server, &observed, true);
        let made_by = MadeBy { release: Some(fixtures::config().release()), is_roll: true };
        assert!(plan(&now).iter().any(|(name, by)| name != OLD && *by == made_by));
        let before = MadeBy { release: Some("before".to_owned()), is_roll: false };
        assert_eq!(plan(&now.put_off()), [(OLD.to_owned(), before)]);
    }
}
