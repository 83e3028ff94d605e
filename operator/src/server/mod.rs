//! Reconciles `MCPServer` objects.

mod build;
mod conditions;
mod dereference;
mod diagnosis;
pub(crate) mod farewell;
mod fewest;
#[cfg(test)]
mod fixtures;
mod known_answers;
mod observed;
mod references;
mod requeue;
mod revision;
mod rollout;
mod shares;
mod summary;
mod tool_changes;
mod usage;
mod validate;

use kube::ResourceExt;
use portolan_crds::MCPServer;

use crate::{apply::Owner, context::Ctx, controller::Next, error::Error, requeue::Key, status};
use farewell::Told;

/// Makes the cluster as `server` asks for, and says in its status how that went.
///
/// # Errors
/// What the API server said, or that an object of a child's name belongs to someone else; the status says it too.
pub async fn reconcile(server: &MCPServer, ctx: &Ctx) -> Result<Next, Error> {
    if server.metadata.deletion_timestamp.is_some() {
        // Its children follow it by their owner references. One that is made again now would keep it from going.
        let key = (server.namespace().unwrap_or_default(), server.name_any());
        ctx.canaries.forget(&key);
        ctx.analyses.forget(&key);
        ctx.scaling.forget(&key);
        ctx.turns.leave(&key);
        let told = farewell::abandon(ctx, &server.namespace().unwrap_or_default(), &server.name_any()).await?;
        return Ok(if told == Told::Everyone { Next::Change } else { Next::After(farewell::AGAIN) });
    }
    match bring_about(server, ctx).await {
        Ok(Brought { next, refused: None }) => Ok(next),
        // Status has it, beside what became of the other children.
        Ok(Brought { refused: Some(refused), .. }) => Err(refused),
        Err(error) => {
            status::fail(ctx, server, &error).await;
            Err(error)
        }
    }
}

/// How far a reconcile came that nothing kept from writing status.
struct Brought {
    next: Next,
    refused: Option<Error>,
}

async fn bring_about(server: &MCPServer, ctx: &Ctx) -> Result<Brought, Error> {
    let owner = Owner::of(server)?;
    let name = server.name_any();
    let observed = dereference::observe(server, &owner, ctx).await?;
    let validated = validate::validate(server, &name, &observed);
    let remembered = summary::remembered(server);
    let before = build::Before { serving: remembered, is_settled: summary::is_settled(server) };
    let wanted = build::wanted(&validated, &observed, before, &owner, &ctx.config)?;
    let key = (server.namespace().unwrap_or_default(), server.name_any());
    let (wanted, is_put_off) = in_turn(wanted, &key, server.spec.rollout.paused, ctx);
    let built = build::build(&wanted, &validated, &observed, remembered, &owner, &ctx.config)?;
    fewest::mark(ctx, &observed, &built.plan).await;
    let applied = built.resources.apply(&ctx.cluster).await?;
    count_rollbacks(&observed, &built.plan, ctx);
    let outcome = summary::Outcome {
        server,
        validated: &validated,
        observed: &observed,
        plan: &built.plan,
        desired: built.desired.as_deref(),
        tool_changes: built.tool_changes.as_ref(),
        is_put_off,
    };
    let facts = status::overrule(outcome.facts(), applied.refused());
    status::write(ctx, server, &applied, outcome.status(), &facts).await?;
    let told = farewell::abandon_strays(ctx, &name, &observed.pods, &built.plan).await;
    Ok(Brought { next: requeue::next(&outcome, told), refused: applied.refused().cloned() })
}

/// What is wanted now: what only another release asks for is so when it is the server's turn.
fn in_turn(wanted: build::Wanted, server: &Key, is_paused: bool, ctx: &Ctx) -> (build::Wanted, bool) {
    if is_paused && wanted.roll.as_ref().is_some_and(|roll| !roll.has_begun) {
        // One that would wait with its turn keeps it from others. To resume it is an edit, which needs none.
        ctx.turns.leave(server);
        return (wanted.put_off(), true);
    }
    match wanted.roll.as_ref().map(|roll| ctx.turns.take(server, roll.has_begun)) {
        Some(true) => (wanted, false),
        Some(false) => (wanted.put_off(), true),
        None => {
            ctx.turns.leave(server);
            (wanted, false)
        }
    }
}

fn count_rollbacks(observed: &observed::Observed, plan: &rollout::Plan, ctx: &Ctx) {
    let known =
        |name: &str| observed.deployment(name).and_then(|deployment| build::annotation(deployment, build::ROLLED_BACK));
    for revision in
        plan.revisions.iter().filter(|revision| revision.rolled_back.is_some() && known(&revision.name).is_none())
    {
        tracing::warn!(revision = revision.name, why = revision.rolled_back, "a revision was rolled back");
        ctx.metrics.rolled_back();
    }
}
