//! Where log lines go: stderr, as text on a terminal and as JSON elsewhere.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// How much is logged, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// How much to log: error, warn, info, debug, trace, or directives such as info,portolan_gateway=debug.
    /// RUST_LOG is read when this is not given
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    log_level: Option<String>,

    /// How a log line looks: text on a terminal and json elsewhere when not given
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Logging")]
    log_format: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Sends log lines to stderr. `otherwise` is the level when nothing asks for one.
pub(crate) fn start(args: &LogArgs, otherwise: &str) -> Result<(), Failure> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let directives = args.log_level.as_deref().or(from_environment.as_deref()).unwrap_or(otherwise);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("log level {directives:?} cannot be read: {error}"))
            .hint("write error, warn, info, debug or trace, or directives such as info,portolan_gateway=debug")
    })?;
    let on_terminal = std::io::stderr().is_terminal();
    let colour = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match args.log_format {
        Some(Format::Json) => builder.json().flatten_event(true).init(),
        None if !on_terminal => builder.json().flatten_event(true).init(),
        _ => builder.init(),
    }
    Ok(())
}
