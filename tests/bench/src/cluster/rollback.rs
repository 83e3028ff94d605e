//! Suite `rollback`: from the first share of a revision whose every call fails until it is taken back.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use portolan_crds::MCPServer;
use portolan_crds::server::RevisionState;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{apply, kubernetes, own, sweep};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use crate::stats::{median, percentile};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// Times that each server is given a bad revision
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// How often the API server is asked.
const ASK: Duration = Duration::from_millis(20);
/// Longest time until a revision has a share, or is taken back.
const PATIENCE: Duration = Duration::from_secs(180);
/// Clients that call at once, each call in a session of its own.
const CLIENTS: usize = 8;
/// Fails where the variable says so.
const CODE: &str = "if (process.env.BAD) throw new Error('bad'); 'good'";

/// A way of comparing: seconds between two comparisons, and how many in a row take a revision back.
const ANALYSES: [(u32, u32); 2] = [(2, 3), (5, 2)];

fn manifest(name: &str, (interval, threshold): (u32, u32), bad: Option<u32>) -> Value {
    let mut manifest = own(puppet::stdio(TENANT, name));
    manifest["spec"]["rollout"] = json!({
        "type": "Canary", "drainTimeout": "5s",
        "canary": {
            "steps": [{"setWeight": 50, "pause": "10m"}],
            "analysis": {"interval": format!("{interval}s"), "failureThreshold": threshold, "minCalls": 5},
        },
    });
    if let Some(run) = bad {
        manifest["spec"]["container"]["env"] = json!([{"name": "BAD", "value": run.to_string()}]);
    }
    manifest
}

/// Measures.
pub(crate) async fn run(args: &RollbackArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    sweep(&cluster).await?;
    let (mut figures, mut rows) = (Vec::new(), Vec::new());
    for (index, analysis) in ANALYSES.into_iter().enumerate() {
        let (interval, threshold) = analysis;
        let name = format!("bench-rollback-{index}");
        let words = format!("a comparison every {interval} s, {threshold} in a row");
        apply(&[manifest(&name, analysis, None)]).await?;
        cluster.ready(TENANT, &name).await;
        let mut clients = calling(&cluster, &name).await;
        let mut seconds = Vec::new();
        for run in 1..=args.runs {
            apply(&[manifest(&name, analysis, Some(run))]).await?;
            seconds.push(taken_back(&cluster, &name).await.with_context(|| format!("{words}, run {run}"))?);
            eprintln!("bench: rollback, {words}, run {run} of {}", args.runs);
        }
        clients.shutdown().await;
        sweep(&cluster).await?;
        let shown = |value: Option<f64>| value.map_or_else(String::new, |value| decimal(value, 2));
        let [least, most] = [0.0, 1.0].map(|rank| shown(percentile(&seconds, rank)));
        rows.push(vec![words.clone(), least, shown(median(&seconds)), most]);
        figures.push(Figure {
            what: format!("first share of a bad revision → taken back, {words}, most of {}", args.runs),
            value: percentile(&seconds, 1.0),
            target: f64::from((threshold + 1) * interval),
            unit: "s",
        });
    }
    machine.done()?;
    let table = Table { caption: "Seconds".into(), columns: vec!["analysis", "least", "p50", "most"], rows };
    let notes = vec![format!(
        "The target is (failureThreshold + 1) × interval. Every call at the new revision fails, which has half of the new sessions; \
         {CLIENTS} clients call, each call in a session of its own. The API server is asked every {} ms for the states of revisions.",
        ASK.as_millis()
    )];
    Ok(Section { id: "rollback", machine, figures, tables: vec![table], notes })
}

/// Clients that call until they are dropped, whatever they are answered.
async fn calling(cluster: &Cluster, name: &str) -> JoinSet<()> {
    let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, token) = (url.clone(), token.clone());
        clients.spawn(async move {
            loop {
                let Ok(session) = Session::open(&url, Some(&token)).await else {
                    sleep(ASK).await;
                    continue;
                };
                // That it fails at the one revision is what is measured.
                let _ = puppet::eval(&session, 1, CODE).await;
                let _ = session.delete().await;
            }
        });
    }
    clients
}

/// How long after its first share the new revision is taken back, in seconds.
async fn taken_back(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let (canary, began) = revision_in(cluster, name, |revision| revision.1 == RevisionState::Canary).await?;
    let (_, ended) =
        revision_in(cluster, name, |(name, state)| *name == canary && *state == RevisionState::Failed).await?;
    Ok((ended - began).as_secs_f64())
}

/// Waits for a revision that is so; says which, and when that was seen.
async fn revision_in(
    cluster: &Cluster,
    name: &str,
    is_wanted: impl Fn(&(String, RevisionState)) -> bool,
) -> anyhow::Result<(String, Instant)> {
    let servers = cluster.api::<MCPServer>(TENANT);
    let waited = timeout(PATIENCE, async {
        loop {
            let revisions = servers.get(name).await?.status.map(|status| status.revisions).unwrap_or_default();
            let mut states = revisions.into_iter().map(|revision| (revision.name, revision.state));
            if let Some((revision, _)) = states.find(&is_wanted) {
                return Ok((revision, Instant::now()));
            }
            sleep(ASK).await;
        }
    });
    match waited.await {
        Ok(found) => found,
        Err(_) => bail!("no revision came to that within {PATIENCE:?}"),
    }
}
