//! The binary `portolan-bridge`.

mod args;
mod install;
mod reaper;
mod wait;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use portolan_bridge::config::Upstream;
use portolan_bridge::flags::Flags;
use portolan_bridge::{Config, guard, service};

use crate::args::{Cli, Command, Log, LogFormat};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: a guard stands beside every session and must stay small.
    if arguments.next().is_some_and(|first| first == "guard") {
        return guard::main(arguments);
    }
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("portolan-bridge: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Install { dest } => install::run(&dest).map(|()| ExitCode::SUCCESS),
        Command::WaitDrained { admin, timeout } => wait::run(admin, timeout).map(|()| ExitCode::SUCCESS),
        Command::Stdio(args) if !args.below_reaper => reaper::run(),
        Command::Stdio(args) => {
            reaper::follow()?;
            serve(&args.flags, &args.log, || args.config())
        }
        Command::Http(args) => serve(&args.flags, &args.log, || args.config(Upstream::Http)),
        Command::Sse(args) => serve(&args.flags, &args.log, || args.config(Upstream::Sse)),
    }
}

fn serve(flags: &Flags, log: &Log, config: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    log_to_stderr(log.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async { service::run(flags, config()).await }).map(|()| ExitCode::SUCCESS)
}

fn log_to_stderr(format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
}
