//! Watches of what is nobody's child: pods of gateways, and labels of the enrolled namespaces.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, reflector, watcher, watcher::Event},
};
use portolan_crds::labels;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Ctx,
    gateways::{GatewayName, Replica},
};

/// Keeps the pods of a platform namespace's gateways known, until `stop`.
pub(crate) async fn watch_replicas(ctx: Arc<Ctx>, namespace: String, stop: CancellationToken) {
    let api: Api<Pod> = Api::namespaced(ctx.cluster.client(), &namespace);
    let (reader, writer) = reflector::store();
    let pods = watcher(api, watcher::Config::default().labels(labels::GATEWAY))
        .default_backoff()
        .modify(|pod| {
            pod.managed_fields_mut().clear();
            pod.spec = None;
        })
        .reflect(writer)
        .take_until(stop.cancelled_owned());
    pin_mut!(pods);
    while let Some(event) = pods.next().await {
        match event {
            // Half of a list is not news.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(event @ (Event::InitDone | Event::Apply(_) | Event::Delete(_))) => {
                // Why a pod is not ready is told by its gateway.
                if let Event::Apply(pod) | Event::Delete(pod) = &event
                    && let Some(gateway) = pod.labels().get(labels::GATEWAY)
                {
                    ctx.gateway_requeue.wake(&namespace, gateway);
                }
                let ready = reader.state();
                let ready = replicas(&namespace, ready.iter().map(AsRef::as_ref));
                if ctx.gateways.set_replicas(&namespace, ready) {
                    ctx.wake_gateways();
                    ctx.wake_servers();
                }
            }
            Err(error) => tracing::warn!(%namespace, %error, "the watch of gateway pods was interrupted"),
        }
    }
}

/// Keeps the labels of one enrolled namespace known, until `stop`.
pub(crate) async fn watch_namespace(ctx: Arc<Ctx>, namespace: String, stop: CancellationToken) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.cluster.client());
    let events = watcher(api, watcher::Config::default().fields(&format!("metadata.name={namespace}")))
        .default_backoff()
        .touched_objects()
        .take_until(stop.cancelled_owned());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(object) => {
                if ctx.gateways.set_namespace(&namespace, object.labels()) {
                    ctx.wake_gateways();
                    ctx.wake_servers();
                }
            }
            Err(error) => tracing::warn!(%namespace, %error, "the watch of a namespace was interrupted"),
        }
    }
}

/// Pods that have an address and are not on their way out, by gateway. Those that are not ready yet count too: what they
/// have loaded is to be known before they take requests.
pub(crate) fn replicas<'a>(
    namespace: &str,
    pods: impl Iterator<Item = &'a Pod>,
) -> BTreeMap<GatewayName, Vec<Replica>> {
    let mut all: BTreeMap<GatewayName, Vec<Replica>> = BTreeMap::new();
    for pod in pods.filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        if let (Some(gateway), Some(uid), Some(ip)) = (pod.labels().get(labels::GATEWAY), pod.uid(), ip) {
            all.entry(format!("{namespace}/{gateway}")).or_default().push(Replica {
                name: pod.name_any(),
                uid,
                ip,
                ready: is_ready(pod),
            });
        }
    }
    all
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
