//! What the cluster is to hold for one server. Pure: no client, no clock, no environment; one kind a file.

mod autoscaler;
mod container;
mod deployment;
mod flags;
mod network_policy;
mod pod;
mod relay;
mod secret;
mod service;
mod service_account;
mod template;
mod tools;
mod wanted;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, PodTemplateSpec, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use portolan_crds::{MCPServerSpec, labels, server::Remote};

pub(super) use container::{BRIDGE, SERVER};
pub(super) use deployment::{DRAINING_SINCE, RELEASE, ROLL, ROLLED_BACK, SERVING_SINCE, STEP, STEP_SINCE, annotation};
pub(super) use relay::RELAY;
pub(super) use tools::{name as tools_name, stored_hash};
pub(super) use wanted::{Before, Wanted, wanted};

use super::{
    observed::Observed,
    rollout::{self, Plan, Wish},
    tool_changes::Changes,
    validate::Validated,
};
use crate::{
    apply::{Owner, Prepared, Resources},
    config::{Config, OPERATOR_APP},
    disruption,
    error::Error,
    loaded::Programmed,
};

/// Value of `app.kubernetes.io/name` on what belongs to a server.
const APP: &str = "mcp-server";
/// Value of `app.kubernetes.io/name` on gateways' pods.
const GATEWAY_APP: &str = "portolan-gateway";

/// Children and the decision that they follow from.
#[derive(Debug)]
pub(super) struct Built {
    /// The children.
    pub(super) resources: Resources<Prepared>,
    /// What every revision is to be.
    pub(super) plan: Plan,
    /// The revision that the spec asks for; `None` while what it refers to is missing.
    pub(super) desired: Option<String>,
    /// How its tools differ from those of the one that serves, where they may not.
    pub(super) tool_changes: Option<Changes>,
}

/// Builds everything that is `wanted`.
pub(super) fn build(
    wanted: &Wanted,
    validated: &Validated<'_>,
    observed: &Observed,
    remembered: Option<&str>,
    owner: &Owner,
    config: &Config,
) -> Result<Built, Error> {
    let parts = Parts::new(validated, owner, config);
    let desired = wanted.desired.clone();
    let (mut plan, tool_changes) = plan(validated, observed, remembered, desired.as_deref());
    for planned in plan.revisions.iter_mut().filter(|planned| desired.as_ref() == Some(&planned.name)) {
        planned.made_by = wanted.made_by.clone().unwrap_or_else(|| planned.made_by.clone());
    }
    let mut resources = Resources::new(owner.clone());
    resources.add(&service_account::service_account(&parts))?;
    resources.add(&secret::secret(&parts))?;
    resources.add(&network_policy::network_policy(&parts, &observed.deployments))?;
    // While none serves, the one that did is still whose pods matter.
    match plan.serving() {
        Some(serving) => resources.add(&parts.disruption_budget(&serving.name))?,
        None => resources.keep::<PodDisruptionBudget>(&parts.account_name()),
    }
    for planned in &plan.revisions {
        let template = wanted.template.as_ref().filter(|_| desired.as_deref() == Some(&planned.name));
        add_revision(&mut resources, &parts, observed, planned, template)?;
    }
    for gone in template::history(&observed.templates, &plan, validated.spec.rollout.revision_history_limit) {
        resources.keep::<ControllerRevision>(gone);
    }
    let selector = format!("{}={}", labels::SERVER, parts.server);
    resources.prune::<Deployment>(&selector);
    resources.prune::<HorizontalPodAutoscaler>(&selector);
    resources.prune::<ControllerRevision>(&selector);
    resources.prune::<Service>(&selector);
    resources.prune::<ConfigMap>(&selector);
    Ok(Built { resources, plan, desired, tool_changes })
}

fn plan(
    validated: &Validated<'_>,
    observed: &Observed,
    remembered: Option<&str>,
    desired: Option<&str>,
) -> (Plan, Option<Changes>) {
    let existing = observed.revisions();
    let is_programmed = |(_, programmed): &(_, &Programmed)| !matches!(programmed, Programmed::Waiting(_));
    let programmed: Vec<_> =
        observed.programmed.iter().filter(is_programmed).map(|(sending, _)| sending.clone()).collect();
    let current = rollout::current(desired, remembered, &existing);
    let serving = current.filter(|name| Some(*name) != desired);
    let tool_changes = match (serving, desired) {
        (Some(serving), Some(desired)) if !validated.spec.rollout.allow_tool_changes => {
            observed.tool_changes(serving, desired)
        }
        _ => None,
    };
    // A revision is seen to answer before it serves, also where no pod is needed for callers.
    let is_changing = desired.is_some() && current != desired;
    let replicas =
        if is_changing && validated.sleep().is_some() { validated.replicas.max(1) } else { validated.replicas };
    let wish = Wish {
        desired,
        has_other_tools: tool_changes.is_some(),
        is_checked: validated.spec.canary_checks.is_some(),
        generation: validated.generation,
        replicas,
        type_: validated.spec.rollout.type_,
        steps: validated.spec.rollout.steps(),
        compared: &observed.compared.compared,
        paused: validated.spec.rollout.paused,
        promote: validated.spec.rollout.promote.as_deref(),
        abort: validated.spec.rollout.abort.as_deref(),
        drain_timeout: validated.spec.rollout.drain_timeout.as_std(),
        remembered,
        programmed: &programmed,
        strays: observed.strays().next().is_some(),
        now: observed.now,
    };
    (rollout::plan(&wish, &existing), tool_changes)
}

/// The objects of one revision; `template` is the desired one's. That of an older one was kept; if someone deleted it, the
/// Deployment still has it. Only if someone edited that too, it stays as it is, apart from its replicas and what is
/// remembered on it.
fn add_revision(
    resources: &mut Resources<Prepared>,
    parts: &Parts<'_>,
    observed: &Observed,
    planned: &rollout::Planned,
    template: Option<&PodTemplateSpec>,
) -> Result<(), Error> {
    let live = observed.deployment(&planned.name);
    if live.is_none() && planned.waits(parts.validated.replicas) {
        // A Deployment that was made with no replicas is complete, and would never say that its pods do not come up.
        resources.keep::<ControllerRevision>(&planned.name);
        return Ok(());
    }
    resources.add_independent(&service::service(parts, &planned.name))?;
    let kept = observed.template(&planned.name).and_then(template::kept);
    if let Some(template) = kept.as_ref().filter(|_| template.is_none() && live.is_some()) {
        resources.keep::<ControllerRevision>(&planned.name);
        resources.add_independent(&deployment::of(parts, planned, template, live))?;
    } else if let Some(template) = template.or_else(|| template::unedited(live?)) {
        resources.add_independent(&template::controller_revision(
            parts,
            planned,
            template,
            observed.template(&planned.name),
        )?)?;
        resources.add_independent(&deployment::of(parts, planned, template, live))?;
    } else if let Some(live) = live {
        match deployment::untouched(parts, planned, live) {
            Some(deployment) => resources.add_independent(&deployment)?,
            None => resources.keep::<Deployment>(&planned.name),
        }
    }
    // By now the Deployment is ready to be left to it.
    if let Some(autoscaler) = autoscaler::of(parts, planned, live) {
        resources.add_independent(&autoscaler)?;
    }
    match observed.definitions.get(&planned.name) {
        Some(definitions) => resources.add_independent(&tools::config_map(parts, &planned.name, definitions)?)?,
        None => resources.keep::<ConfigMap>(&tools::name(&planned.name)),
    }
    Ok(())
}

/// What every builder needs.
pub(super) struct Parts<'a> {
    server: &'a str,
    spec: &'a MCPServerSpec,
    validated: &'a Validated<'a>,
    owner: &'a Owner,
    bridge: Bridge<'a>,
    relay: Relay<'a>,
    network: Network,
}

struct Bridge<'a> {
    image: &'a str,
    pull_policy: Option<&'a str>,
    pull_secrets: &'a [String],
}

struct Relay<'a> {
    image: &'a str,
    allowed_private_hosts: &'a [String],
}

impl Relay<'_> {
    /// The host of `remote`, if it may have addresses of private networks.
    fn allowed<'r>(&self, remote: &'r Remote) -> Option<&'r str> {
        let (host, _) = remote.authority()?;
        self.allowed_private_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)).then_some(host)
    }
}

/// Pods that may connect to a server's.
struct Network {
    gateways: Peers,
    operators: Peers,
}

struct Peers {
    namespaces: Vec<String>,
    pod_labels: BTreeMap<String, String>,
}

impl<'a> Parts<'a> {
    fn new(validated: &'a Validated<'a>, owner: &'a Owner, config: &'a Config) -> Self {
        let app = |name: &str| BTreeMap::from([(labels::NAME.to_owned(), name.to_owned())]);
        Self {
            server: validated.server,
            spec: validated.spec,
            validated,
            owner,
            bridge: Bridge {
                image: &config.images.bridge,
                pull_policy: config.images.pull_policy.as_deref(),
                pull_secrets: &config.images.pull_secrets,
            },
            relay: Relay { image: &config.images.portolan, allowed_private_hosts: &config.allowed_private_hosts },
            network: Network {
                gateways: Peers { namespaces: config.platform_namespaces.clone(), pod_labels: app(GATEWAY_APP) },
                operators: Peers { namespaces: vec![config.operator_namespace.clone()], pod_labels: app(OPERATOR_APP) },
            },
        }
    }

    /// Pods of the revision that serves are evicted one at a time.
    fn disruption_budget(&self, serving: &str) -> PodDisruptionBudget {
        let selector = [(labels::REVISION.to_owned(), serving.to_owned())];
        disruption::one_at_a_time(self.metadata(self.account_name()), selector.into())
    }

    /// Name of the ServiceAccount, the NetworkPolicy and the PodDisruptionBudget.
    fn account_name(&self) -> String {
        format!("{}-mcp", self.server)
    }

    /// Labels of everything that belongs to the server.
    fn labels(&self) -> BTreeMap<String, String> {
        [
            (labels::NAME, APP),
            (labels::INSTANCE, self.server),
            (labels::MANAGED_BY, labels::MANAGER),
            (labels::SERVER, self.server),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Labels that choose the server's pods.
    fn selector(&self) -> BTreeMap<String, String> {
        [(labels::SERVER.to_owned(), self.server.to_owned())].into()
    }

    /// Metadata of a child of that name.
    fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.owner.namespace().to_owned()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner.reference()]),
            ..ObjectMeta::default()
        }
    }

    /// Metadata of a child that belongs to one revision and has its name.
    fn revision_metadata(&self, revision: &str) -> ObjectMeta {
        let mut metadata = self.metadata(revision.to_owned());
        metadata.labels.get_or_insert_default().insert(labels::REVISION.into(), revision.to_owned());
        metadata
    }
}

#[cfg(test)]
mod tests;
