//! Streams of objects to reconcile: watches, triggers, concurrency, backoff. One controller for each kind and enrolled
//! namespace, so that a Role per namespace is all the rights that they need.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ControllerRevision, Deployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Pod, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{self, Action},
        predicates,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use portolan_crds::{MCPGateway, MCPServer, labels};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    context::Ctx,
    error::{Class, Error},
    gateway, server,
    stores::Guarded,
};

/// News of one object within this long make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// When to look at an object again although nothing about it changes.
///
/// A reconciler is `async fn reconcile(object: &K, ctx: &Ctx) -> Result<Next, Error>`; it writes status in both cases
/// ([`crate::status::write`] or [`crate::status::fail`]), the controller counts, logs and delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not before something changes.
    Change,
    /// After this long.
    After(Duration),
}

/// A kind that this operator reconciles.
pub(crate) trait Reconciled:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind as a metric label.
    const KIND: &'static str;

    /// Makes the cluster match the object.
    fn reconcile<'a>(&'a self, ctx: &'a Ctx) -> Pin<Box<dyn Future<Output = Result<Next, Error>> + Send + 'a>>;

    /// An object was seen anew, changed, or is gone.
    fn touched(ctx: &Ctx, object: &Guarded<Self>);

    /// An object is gone.
    fn gone(ctx: &Ctx, namespace: &str, name: &str);
}

impl Reconciled for MCPServer {
    const KIND: &'static str = "MCPServer";

    fn reconcile<'a>(&'a self, ctx: &'a Ctx) -> Pin<Box<dyn Future<Output = Result<Next, Error>> + Send + 'a>> {
        Box::pin(server::reconcile(self, ctx))
    }

    fn touched(ctx: &Ctx, _: &Guarded<Self>) {
        // A gateway's Secret holds the keys of the servers that it selects.
        ctx.wake_gateways();
    }

    fn gone(ctx: &Ctx, namespace: &str, name: &str) {
        // Gateways have heard of it by `touched`, once; here every pod that ends says it again.
        ctx.gone_servers.wake(namespace, name);
        let key = (namespace.to_owned(), name.to_owned());
        ctx.canaries.forget(&key);
        ctx.analyses.forget(&key);
        ctx.scaling.forget(&key);
        ctx.turns.leave(&key);
    }
}

impl Reconciled for MCPGateway {
    const KIND: &'static str = "MCPGateway";

    fn reconcile<'a>(&'a self, ctx: &'a Ctx) -> Pin<Box<dyn Future<Output = Result<Next, Error>> + Send + 'a>> {
        Box::pin(gateway::reconcile(self, ctx))
    }

    fn touched(ctx: &Ctx, object: &Guarded<Self>) {
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let deleted = object.meta().deletion_timestamp.is_some();
        let view = object.0.as_ref().ok().filter(|_| !deleted).and_then(|gateway| gateway::view(&ctx.config, gateway));
        if ctx.gateways.set(&name, view.as_ref()) {
            ctx.wake_servers();
        }
    }

    fn gone(ctx: &Ctx, namespace: &str, name: &str) {
        ctx.gateway_keys.forget(namespace, name);
        if ctx.gateways.set(&format!("{namespace}/{name}"), None) {
            ctx.wake_servers();
        }
    }
}

/// Reconciles the servers of one namespace until `stop`.
pub(crate) async fn servers(
    ctx: Arc<Ctx>,
    namespace: String,
    writer: Writer<Guarded<MCPServer>>,
    stop: CancellationToken,
) {
    let Some(reader) = ctx.stores.server_stores().get(&namespace).cloned() else { return };
    let client = ctx.cluster.client();
    let woken = ctx.servers.stream(&namespace).map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let controller = controller(&ctx, &namespace, writer, reader)
        .owns_stream(touched::<Deployment>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<HorizontalPodAutoscaler>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<ControllerRevision>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<Service>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<ServiceAccount>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<ConfigMap>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<NetworkPolicy>(&client, &namespace, labels::SERVER))
        .owns_stream(touched::<PodDisruptionBudget>(&client, &namespace, labels::SERVER))
        .watches_stream(touched::<Pod>(&client, &namespace, labels::SERVER), |pod| server_of(&pod))
        .reconcile_on(woken);
    run(controller, ctx, stop).await;
}

/// Reconciles the gateways of one namespace until `stop`. Outside the platform's namespaces they have no children.
pub(crate) async fn gateways(
    ctx: Arc<Ctx>,
    namespace: String,
    writer: Writer<Guarded<MCPGateway>>,
    stop: CancellationToken,
) {
    let Some(reader) = ctx.stores.gateway_stores().get(&namespace).cloned() else { return };
    let client = ctx.cluster.client();
    let woken =
        ctx.gateway_requeue.stream(&namespace).map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let mut controller = controller(&ctx, &namespace, writer, reader).reconcile_on(woken);
    if ctx.config.platform_namespaces.contains(&namespace) {
        controller = controller
            .owns_stream(touched::<Deployment>(&client, &namespace, labels::GATEWAY))
            .owns_stream(touched::<Service>(&client, &namespace, labels::GATEWAY))
            .owns_stream(touched::<NetworkPolicy>(&client, &namespace, labels::GATEWAY))
            .owns_stream(touched::<PodDisruptionBudget>(&client, &namespace, labels::GATEWAY));
    }
    run(controller, ctx, stop).await;
}

fn controller<K: Reconciled>(
    ctx: &Arc<Ctx>,
    namespace: &str,
    writer: Writer<Guarded<K>>,
    reader: Store<Guarded<K>>,
) -> Controller<Guarded<K>> {
    let api: Api<Guarded<K>> = Api::namespaced(ctx.cluster.client(), namespace);
    let seen = ctx.clone();
    let objects = watcher(api, watcher::Config::default())
        .default_backoff()
        // Nobody here reads them, and they are about half of an object's size.
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .inspect_ok(move |object| K::touched(&seen, object));
    let config = controller::Config::default().concurrency(ctx.config.concurrency).debounce(DEBOUNCE);
    Controller::for_stream(objects, reader).with_config(config)
}

/// Metadata of the objects that carry `label`, when they change or go away.
fn touched<K>(
    client: &Client,
    namespace: &str,
    label: &str,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    watcher(api, watcher::Config::default().labels(label))
        .default_backoff()
        .touched_objects()
        // A relist repeats everything.
        .predicate_filter(predicates::resource_version, PredicateConfig::default())
}

fn server_of(pod: &PartialObjectMeta<Pod>) -> Option<ObjectRef<Guarded<MCPServer>>> {
    let server = pod.labels().get(labels::SERVER)?;
    Some(ObjectRef::new(server).within(&pod.namespace()?))
}

async fn run<K: Reconciled>(controller: Controller<Guarded<K>>, ctx: Arc<Ctx>, stop: CancellationToken) {
    let backoff = Arc::new(Backoff::default());
    let (succeeded, failed) = (backoff.clone(), backoff.clone());
    controller
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            move |object, ctx| reconcile(object, ctx, succeeded.clone()),
            move |object, error, _| Action::requeue(failed.after(&key(&*object), error)),
            ctx.clone(),
        )
        .for_each(|result| {
            match result {
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(controller::Error::ObjectNotFound(object)) => {
                    let gone = (object.namespace.unwrap_or_default(), object.name);
                    backoff.reset(&gone);
                    ctx.written.forget(K::KIND, &gone);
                    K::gone(&ctx, &gone.0, &gone.1);
                }
                Err(error) => tracing::warn!(kind = K::KIND, %error, "a watch was interrupted"),
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile<K: Reconciled>(
    object: Arc<Guarded<K>>,
    ctx: Arc<Ctx>,
    backoff: Arc<Backoff>,
) -> Result<Action, Error> {
    let key = key(&*object);
    let (namespace, name) = (&key.0, &key.1);
    let started = Instant::now();
    let typed = match &object.0 {
        Ok(typed) => typed,
        Err(invalid) => {
            ctx.metrics.reconcile(K::KIND, "malformed", started.elapsed().as_secs_f64());
            tracing::warn!(kind = K::KIND, %namespace, %name, error = invalid.error, "the object cannot be read: is its CRD of another release?");
            return Ok(Action::await_change());
        }
    };
    let result = typed.reconcile(&ctx).await;
    let outcome = result.as_ref().map_or_else(|error| error.class.label(), |_| "success");
    ctx.metrics.reconcile(K::KIND, outcome, started.elapsed().as_secs_f64());
    match result {
        Ok(next) => {
            backoff.reset(&key);
            Ok(match next {
                Next::Change => Action::await_change(),
                Next::After(after) => Action::requeue(after),
            })
        }
        Err(error) => {
            match error.class {
                Class::Waiting(_) => tracing::debug!(kind = K::KIND, %namespace, %name, %error, "waiting"),
                Class::Transient => tracing::warn!(kind = K::KIND, %namespace, %name, %error, "will be tried again"),
                Class::Stalled => tracing::warn!(kind = K::KIND, %namespace, %name, %error, "someone has to act"),
            }
            Err(error)
        }
    }
}

fn key(object: &impl ResourceExt) -> crate::requeue::Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
