//! The command `portolan`: the operator, the gateway, the same without a cluster, and the user's commands.

mod apikey;
mod canary;
mod client;
mod cluster;
mod completion;
mod crds;
mod demo_server;
mod dev;
mod exit;
mod gateway;
mod logging;
mod operator;
mod peers;
mod relay;
mod rollout;
mod shutdown;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use exit::{Exit, Failure, print};

/// First word of the command line that makes this program the guard of a server process.
const GUARD: &str = "guard";

/// MCP servers as a service on Kubernetes.
#[derive(Parser, Debug)]
#[command(name = "portolan", version, propagate_version = true, max_term_width = 100, subcommand_required = true)]
#[command(after_help = "\
Examples:
  portolan dev -f examples/quickstart
  portolan tools http://127.0.0.1:8080/default/quickstart/mcp
  portolan call http://127.0.0.1:8080/default/quickstart/mcp get-sum a=2 b=40")]
struct Cli {
    #[command(flatten)]
    log: logging::LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Dev(dev::DevArgs),
    Tools(client::ToolsArgs),
    Call(client::CallArgs),
    Canary(canary::CanaryArgs),
    Rollout(rollout::RolloutArgs),
    #[command(name = "apikey")]
    ApiKey(apikey::ApiKeyArgs),
    /// Print the CRDs of this release as YAML.
    #[command(after_help = "Example:\n  portolan crds | kubectl apply --server-side -f -")]
    Crds,
    Completion(completion::CompletionArgs),
    Operator(operator::OperatorArgs),
    Gateway(gateway::GatewayArgs),
    Relay(relay::RelayArgs),
    /// Print the version.
    #[command(after_help = "Example:\n  portolan version")]
    Version,
    /// Serve the MCP server of the quickstart on standard input and output.
    #[command(hide = true)]
    DemoServer,
}

impl Command {
    /// Whether failures are told as one JSON line.
    fn json(&self) -> bool {
        match self {
            Self::Dev(args) => args.json(),
            Self::Tools(args) => args.json(),
            Self::Call(args) => args.json(),
            Self::Canary(args) => args.json(),
            Self::ApiKey(args) => args.json(),
            _ => false,
        }
    }

    /// The log level when neither flag nor environment asks for one.
    fn log_level(&self) -> &'static str {
        match self {
            // What a probe finds is a server's row, and said with it.
            Self::Dev(_) => "warn,portolan_bridge::probe=error,server::stderr=info",
            Self::Operator(_) | Self::Gateway(_) | Self::Relay(_) => "info",
            _ => "off",
        }
    }

    async fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Dev(args) => dev::run(args).await,
            Self::Tools(args) => client::tools(args).await,
            Self::Call(args) => client::call(args).await,
            Self::Canary(args) => canary::run(args).await,
            Self::Rollout(args) => rollout::run(args).await,
            Self::Operator(args) => operator::run(args).await,
            Self::Gateway(args) => gateway::run(args).await,
            Self::Relay(args) => relay::run(args).await,
            Self::ApiKey(args) => apikey::run(args),
            Self::Crds => crds::run(),
            Self::Completion(args) => completion::run(args, &Cli::command()),
            Self::Version => print(concat!("portolan ", env!("CARGO_PKG_VERSION"), "\n")),
            Self::DemoServer => demo_server::run().await,
        }
    }
}

/// A call is a few dozen small allocations: they take less here than in the C library, and what waits takes no more room.
/// `.cargo/config.toml` says from which size on it keeps nothing for later.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A guard is started for every server process: it is quick, single-threaded and has no options of its own.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == GUARD) {
        return portolan_bridge::guard::main(words);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let json = cli.command.json();
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn start(cli: &Cli) -> Result<(), Failure> {
    logging::start(&cli.log, cli.command.log_level())?;
    // `ring` is the one crypto provider; an error says that there is one already, which nothing before this installs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = portolan_gateway::runtime()
        .map_err(|error| Failure::new(Exit::Negative, format!("the runtime does not start: {error}")))?;
    let result = runtime.block_on(cli.command.run());
    // A read of standard input cannot be taken back: nothing waits for it.
    runtime.shutdown_background();
    result
}

/// Help and version are answers; everything else is a command line that is not right.
fn explain(error: &clap::Error) -> ExitCode {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !is_answer && asks_for_json(std::env::args_os()) {
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        return Failure::usage(message).hint("--help says what the command takes").report(true);
    }
    // Nothing is left to tell a failure of stdout or stderr to.
    let _ = error.print();
    if is_answer { ExitCode::SUCCESS } else { ExitCode::from(Exit::Usage as u8) }
}

/// Whether a command line that cannot be read as a whole asks for JSON: whoever wrote it reads the error by program.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let value_follows = |pair: &[String]| matches!(&*pair[0], "-o" | "--output") && pair[1] == "json";
    words.windows(2).any(value_follows)
        || words.iter().any(|word| matches!(&**word, "-ojson" | "-o=json" | "--output=json"))
}
