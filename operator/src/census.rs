//! What is looked at on a clock and not on news: gauges, what a watch may have missed, the default gateway.

use std::{sync::Arc, time::Duration};

use kube::{Resource, runtime::reflector::Store};
use portolan_crds::{
    MCPGateway, MCPServer,
    conditions::{self, types},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Ctx,
    controller::Reconciled,
    default_gateway,
    gateways::GatewayName,
    status::Conditioned,
    stores::{Guarded, Stores},
};

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
        ctx.probes.sweep();
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
    for name in gone(&ctx.gateways.names(), &ctx.stores) {
        if ctx.gateways.set(&name, None) {
            ctx.wake_servers();
        }
    }
}

/// Which of the gateways `seen` do not exist any more.
fn gone(seen: &[GatewayName], stores: &Stores) -> Vec<GatewayName> {
    let known = stores.gateway_names();
    let is_gone = |full: &&GatewayName| {
        full.split_once('/').is_none_or(|(namespace, name)| {
            stores.knows_gateways_of(namespace) && !known.contains(&(namespace.to_owned(), name.to_owned()))
        })
    };
    seen.iter().filter(is_gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;

    #[test]
    fn a_gateway_is_forgotten_once_the_list_of_its_namespace_lacks_it_and_not_before_there_is_a_list() {
        let (stores, _, mut writers) = Stores::new(&[], &["platform".to_owned()]);
        let seen = ["platform/default".to_owned()];
        assert!(gone(&seen, &stores).is_empty(), "a new leader knows it from what it read at start");
        let writer = writers.get_mut("platform").unwrap();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        assert_eq!(gone(&seen, &stores), seen);
    }
}
