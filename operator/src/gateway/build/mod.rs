//! What the cluster is to hold for one gateway. Pure: no client, no clock, no environment; one kind a file.

mod deployment;
mod network_policy;
mod secret;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_crds::{MCPGateway, labels};

use super::{child_name, dereference::Observed, validate::Validated};
use crate::{
    apply::{Owner, Prepared, Resources},
    config::Config,
    disruption,
    error::Error,
};

/// Value of `app.kubernetes.io/name`.
const APP: &str = "portolan-gateway";

/// Children of one gateway, in the order in which they are applied: the Secret before the pods that mount it.
struct Children {
    secret: k8s_openapi::api::core::v1::Secret,
    network_policy: k8s_openapi::api::networking::v1::NetworkPolicy,
    service: k8s_openapi::api::core::v1::Service,
    deployment: k8s_openapi::api::apps::v1::Deployment,
    disruption_budget: k8s_openapi::api::policy::v1::PodDisruptionBudget,
}

/// Builds everything.
pub(super) fn build(
    owner: &Owner,
    gateway: &MCPGateway,
    validated: &Validated,
    observed: &Observed,
    config: &Config,
) -> Result<Resources<Prepared>, Error> {
    let parts = Parts { owner, gateway, config };
    let Children { secret, network_policy, service, deployment, disruption_budget } = Children {
        secret: secret::secret(&parts, validated, observed),
        network_policy: network_policy::network_policy(&parts),
        service: service::service(&parts),
        deployment: deployment::deployment(&parts),
        disruption_budget: disruption::one_at_a_time(parts.metadata(), selector(owner.name())),
    };
    let mut resources = Resources::new(owner.clone());
    resources.add(&secret)?;
    resources.add(&network_policy)?;
    resources.add(&service)?;
    resources.add(&deployment)?;
    resources.add(&disruption_budget)?;
    Ok(resources)
}

/// What builders need.
struct Parts<'a> {
    owner: &'a Owner,
    gateway: &'a MCPGateway,
    config: &'a Config,
}

impl Parts<'_> {
    fn name(&self) -> String {
        child_name(self.owner.name())
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.owner.namespace().to_owned()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner.reference()]),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = selector(self.owner.name());
        all.extend([
            (labels::INSTANCE.to_owned(), self.owner.name().to_owned()),
            (labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned()),
            (labels::PART_OF.to_owned(), labels::PRODUCT.to_owned()),
        ]);
        all
    }
}

/// Labels that select a gateway's pods.
pub(super) fn selector(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::NAME.to_owned(), APP.to_owned()), (labels::GATEWAY.to_owned(), name.to_owned())])
}

#[cfg(test)]
mod tests;
