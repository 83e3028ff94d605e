//! Suite `echo`: one tool call over loopback, directly and through Portolan, round by round in turn; before that, how soon
//! `portolan dev` is there.

mod opening;
mod visit;
mod ways;

use std::time::Duration;

use clap::Args;

use crate::machine::Machine;
use crate::mcp::Session;
use crate::report::{Section, Table, decimal};
use crate::stats::{median, percentile};
use visit::{Visit, visit};
use ways::{Way, Ways};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// Rounds; in each, every way gets its calls
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Calls per way and round with one client
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// Calls per way and round with 32 clients
    #[arg(long, default_value_t = 1600, value_parser = clap::value_parser!(u64).range(1..))]
    concurrent_calls: u64,
    /// Starts of `portolan dev`
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    starts: u32,
}

const CONCURRENT: usize = 32;

/// Measures.
pub(crate) async fn run(args: &EchoArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let figures = vec![opening::figure(args.starts).await?];
    let ways = Ways::start().await?;
    let result = measure(args, ways.all()).await;
    ways.end().await?;
    let tables = result?;
    machine.done()?;
    Ok(Section { id: "echo", machine, figures, tables, notes: notes(args) })
}

fn notes(args: &EchoArgs) -> Vec<String> {
    vec![
        format!(
            "{} rounds in turn, {} calls per way and round at c=1 and {} at c=32; each client has a session and a \
             connection (or a process) of its own; every answer is checked.",
            args.rounds, args.calls, args.concurrent_calls
        ),
        "*Share* is requests per second against the direct way of the same server, the median of the rounds' ratios; \
         it is what to compare between machines."
            .to_owned(),
        "Client, Portolan and server share the machine's cores: at c=32 a way that burns less leaves more to the others."
            .to_owned(),
    ]
}

async fn measure(args: &EchoArgs, ways: &[Way]) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for (clients, calls) in [(1, args.calls), (CONCURRENT, args.concurrent_calls)] {
        let results = rounds(args.rounds, ways, clients, calls).await?;
        tables.push(table(clients, ways, &results));
    }
    Ok(tables)
}

/// The visits of each way, in the order of `ways`.
async fn rounds(rounds: u32, ways: &[Way], clients: usize, calls: u64) -> anyhow::Result<Vec<Vec<Visit>>> {
    let mut sessions = Vec::new();
    for way in ways {
        let mut open = Vec::new();
        for _ in 0..clients {
            open.push(Session::open(&way.target).await?);
        }
        sessions.push(open);
    }
    let mut results: Vec<Vec<Visit>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // Nobody is always first after the pause, or always after the same neighbour.
        for turn in 0..ways.len() {
            let index = (turn + round as usize) % ways.len();
            let done = visit(&mut sessions[index], calls).await;
            results[index].push(done.map_err(|error| error.context(format!("{}, c={clients}", ways[index].name)))?);
        }
        eprintln!("bench: echo, c={clients}, round {} of {rounds}", round + 1);
    }
    for session in sessions.into_iter().flatten() {
        session.close().await?;
    }
    Ok(results)
}

fn table(clients: usize, ways: &[Way], results: &[Vec<Visit>]) -> Table {
    let rows = ways.iter().zip(results).map(|(way, visits)| {
        let latencies: Vec<Duration> = visits.iter().flat_map(|visit| visit.latencies.iter().copied()).collect();
        let rates: Vec<f64> = visits.iter().map(Visit::rate).collect();
        let ratios: Vec<f64> =
            visits.iter().zip(&results[way.baseline]).map(|(visit, direct)| visit.rate() / direct.rate()).collect();
        vec![
            way.name.to_owned(),
            median(&rates).map_or_else(String::new, |rate| decimal(rate, 0)),
            micros(percentile(&latencies, 0.5)),
            micros(percentile(&latencies, 0.99)),
            median(&ratios).map_or_else(String::new, |ratio| decimal(ratio, 3)),
        ]
    });
    Table {
        caption: format!("c={clients}"),
        columns: vec!["way", "rps", "p50 µs", "p99 µs", "share"],
        rows: rows.collect(),
    }
}

fn micros(latency: Option<Duration>) -> String {
    latency.map_or_else(String::new, |latency| decimal(latency.as_secs_f64() * 1e6, 0))
}
