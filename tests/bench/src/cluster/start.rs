//! Suite `start`: from `kubectl apply` to the first successful call through the gateway, the image on the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http::Uri;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::thirdparty::{Place, server};
use serde_json::Value;

use super::marks::{Mark, Watches};
use super::{apply, echo_server, kubernetes, own, sweep};
use crate::machine::Machine;
use crate::mcp::{Caller, Session, Target};
use crate::report::{Figure, Section, Table, decimal};
use crate::stats::{median, percentile};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    /// Runs of each server
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// Longest time to the first call.
const LIMIT: Duration = Duration::from_secs(90);
/// Pause between two attempts of a first call.
const RETRY: Duration = Duration::from_millis(25);

/// A server whose start is measured.
struct Subject {
    what: &'static str,
    target: f64,
    manifest: fn(&str) -> Value,
}

const SUBJECTS: [Subject; 2] = [
    Subject { what: "small Rust server", target: 4.0, manifest: echo_server },
    Subject { what: "Node server (server-everything)", target: 6.0, manifest: everything },
];

fn everything(name: &str) -> Value {
    own(server("everything", Place::Container).manifest(TENANT, name))
}

/// Time from `kubectl apply` to each mark, in seconds.
type Run = BTreeMap<Mark, f64>;

/// Measures.
pub(crate) async fn run(args: &StartArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    sweep(&cluster).await?;
    let (mut figures, mut tables) = (Vec::new(), Vec::new());
    for (index, subject) in SUBJECTS.iter().enumerate() {
        let mut runs = Vec::new();
        for number in 0..args.runs {
            let name = format!("bench-start-{index}-{number}");
            let run = start(&cluster, &name, (subject.manifest)(&name)).await;
            sweep(&cluster).await?;
            runs.push(run.with_context(|| format!("{}, run {}", subject.what, number + 1))?);
            eprintln!("bench: start, {}, run {} of {}", subject.what, number + 1, args.runs);
        }
        let first: Vec<f64> = runs.iter().filter_map(|run| run.get(&Mark::FirstCall).copied()).collect();
        figures.push(Figure {
            what: format!("`kubectl apply` → first call, {}, p50 of {}", subject.what, args.runs),
            value: median(&first),
            target: subject.target,
            unit: "s",
        });
        tables.push(table(subject.what, &runs));
    }
    machine.done()?;
    Ok(Section { id: "start", machine, figures, tables, notes: notes() })
}

fn notes() -> Vec<String> {
    vec![
        "*after apply* counts from the moment before `kubectl` was started, so its own start is in it; *step* is the \
         time since the line above. Both are medians, each of its own, so steps need not add up."
            .to_owned(),
        format!(
            "The client opens a session and calls `echo` every {} ms until that succeeds: a first call before \
             *Programmed* means that one gateway replica had the server before all of them had said so.",
            RETRY.as_millis()
        ),
    ]
}

async fn start(cluster: &Cluster, name: &str, manifest: Value) -> anyhow::Result<Run> {
    let url: Uri = cluster.gateway_url(TENANT, name).await.parse()?;
    let token = cluster.token(TENANT, "default").await;
    let target = Target::Http { url, caller: Caller::Client(Some(token)) };
    let watches = Watches::open(cluster, name).await?;
    let began = Instant::now();
    let applied_and_called = async {
        apply(&[manifest]).await?;
        first_call(&target, began + LIMIT).await
    };
    let (mut marks, called) = tokio::try_join!(watches.collect(Mark::BEFORE_A_CALL, LIMIT), applied_and_called)?;
    marks.insert(Mark::FirstCall, called);
    Ok(marks.into_iter().map(|(mark, at)| (mark, (at - began).as_secs_f64())).collect())
}

async fn first_call(target: &Target, deadline: Instant) -> anyhow::Result<Instant> {
    loop {
        match call(target).await {
            Ok(at) => return Ok(at),
            Err(error) if Instant::now() > deadline => bail!("no call succeeded within {LIMIT:?}: {error:#}"),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn call(target: &Target) -> anyhow::Result<Instant> {
    let mut session = Session::open(target).await?;
    session.echo("first").await?;
    let at = Instant::now();
    session.close().await?;
    Ok(at)
}

fn table(what: &str, runs: &[Run]) -> Table {
    let mut before: Option<Mark> = None;
    let mut rows = Vec::new();
    for mark in Mark::ALL {
        let at: Vec<f64> = runs.iter().filter_map(|run| run.get(&mark).copied()).collect();
        let steps: Vec<f64> = runs
            .iter()
            .filter_map(|run| Some(run.get(&mark)? - before.map_or(Some(0.0), |before| run.get(&before).copied())?))
            .collect();
        let seconds = |value: Option<f64>| value.map_or_else(String::new, |value| decimal(value, 2));
        rows.push(vec![
            mark.words().to_owned(),
            seconds(median(&at)),
            seconds(median(&steps)),
            seconds(percentile(&at, 0.0)),
            seconds(percentile(&at, 1.0)),
        ]);
        before = Some(mark);
    }
    Table {
        caption: format!("{what}, seconds"),
        columns: vec!["phase ends with", "after apply, p50", "step, p50", "after apply, least", "most"],
        rows,
    }
}
