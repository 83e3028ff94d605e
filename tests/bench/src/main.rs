//! `portolan-bench`: measures Portolan, prints the figures and records them. It never fails on a figure.

mod children;
mod cluster;
mod echo;
mod machine;
mod mcp;
mod peers;
mod probes;
mod report;
mod stats;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use portolan_tests::paths;

use crate::report::Section;

/// As `portolan` has it, which stands in here as the suite's gateway.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Portolan, prints the figures and records them.
#[derive(Parser)]
#[command(name = "portolan-bench", version)]
struct Cli {
    /// A document with markers, which the figures are written into; without it they are printed only
    #[arg(long, global = true)]
    record: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Suite(Suite),
    /// A gateway in front of one server, for the suite `peers`
    #[command(hide = true)]
    Alone(peers::alone::AloneArgs),
    /// The operator's reader of probes, for the suite `probes`
    #[command(hide = true)]
    ReadProbes(probes::ReadProbesArgs),
}

#[derive(Subcommand)]
enum Suite {
    /// A tool call over loopback: directly, and through gateway and bridge
    Echo(echo::EchoArgs),
    /// A tool call through others and through the gateway, each on a core of its own
    Peers(peers::PeersArgs),
    /// Calls of one server beside the trouble of others
    Beside(peers::beside::BesideArgs),
    /// Memory of the gateway, and of gateway and bridge, under load that does not end
    Soak(peers::soak::SoakArgs),
    /// What it costs the operator to hear what probes find
    Probes(probes::ProbesArgs),
    /// From `kubectl apply` to the first successful call, by phase (in the test cluster)
    Start(cluster::start::StartArgs),
    /// Writes and memory with servers that nobody uses (in the test cluster)
    Idle(cluster::idle::IdleArgs),
    /// From a server that hangs to `Available=False` (in the test cluster)
    Hang(cluster::hang::HangArgs),
    /// What calls and sessions notice of changes (in the test cluster)
    Changes(cluster::changes::ChangesArgs),
    /// From the first share of a bad revision until it is taken back (in the test cluster)
    Rollback(cluster::rollback::RollbackArgs),
    /// From a call to a server that sleeps to its answer, by phase (in the test cluster)
    Wake(cluster::wake::WakeArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Command::Alone(args) => peers::alone::run(args),
        Command::ReadProbes(args) => probes::read(args),
        Command::Suite(suite) => {
            // One thread: the load must not take more cores than it has to.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let section = runtime.block_on(measure(suite))?;
            section.publish(&paths::repo("target/bench"), cli.record.as_deref())
        }
    }
}

async fn measure(suite: &Suite) -> anyhow::Result<Section> {
    match suite {
        Suite::Echo(args) => echo::run(args).await,
        Suite::Peers(args) => peers::run(args).await,
        Suite::Beside(args) => peers::beside::run(args).await,
        Suite::Soak(args) => peers::soak::run(args).await,
        Suite::Start(args) => cluster::start::run(args).await,
        Suite::Idle(args) => cluster::idle::run(args).await,
        Suite::Probes(args) => probes::run(args).await,
        Suite::Hang(args) => cluster::hang::run(args).await,
        Suite::Changes(args) => cluster::changes::run(args).await,
        Suite::Rollback(args) => cluster::rollback::run(args).await,
        Suite::Wake(args) => cluster::wake::run(args).await,
    }
}
