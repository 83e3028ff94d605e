//! Suite `hang`: from a server that answers no more, while its process lives, to `Available=False`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use portolan_crds::MCPServer;
use portolan_crds::conditions::{find, types};
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::puppet::{self, LATE};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{apply, kubernetes, own, sweep};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use crate::stats::{median, percentile};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct HangArgs {
    /// Times that each server hangs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// How often the API server is asked for the condition.
const ASK: Duration = Duration::from_millis(20);
/// How late the tools are of a server that hangs, in milliseconds: later than any check waits.
const FOR_EVER: u32 = 3_600_000;
/// Beyond interval × threshold + timeout: from the verdict to the status.
const SLACK: f64 = 1.0;
/// Longest time until a fall is seen, or the return.
const PATIENCE: Duration = Duration::from_secs(120);

/// A way of checking.
struct Check {
    interval: u32,
    timeout: u32,
    threshold: u32,
}

/// Quick ones, and those of a server that says nothing about its checks.
const CHECKS: [Check; 2] =
    [Check { interval: 2, timeout: 1, threshold: 2 }, Check { interval: 10, timeout: 3, threshold: 3 }];

impl Check {
    fn words(&self) -> String {
        let Self { interval, timeout, threshold } = self;
        format!("a check every {interval} s, {timeout} s for each, {threshold} in a row")
    }

    fn bound(&self) -> f64 {
        f64::from(self.interval * self.threshold + self.timeout) + SLACK
    }

    fn manifest(&self, name: &str) -> Value {
        let mut manifest = own(puppet::stdio(TENANT, name));
        manifest["spec"]["healthCheck"] = json!({
            "interval": format!("{}s", self.interval),
            "timeout": format!("{}s", self.timeout),
            "unhealthyThreshold": self.threshold,
        });
        manifest
    }
}

/// Measures.
pub(crate) async fn run(args: &HangArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    sweep(&cluster).await?;
    let (mut figures, mut rows) = (Vec::new(), Vec::new());
    for (index, check) in CHECKS.iter().enumerate() {
        let name = format!("bench-hang-{index}");
        apply(&[check.manifest(&name)]).await?;
        cluster.ready(TENANT, &name).await;
        let mut seconds = Vec::new();
        for run in 1..=args.runs {
            seconds.push(hang(&cluster, &name).await.with_context(|| format!("{}, run {run}", check.words()))?);
            eprintln!("bench: hang, {}, run {run} of {}", check.words(), args.runs);
        }
        sweep(&cluster).await?;
        let shown = |value: Option<f64>| value.map_or_else(String::new, |value| decimal(value, 2));
        rows.push(vec![
            check.words(),
            shown(percentile(&seconds, 0.0)),
            shown(median(&seconds)),
            shown(percentile(&seconds, 1.0)),
        ]);
        figures.push(Figure {
            what: format!("hang → `Available=False`, {}, most of {}", check.words(), args.runs),
            value: percentile(&seconds, 1.0),
            target: check.bound(),
            unit: "s",
        });
    }
    machine.done()?;
    let table = Table { caption: "Seconds".into(), columns: vec!["checks", "least", "p50", "most"], rows };
    let notes = vec![
        "The target is interval × unhealthyThreshold + timeout + 1 s. The server goes on answering everything but \
         `tools/list`; its clock says when it began to hang, and the API server is asked every 20 ms."
            .to_owned(),
    ];
    Ok(Section { id: "hang", machine, figures, tables: vec![table], notes })
}

/// Lets the server hang, and says how many seconds later it is not available; then lets it answer again.
async fn hang(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let began = set_late(cluster, name, FOR_EVER).await?;
    let fell = seen(cluster, name, "False").await?;
    set_late(cluster, name, 0).await?;
    seen(cluster, name, "True").await?;
    Ok((fell - began).as_secs_f64())
}

/// Makes the server so late from now on, and says when that was, since 1970.
async fn set_late(cluster: &Cluster, name: &str, milliseconds: u32) -> anyhow::Result<Duration> {
    let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
    let pod = pods.into_iter().find_map(|pod| pod.metadata.name).context("the server has no pod")?;
    let code = format!("require('fs').writeFileSync('{LATE}', '{milliseconds}'); console.log(Date.now())");
    let said = kubectl(&["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &code])
        .await
        .map_err(|error| anyhow!("{error}"))?;
    Ok(Duration::from_millis(said.trim().parse().with_context(|| format!("no time: {said}"))?))
}

/// Waits until `Available` has this status, and says when that was seen, since 1970.
async fn seen(cluster: &Cluster, name: &str, status: &str) -> anyhow::Result<Duration> {
    let servers = cluster.api::<MCPServer>(TENANT);
    let waited = timeout(PATIENCE, async {
        loop {
            let conditions = servers.get(name).await?.status.map(|status| status.conditions).unwrap_or_default();
            if find(&conditions, types::AVAILABLE).is_some_and(|available| available.status == status) {
                return Ok(SystemTime::now().duration_since(UNIX_EPOCH)?);
            }
            sleep(ASK).await;
        }
    });
    match waited.await {
        Ok(seen) => seen,
        Err(_) => bail!("Available was not {status} within {PATIENCE:?}"),
    }
}
