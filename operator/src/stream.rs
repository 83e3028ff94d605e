//! The leader's stream to every gateway pod: what each has loaded, as it changes.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use portolan_crds::ports;
use portolan_mcp::wire;
use portolan_snapshot::report::{Report, ServerReport};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    context::Ctx,
    gateways::{GatewayName, Replica},
    lines::{LinesClient, LinesError},
    stream_keys::KeyError,
};

/// Longest line: thousands of servers.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// First and longest delay between two connections.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long what a replica said is believed while its stream is down: a reconnect is no news.
const GRACE: Duration = Duration::from_secs(15);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0:?} is not an address")]
    BadAddress(String),
    #[error(transparent)]
    Lines(#[from] LinesError),
    #[error("a line is no report: {0}")]
    NotAReport(#[from] serde_json::Error),
    #[error("{0}")]
    BadReport(#[from] portolan_snapshot::report::BadLine),
}

/// Holds the streams until `stop`.
pub(crate) async fn run(ctx: Arc<Ctx>, stop: CancellationToken) {
    let mut changes = ctx.gateways.changes();
    let mut streams: HashMap<String, (Replica, AbortOnDropHandle<()>)> = HashMap::new();
    loop {
        changes.borrow_and_update();
        let wanted: HashMap<String, (GatewayName, Replica)> = ctx
            .gateways
            .replicas()
            .into_iter()
            .flat_map(|(gateway, pods)| pods.into_iter().map(move |pod| (pod.uid.clone(), (gateway.clone(), pod))))
            .collect();
        streams.retain(|uid, (replica, _)| {
            let keep = wanted.get(uid).is_some_and(|(_, wanted)| wanted.ip == replica.ip);
            if !keep {
                forget(&ctx, uid);
            }
            keep
        });
        for (uid, (gateway, replica)) in wanted {
            streams.entry(uid).or_insert_with(|| {
                let task = tokio::spawn(hold(ctx.clone(), gateway, replica.clone()));
                (replica, AbortOnDropHandle::new(task))
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits until every ready replica has reported, or `most`: a new leader that asks earlier would find everything
/// unprogrammed, and write so.
pub(crate) async fn first_reports(ctx: &Ctx, most: Duration) {
    let all_reported = async {
        loop {
            let replicas = ctx.gateways.replicas();
            if replicas.values().flatten().all(|replica| !replica.ready || ctx.loaded.gateway(&replica.uid).is_some()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(most, all_reported).await.is_err() {
        tracing::info!("not every gateway replica has reported yet");
    }
}

/// Reads one replica, again and again, until aborted.
async fn hold(ctx: Arc<Ctx>, gateway: GatewayName, replica: Replica) {
    let client = LinesClient::new(MAX_LINE);
    let mut delay = BACKOFF.0;
    let mut heard = Instant::now();
    let mut told = false;
    loop {
        let error = match read(&ctx, &client, &gateway, &replica, &mut heard, &mut delay).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::debug!(gateway, replica = replica.name, %error, "the stream of a gateway ended");
        if matches!(error, StreamError::Lines(LinesError::TooLong(_))) {
            ctx.metrics.refused("stream_line");
        }
        let silent = heard.elapsed() > GRACE;
        if silent && !told {
            tracing::warn!(gateway, replica = replica.name, %error, "a gateway does not report");
            forget(&ctx, &replica.uid);
        }
        told = silent;
        sleep(delay).await;
        delay = (delay * 2).min(BACKOFF.1);
    }
}

async fn read(
    ctx: &Ctx,
    client: &LinesClient,
    gateway: &str,
    replica: &Replica,
    heard: &mut Instant,
    delay: &mut Duration,
) -> Result<std::convert::Infallible, StreamError> {
    let key = ctx.stream_keys.read(gateway).await?;
    let ip: IpAddr = replica.ip.parse().map_err(|_| StreamError::BadAddress(replica.ip.clone()))?;
    let mut lines = client.open((ip, ports::GATEWAY_ADMIN).into(), wire::STREAM, "", &key).await?;
    loop {
        let line = lines.next().await?;
        take(ctx, gateway, &replica.uid, serde_json::from_slice(&line)?)?;
        *heard = Instant::now();
        *delay = BACKOFF.0;
    }
}

fn take(ctx: &Ctx, gateway: &str, uid: &str, line: Report) -> Result<(), StreamError> {
    let somebody_waits = line.servers.values().any(ServerReport::is_waited_for);
    let (servers, gateway_changed) = ctx.loaded.take(uid, line)?;
    if somebody_waits {
        ctx.scaling.look();
    }
    wake(ctx, &servers);
    if gateway_changed && let Some((namespace, name)) = gateway.split_once('/') {
        ctx.gateway_requeue.wake(namespace, name);
    }
    Ok(())
}

fn forget(ctx: &Ctx, uid: &str) {
    wake(ctx, &ctx.loaded.forget(uid));
}

fn wake(ctx: &Ctx, servers: &[String]) {
    for server in servers {
        if let Some((namespace, name)) = server.split_once('/') {
            ctx.servers.wake(namespace, name);
        }
    }
}
