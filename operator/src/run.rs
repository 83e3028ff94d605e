//! The operator as a process: lease, then everything else for as long as the lease is held.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use portolan_crds::{MCPGateway, MCPServer, labels};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    analysis::Analyses,
    bridge_client::BridgeClient,
    canaries::Canaries,
    census,
    cluster::Cluster,
    config::Config,
    context::Ctx,
    controller, gateway,
    gateway::KeyMemory,
    gateways::Gateways,
    lease::{Candidate, LeaseError, Standing},
    loaded::LoadedView,
    macs::MacCache,
    metrics::Metrics,
    probes::Probes,
    requeue::Requeue,
    scaling::{self, Scaling},
    server,
    stores::{Guarded, Stores, Writers},
    stream,
    stream_keys::StreamKeys,
    surroundings,
    turns::Turns,
    written::Written,
};

/// How long a new leader waits for what the gateways have loaded before it judges servers.
const FIRST_REPORTS: Duration = Duration::from_secs(5);
/// How long a new leader takes to read what it can before that.
const SEED: Duration = Duration::from_secs(20);
/// Namespaces that are read at once meanwhile.
const SEEDED_AT_ONCE: usize = 8;
/// How long reconciles in flight may take at the end.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is neither a service account nor a kubeconfig.
    #[error("no Kubernetes API server is configured: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// The configuration of the API server is not usable.
    #[error("the client for the Kubernetes API server cannot be made: {0}")]
    Client(#[from] kube::Error),
    /// The admin port cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Admin {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// There can be no HTTP client for the known-answer checks.
    #[error("the HTTP client for canary checks cannot be made: {0}")]
    Canaries(#[from] reqwest::Error),
    /// Another process may reconcile now.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A part that should run for ever did not.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the operator until `shutdown`, then lets reconciles end and gives the lease up.
///
/// # Errors
/// It cannot start, or lost its lease: the process must end with a failure, and is started again.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let metrics = Metrics::new()?;
    let mut cluster = kube::Config::infer().await?;
    let client = Client::try_from(cluster.clone())?;
    cluster.default_retry = false;
    let lease_client = Client::try_from(cluster)?;

    let candidate = Candidate::new(lease_client, config.lease.clone(), config.identity.clone(), metrics.clone());
    let mut standing = candidate.standing();
    let address = config.admin;
    let bound = Admin::bind(address, metrics.clone(), candidate.standing()).await;
    let admin = bound.map_err(|error| RunError::Admin { address, error })?;
    let always = CancellationToken::new();
    let _stop_admin = always.clone().drop_guard();
    tokio::spawn(admin.run(always));

    // The lease outlives the reconciles: it is given up when nothing is written any more.
    let stop_lease = CancellationToken::new();
    let mut lease = tokio::spawn(candidate.run(stop_lease.clone()));
    let leads = tokio::select! {
        result = &mut lease => return Err(lease_end(result)),
        leads = standing.wait_for(|standing| *standing == Standing::Leader) => leads.is_ok(),
        () = shutdown.cancelled() => false,
    };
    if leads {
        let stop = shutdown.child_token();
        let work = lead(context(config, client, metrics)?, stop.clone());
        tokio::select! {
            // Dropping the work ends its writes at once: another process may have begun.
            result = &mut lease => return Err(lease_end(result)),
            result = work => result?,
        }
    }
    stop_lease.cancel();
    match lease.await {
        Ok(Ok(())) => Ok(()),
        other => Err(lease_end(other)),
    }
}

fn lease_end(result: Result<Result<(), LeaseError>, tokio::task::JoinError>) -> RunError {
    match result {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => RunError::Ended("the lease task"),
    }
}

struct Parts {
    ctx: Arc<Ctx>,
    servers: Writers<MCPServer>,
    gateways: Writers<MCPGateway>,
}

fn context(config: Config, client: Client, metrics: Metrics) -> Result<Parts, RunError> {
    let mut gateway_namespaces: Vec<String> = config.tenant_namespaces.clone();
    gateway_namespaces.extend(config.platform_namespaces.clone());
    let (stores, servers, gateways) = Stores::new(&config.tenant_namespaces, &gateway_namespaces);
    let view = Arc::new(Gateways::default());
    let wakes = Requeue::default();
    let cluster = Cluster::new(client.clone(), metrics.clone());
    let loaded = LoadedView::new(view.clone());
    let stream_keys = StreamKeys::new(cluster.clone());
    let canaries = Canaries::new(loaded.clone(), stream_keys.clone(), wakes.clone(), metrics.clone())?;
    let scaling = Scaling::new(wakes.clone(), metrics.clone());
    let turns = Turns::new(config.release_rollouts.into(), wakes.clone(), metrics.clone());
    let reporter = Reporter { controller: "portolan-operator".into(), instance: Some(config.identity.clone()) };
    let ctx = Ctx {
        config,
        cluster,
        recorder: Recorder::new(client, reporter),
        written: Written::default(),
        probes: Probes::new(wakes.clone(), metrics.clone()),
        metrics,
        bridges: BridgeClient::default(),
        canaries,
        analyses: Analyses::default(),
        scaling,
        turns,
        stream_keys,
        loaded,
        gateways: view,
        macs: MacCache::default(),
        gateway_keys: KeyMemory::default(),
        stores,
        servers: wakes,
        gone_servers: Requeue::default(),
        gateway_requeue: Requeue::default(),
    };
    Ok(Parts { ctx: Arc::new(ctx), servers, gateways })
}

/// Everything that only the leader does, until `stop`.
async fn lead(Parts { ctx, servers, gateways }: Parts, stop: CancellationToken) -> Result<(), RunError> {
    let mut tasks = JoinSet::new();
    if stop.run_until_cancelled(seed(&ctx)).await.is_none() {
        return Ok(());
    }
    for namespace in &ctx.config.platform_namespaces {
        spawn(
            &mut tasks,
            "a watch of gateway pods",
            surroundings::watch_replicas(ctx.clone(), namespace.clone(), stop.clone()),
        );
    }
    let enrolled = gateways.keys().cloned().collect::<Vec<_>>();
    for namespace in enrolled {
        spawn(
            &mut tasks,
            "a watch of a namespace",
            surroundings::watch_namespace(ctx.clone(), namespace, stop.clone()),
        );
    }
    spawn(&mut tasks, "the streams of gateways", stream::run(ctx.clone(), stop.clone()));
    tokio::select! {
        () = stream::first_reports(&ctx, FIRST_REPORTS) => {}
        () = stop.cancelled() => {}
    }
    for (namespace, writer) in gateways {
        spawn(
            &mut tasks,
            "a controller of gateways",
            controller::gateways(ctx.clone(), namespace, writer, stop.clone()),
        );
    }
    for (namespace, writer) in servers {
        let farewells = server::farewell::run(ctx.clone(), namespace.clone(), stop.clone());
        spawn(&mut tasks, "the farewells of servers", farewells);
        spawn(&mut tasks, "a controller of servers", controller::servers(ctx.clone(), namespace, writer, stop.clone()));
    }
    spawn(&mut tasks, "the scaling of servers", scaling::run(ctx.clone(), stop.clone()));
    spawn(&mut tasks, "the census", census::run(ctx, stop.clone()));
    tokio::select! {
        // In this order: told to stop, tasks end at once, and that is no failure.
        biased;
        () = stop.cancelled() => {}
        ended = tasks.join_next() => return Err(RunError::Ended(ended.and_then(Result::ok).unwrap_or("a task"))),
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN, all).await.is_err() {
        tracing::warn!("some reconciles did not end in time");
    }
    Ok(())
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// Learns which gateways, ready pods and labels of namespaces there are before the first reconcile, so that a new leader
/// finds selected and programmed what is. What cannot be read, or not in time, is learnt from the watches.
async fn seed(ctx: &Ctx) {
    let Config { tenant_namespaces: tenants, platform_namespaces: platform, .. } = &ctx.config;
    let labels = futures::stream::iter(tenants.iter().chain(platform)).for_each_concurrent(
        SEEDED_AT_ONCE,
        |namespace| async move {
            match ctx.cluster.namespace_labels(namespace).await {
                Ok(Some(labels)) => {
                    ctx.gateways.set_namespace(namespace, &labels);
                }
                Ok(None) => tracing::warn!(namespace, "an enrolled namespace does not exist"),
                Err(error) => tracing::warn!(%error, "the labels of a namespace cannot be read"),
            }
        },
    );
    let gateways =
        futures::stream::iter(platform).for_each_concurrent(SEEDED_AT_ONCE, |namespace| seed_gateways(ctx, namespace));
    if tokio::time::timeout(SEED, futures::future::join(labels, gateways)).await.is_err() {
        tracing::warn!("the API server is slow: not all gateways and namespaces are known before the first reconcile");
    }
}

async fn seed_gateways(ctx: &Ctx, namespace: &str) {
    match ctx.cluster.list::<Guarded<MCPGateway>>(namespace, "").await {
        Ok(found) => {
            for gateway in found.into_iter().filter_map(|guarded| guarded.0.ok()) {
                let name = gateway.metadata.name.clone().unwrap_or_default();
                ctx.gateways.set(&format!("{namespace}/{name}"), gateway::view(&ctx.config, &gateway).as_ref());
            }
        }
        Err(error) => tracing::warn!(%error, "the gateways cannot be listed"),
    }
    match ctx.cluster.list::<Pod>(namespace, labels::GATEWAY).await {
        Ok(pods) => {
            ctx.gateways.set_replicas(namespace, surroundings::replicas(namespace, pods.iter()));
        }
        Err(error) => tracing::warn!(%error, "the pods of gateways cannot be listed"),
    }
}
