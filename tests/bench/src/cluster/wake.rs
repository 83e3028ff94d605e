//! Suite `wake`: from a call to a server that sleeps to its answer, the image on the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use portolan_crds::MCPServer;
use portolan_crds::conditions::{find, reasons, types};
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::marks::{Mark, Watches};
use super::{ASK, apply, kubernetes, own, sweep};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use crate::stats::{median, percentile};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct WakeArgs {
    /// Times that the server is woken
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

const NAME: &str = "bench-wake";
/// How long the server takes before it reads its first line.
const OWN_START: Duration = Duration::from_millis(300);
/// Longest time until a held call is answered, or the server sleeps.
const PATIENCE: Duration = Duration::from_secs(120);
/// Until a held call is answered, in seconds.
const TARGET: f64 = 3.5;

/// What ends each phase.
const PHASES: [(Mark, &str); 6] = [
    (Mark::DeploymentMade, "Deployment asks for a pod"),
    (Mark::PodScheduled, "pod scheduled"),
    (Mark::BridgeInstalled, "init container done"),
    (Mark::ContainersStarted, "container started"),
    (Mark::PodReady, "server answers (pod Ready)"),
    (Mark::FirstCall, "held call answered"),
];

fn manifest() -> Value {
    let mut manifest = own(puppet::stdio(TENANT, NAME));
    manifest["spec"]["autoscaling"] = json!({
        "minReplicas": 0, "maxReplicas": 1, "metrics": [{"type": "InFlight", "target": 100}],
        "scaleToZeroAfter": "10s", "activationTimeout": "2m",
    });
    manifest["spec"]["rollout"] = json!({"drainTimeout": "1s"});
    let script = manifest["spec"]["container"]["command"][2].as_str().unwrap_or_default().to_owned();
    let wait = OWN_START.as_millis();
    let late = format!("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, {wait});");
    manifest["spec"]["container"]["command"][2] = format!("{late}{script}").into();
    manifest
}

/// Measures.
pub(crate) async fn run(args: &WakeArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    sweep(&cluster).await?;
    apply(&[manifest()]).await?;
    cluster.ready(TENANT, NAME).await;
    let (url, token) = (cluster.gateway_url(TENANT, NAME).await, cluster.token(TENANT, "default").await);
    let open = async || Session::open(&url, Some(&token)).await.map_err(|error| anyhow::anyhow!("{error}"));
    let session = open().await?;
    let mut runs = Vec::new();
    for run in 1..=args.runs {
        until_asleep(&cluster).await?;
        runs.push(wake(&cluster, &session).await.with_context(|| format!("run {run}"))?);
        eprintln!("bench: wake, run {run} of {}", args.runs);
    }
    sweep(&cluster).await?;
    machine.done()?;
    let answered: Vec<f64> = runs.iter().filter_map(|run| run.get(&Mark::FirstCall).copied()).collect();
    let figure = Figure {
        what: format!("call of a server that sleeps → its answer, p50 of {}", args.runs),
        value: median(&answered),
        target: TARGET,
        unit: "s",
    };
    let notes = vec![format!(
        "The server itself waits {} ms before it reads anything. *After the call* counts from the moment before it was \
         sent, *step* from the line above; both are medians, each of its own, so steps need not add up.",
        OWN_START.as_millis()
    )];
    Ok(Section { id: "wake", machine, figures: vec![figure], tables: vec![table(&runs)], notes })
}

/// Calls the server that sleeps; says how many seconds later each phase ended.
async fn wake(cluster: &Cluster, session: &Session) -> anyhow::Result<BTreeMap<Mark, f64>> {
    let watches = Watches::of_pods(cluster, NAME).await?;
    let began = Instant::now();
    let called = async {
        match puppet::eval(session, 1, "6 * 7").await {
            Ok(answer) if answer == json!(42) => Ok(Instant::now()),
            other => bail!("the held call was answered with {other:?}"),
        }
    };
    let before: Vec<Mark> = PHASES.map(|(mark, _)| mark).into_iter().filter(|mark| *mark != Mark::FirstCall).collect();
    let (mut marks, at) = tokio::try_join!(watches.collect(&before, PATIENCE), called)?;
    marks.insert(Mark::FirstCall, at);
    Ok(marks.into_iter().map(|(mark, at)| (mark, (at - began).as_secs_f64())).collect())
}

/// Waits until no pod is left, not even one that ends.
async fn until_asleep(cluster: &Cluster) -> anyhow::Result<()> {
    let servers = cluster.api::<MCPServer>(TENANT);
    let waited = timeout(PATIENCE, async {
        loop {
            let conditions = servers.get(NAME).await?.status.map(|status| status.conditions).unwrap_or_default();
            let sleeps = find(&conditions, types::AVAILABLE).is_some_and(|found| found.reason == reasons::ASLEEP);
            if sleeps && Watches::pods(cluster, NAME).await? == 0 {
                return Ok(());
            }
            sleep(ASK).await;
        }
    });
    waited.await.with_context(|| format!("the server did not sleep within {PATIENCE:?}"))?
}

fn table(runs: &[BTreeMap<Mark, f64>]) -> Table {
    let seconds = |value: Option<f64>| value.map_or_else(String::new, |value| decimal(value, 2));
    let mut before: Option<Mark> = None;
    let rows = PHASES.map(|(mark, words)| {
        let at: Vec<f64> = runs.iter().filter_map(|run| run.get(&mark).copied()).collect();
        let since = |run: &BTreeMap<Mark, f64>| before.map_or(Some(0.0), |before| run.get(&before).copied());
        let steps: Vec<f64> = runs.iter().filter_map(|run| Some(run.get(&mark)? - since(run)?)).collect();
        before = Some(mark);
        let [least, most] = [0.0, 1.0].map(|rank| seconds(percentile(&at, rank)));
        vec![words.to_owned(), seconds(median(&at)), seconds(median(&steps)), least, most]
    });
    Table {
        caption: "Seconds".into(),
        columns: vec!["phase ends with", "after the call, p50", "step, p50", "after the call, least", "most"],
        rows: rows.into(),
    }
}
