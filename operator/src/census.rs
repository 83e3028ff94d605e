//! What is looked at on a clock and not on news: gauges, what a watch may have missed, the default gateway.

use std::{sync::Arc, time::Duration};

use kube::{Resource, runtime::reflector::Store};
use portolan_crds::{
    MCPGateway, MCPServer,
    conditions::{self, types},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{context::Ctx, controller::Reconciled, default_gateway, status::Conditioned, stores::Guarded};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(10);

/// Looks until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        make_default_gateway(&ctx).await;
        count(&ctx, ctx.stores.server_stores().values(), |server: &MCPServer| server.status.as_ref());
        count(&ctx, ctx.stores.gateway_stores().values(), |gateway: &MCPGateway| gateway.status.as_ref());
        forget_gateways(&ctx);
        ctx.macs.sweep();
    }
}

async fn make_default_gateway(ctx: &Ctx) {
    let Some(config) = &ctx.config.default_gateway else { return };
    let exists = |(namespace, name): &(String, String)| *namespace == config.namespace && *name == config.name;
    if ctx.stores.gateway_names().iter().any(exists) {
        return;
    }
    match default_gateway::ensure(&ctx.cluster, config).await {
        Ok(true) => tracing::info!(namespace = config.namespace, name = config.name, "made the default gateway"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the default gateway could not be made"),
    }
}

fn count<'a, K, S>(ctx: &Ctx, stores: impl Iterator<Item = &'a Store<Guarded<K>>>, status: impl Fn(&K) -> Option<&S>)
where
    K: Reconciled + Resource<DynamicType = ()>,
    S: Conditioned,
{
    let (mut ready, mut not_ready, mut malformed) = (0, 0, 0);
    for object in stores.flat_map(Store::state) {
        match &object.0 {
            Err(_) => malformed += 1,
            Ok(object) => {
                let is_ready =
                    status(object).is_some_and(|status| conditions::is_true(status.conditions(), types::READY));
                *(if is_ready { &mut ready } else { &mut not_ready }) += 1;
            }
        }
    }
    ctx.metrics.resources(K::KIND, "ready", ready);
    ctx.metrics.resources(K::KIND, "not_ready", not_ready);
    ctx.metrics.resources(K::KIND, "malformed", malformed);
}

/// A deletion during a broken watch is told by nobody.
fn forget_gateways(ctx: &Ctx) {
    let known = ctx.stores.gateway_names();
    for name in ctx.gateways.names() {
        let exists = name.split_once('/').is_some_and(|(namespace, name)| {
            known.iter().any(|(known_namespace, known_name)| known_namespace == namespace && known_name == name)
        });
        if !exists && ctx.gateways.set(&name, None) {
            ctx.wake_servers();
        }
    }
}
