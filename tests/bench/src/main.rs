//! `portolan-bench`: measures Portolan, prints the figures and records them. It never fails on a figure.

mod cluster;
mod echo;
mod machine;
mod mcp;
mod report;
mod stats;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use portolan_tests::paths;

/// Measures Portolan, prints the figures and records them.
#[derive(Parser)]
#[command(name = "portolan-bench", version)]
struct Cli {
    /// A document with markers, which the figures are written into; without it they are printed only
    #[arg(long, global = true)]
    record: Option<PathBuf>,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// A tool call over loopback: directly, and through gateway and bridge
    Echo(echo::EchoArgs),
    /// From `kubectl apply` to the first successful call, by phase (in the test cluster)
    Start(cluster::start::StartArgs),
    /// Writes and memory with servers that nobody uses (in the test cluster)
    Idle(cluster::idle::IdleArgs),
}

// One thread: the load must not take more cores than it has to.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let section = match &cli.suite {
        Suite::Echo(args) => echo::run(args).await?,
        Suite::Start(args) => cluster::start::run(args).await?,
        Suite::Idle(args) => cluster::idle::run(args).await?,
    };
    section.publish(&paths::repo("target/bench"), cli.record.as_deref())
}
