//! Reconciles `MCPServer` objects.

mod build;
mod conditions;
mod dereference;
mod diagnosis;
pub(crate) mod farewell;
#[cfg(test)]
mod fixtures;
mod observed;
mod references;
mod requeue;
mod revision;
mod rollout;
mod summary;
mod validate;

use kube::ResourceExt;
use portolan_crds::MCPServer;

use crate::{apply::Owner, context::Ctx, controller::Next, error::Error, status};

/// Makes the cluster as `server` asks for, and says in its status how that went.
///
/// # Errors
/// What the API server said, or that an object of a child's name belongs to someone else; the status says it too.
pub async fn reconcile(server: &MCPServer, ctx: &Ctx) -> Result<Next, Error> {
    if server.metadata.deletion_timestamp.is_some() {
        // Its children follow it by their owner references. One that is made again now would keep it from going.
        farewell::abandon(ctx, &server.namespace().unwrap_or_default(), &server.name_any()).await?;
        return Ok(Next::Change);
    }
    match bring_about(server, ctx).await {
        Ok(next) => Ok(next),
        Err(error) => {
            status::fail(ctx, server, &error).await;
            Err(error)
        }
    }
}

async fn bring_about(server: &MCPServer, ctx: &Ctx) -> Result<Next, Error> {
    let owner = Owner::of(server)?;
    let name = server.name_any();
    let observed = dereference::observe(server, &owner, ctx).await?;
    let validated = validate::validate(server, &name, &observed);
    let built = build::build(&validated, &observed, summary::remembered(server), &owner, &ctx.config)?;
    let applied = built.resources.apply(&ctx.cluster).await?;
    let outcome = summary::Outcome {
        server,
        validated: &validated,
        observed: &observed,
        plan: &built.plan,
        desired: built.desired.as_deref(),
    };
    let facts = status::overrule(outcome.facts(), applied.refused());
    status::write(ctx, server, &applied, outcome.status(), &facts).await?;
    farewell::abandon_strays(ctx, &name, &observed.pods, &built.plan).await;
    Ok(requeue::next(&outcome))
}
