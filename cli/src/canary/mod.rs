//! `portolan canary`: asks a server, or an agent, what is known, and tells whether the answer is right.

mod agent;
mod checked;
mod record;
mod server;
mod source;

use clap::{Args, Subcommand};

use crate::exit::Failure;

/// Ask a server, or an agent that uses it, what it is known to have to answer.
#[derive(Args, Debug)]
pub(crate) struct CanaryArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(checked::RunArgs),
    Agent(agent::AgentArgs),
    /// Serve an MCP server with the document "Saint Anthony" on standard input and output.
    #[command(after_help = "Example:\n  portolan dev -f examples/canary")]
    Serve,
}

impl CanaryArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Run(args) => args.json(),
            Command::Agent(args) => args.json(),
            Command::Serve => false,
        }
    }
}

/// `portolan canary`.
pub(crate) async fn run(args: &CanaryArgs) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => checked::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Serve => server::run().await,
    }
}
