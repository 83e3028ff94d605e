//! The binary `portolan-bridge`.

mod args;
mod install;
mod reaper;
mod termination;
mod wait;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use portolan_bridge::config::Upstream;
use portolan_bridge::{Bridge, Config, guard};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Cli, Command, LogFormat, Shared};
use crate::termination::Termination;

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
            serve(&args.shared, || args.config())
        }
        Command::Http(args) => serve(&args.shared, || args.config(Upstream::Http)),
        Command::Sse(args) => serve(&args.shared, || args.config(Upstream::Sse)),
    }
}

fn serve(shared: &Shared, config: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    log_to_stderr(shared.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = config().and_then(|config| runtime.block_on(bridge(shared, config)));
    if let Err(error) = &result {
        let message = format!("{error:#}");
        Termination { reason: "StartFailed", message, exits: Vec::new() }.write(&shared.termination_log);
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn bridge(shared: &Shared, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let bridge = Bridge::start(config, shared.data, shared.admin).await?;
    tracing::info!(data = %bridge.data_address(), admin = %bridge.admin_address(), "the bridge listens");
    signals.next().await;
    let reason = tokio::select! {
        () = bridge.drain() => "Drained",
        () = signals.next() => "Interrupted",
    };
    let exits = bridge.shutdown().await.exits;
    let message = "the bridge was asked to end".to_owned();
    Termination { reason, message, exits }.write(&shared.termination_log);
    Ok(())
}

/// The signals that ask the bridge to end.
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
}
