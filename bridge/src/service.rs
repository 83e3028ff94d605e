//! One bridge as a process of its own: until a signal asks it to end, and it has drained.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Bridge;
use crate::config::Config;
use crate::flags::Flags;
use crate::termination::Termination;

/// Serves what `config` says until a signal asks to end. Why it ended is left where `flags` say.
///
/// # Errors
/// There is no configuration, or a port cannot be listened on.
pub async fn run(flags: &Flags, config: anyhow::Result<Config>) -> anyhow::Result<()> {
    let result = match config {
        Ok(config) => bridge(flags, config).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        let message = format!("{error:#}");
        Termination { reason: "StartFailed", message, exits: Vec::new() }.write(&flags.termination_log);
    }
    result
}

async fn bridge(flags: &Flags, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let bridge = Bridge::start(config, flags.data, flags.admin).await?;
    tracing::info!(data = %bridge.data_address(), admin = %bridge.admin_address(), "the bridge listens");
    signals.next().await;
    let reason = tokio::select! {
        () = bridge.drain() => "Drained",
        () = signals.next() => "Interrupted",
    };
    let exits = bridge.shutdown().await.exits;
    let message = "the bridge was asked to end".to_owned();
    Termination { reason, message, exits }.write(&flags.termination_log);
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
