//! The reconciler of `MCPGateway` objects.

mod build;
mod conditions;
mod dereference;
mod keys;
mod validate;

use std::time::Duration;

use kube::{Resource, ResourceExt};
use portolan_crds::MCPGateway;

pub use keys::{KeyMemory, STREAM_KEY};

use crate::{apply::Owner, config::Config, context::Ctx, controller::Next, error::Error, gateways::Gateway, status};

/// What the Deployment, Service, NetworkPolicy, PodDisruptionBudget and Secret of gateway `name` are called.
#[must_use]
pub fn child_name(name: &str) -> String {
    format!("portolan-gateway-{name}")
}

/// Base URL of a gateway within the cluster.
#[must_use]
pub fn url(config: &Config, namespace: &str, name: &str) -> String {
    format!("http://{}.{namespace}.svc.{}", child_name(name), config.cluster_domain)
}

/// What others may know of a gateway; `None` when it does not count.
#[must_use]
pub fn view(config: &Config, gateway: &MCPGateway) -> Option<Gateway> {
    let (namespace, name) = (gateway.namespace()?, gateway.name_any());
    validate::accept(config, gateway).ok()?;
    Some(Gateway { url: url(config, &namespace, &name), selection: gateway.spec.servers.clone() })
}

/// Brings about what a gateway asks for, and says how far that got.
///
/// # Errors
/// What kept it from coming to its end; the status says the same.
pub async fn reconcile(gateway: &MCPGateway, ctx: &Ctx) -> Result<Next, Error> {
    if gateway.meta().deletion_timestamp.is_some() {
        // Its children follow it by their owner references.
        return Ok(Next::Change);
    }
    match steps(gateway, ctx).await {
        Ok(next) => Ok(next),
        Err(error) => {
            status::fail(ctx, gateway, &error).await;
            Err(error)
        }
    }
}

async fn steps(gateway: &MCPGateway, ctx: &Ctx) -> Result<Next, Error> {
    let owner = Owner::of(gateway)?;
    validate::accept(&ctx.config, gateway)?;
    let observed = dereference::dereference(gateway, &owner, ctx).await?;
    let validated = validate::validate(gateway, &observed);
    let prepared = build::build(&owner, gateway, &validated, &observed, &ctx.config)?;
    let applied = prepared.apply(&ctx.cluster).await?;
    let (status, facts) = conditions::conclude(gateway, &applied, &validated, &observed, &ctx.config);
    status::write(ctx, gateway, &applied, status, &facts).await?;
    Ok(Next::After(resync(&observed)))
}

/// Secrets are read by name and not watched, so they are read again: soon while a new server's key is awaited.
fn resync(observed: &dereference::Observed) -> Duration {
    const LONGEST: Duration = Duration::from_secs(30);
    let awaited = observed.servers.iter().filter(|server| server.mac.is_none());
    awaited.map(|server| (server.age / 2).clamp(Duration::from_secs(1), LONGEST)).min().unwrap_or(LONGEST)
}
