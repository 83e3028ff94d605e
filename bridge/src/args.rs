//! The command line of the binary.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portolan_bridge::Config;
use portolan_bridge::config::{ServerCommand, Upstream};
use portolan_bridge::flags::{Flags, duration};

/// Portolan's bridge: stands in front of one MCP server, inside its pod.
#[derive(Debug, Parser)]
#[command(name = "portolan-bridge", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy this program to DEST (for an init container without a shell)
    Install {
        /// File to write, or a folder to write it into
        dest: PathBuf,
    },
    /// Serve a command that speaks MCP on stdin and stdout, one process per session
    Stdio(StdioArgs),
    /// Serve a streamable HTTP server that listens on loopback
    Http(HttpArgs),
    /// Serve an HTTP+SSE server (2024-11-05) that listens on loopback, one event stream per session
    Sse(HttpArgs),
    /// Wait until the bridge beside this container has drained (its preStop hook)
    WaitDrained {
        /// Admin port of the bridge; loopback only
        #[arg(long, default_value = "127.0.0.1:8701")]
        admin: SocketAddr,
        /// Longest wait
        #[arg(long, default_value = "10m", value_parser = duration)]
        timeout: Duration,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StdioArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) log: Log,
    /// This is the bridge below the reaper
    #[arg(long, hide = true)]
    pub(crate) below_reaper: bool,
    /// The server's command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) log: Log,
    /// The server's endpoint, such as http://127.0.0.1:3000/mcp, or its event stream, such as http://127.0.0.1:3000/sse
    #[arg(long)]
    pub(crate) upstream: http::Uri,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Shape of the log on stderr
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Json,
    Text,
}

impl StdioArgs {
    /// The configuration; reads the key file.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let (program, args) = self.command.split_first().ok_or_else(|| anyhow::anyhow!("no command after `--`"))?;
        self.flags.config(Upstream::Stdio(ServerCommand::new(program, args.iter().cloned())))
    }
}

impl HttpArgs {
    /// The configuration; reads the key file. `transport` makes what the server speaks of its endpoint.
    pub(crate) fn config(&self, transport: fn(http::Uri) -> Upstream) -> anyhow::Result<Config> {
        self.flags.config(transport(self.upstream.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
