//! The command line of the binary.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portolan_bridge::config::{Config, Probe, ServerCommand, Sessions, Upstream};
use portolan_mcp::mac::{KEY_LEN, MacKey};
use portolan_mcp::wire;

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
    pub(crate) shared: Shared,
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
    pub(crate) shared: Shared,
    /// The server's endpoint, such as http://127.0.0.1:3000/mcp, or its event stream, such as http://127.0.0.1:3000/sse
    #[arg(long)]
    pub(crate) upstream: http::Uri,
}

#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Address of the port for MCP
    #[arg(long, default_value = "0.0.0.0:8700")]
    pub(crate) data: SocketAddr,
    /// Address of the port for probes and reports
    #[arg(long, default_value = "0.0.0.0:8701")]
    pub(crate) admin: SocketAddr,
    /// File with the 32 bytes that gateway and operator sign with
    #[arg(long)]
    mac_key_file: PathBuf,
    /// UID of the pod that this is; requests that are meant for another one are refused
    #[arg(long, env = wire::POD_VARIABLE, default_value = "", hide_default_value = true)]
    pod_uid: String,
    /// Most sessions at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: u32,
    /// End a session that nobody used for so long
    #[arg(long, default_value = "30m", value_parser = duration)]
    idle_timeout: Duration,
    /// Started processes that wait for a session
    #[arg(long, default_value_t = 1)]
    warm: u32,
    /// Whether any process may answer any request
    #[arg(long, value_enum, default_value = "stateful")]
    session_type: SessionType,
    /// Time between two probes
    #[arg(long, default_value = "10s", value_parser = duration)]
    probe_interval: Duration,
    /// How long one probe may take
    #[arg(long, default_value = "3s", value_parser = duration)]
    probe_timeout: Duration,
    /// Failures in a row before the server counts as failing
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    unhealthy_threshold: u32,
    /// Successes in a row before it counts as ready again
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    healthy_threshold: u32,
    /// How long `initialize` of the probe may take
    #[arg(long, default_value = "30s", value_parser = duration)]
    handshake_timeout: Duration,
    /// How long a call may take, at most
    #[arg(long, default_value = "30s", value_parser = duration)]
    request_timeout: Duration,
    /// How long sessions may go on after SIGTERM
    #[arg(long, default_value = "10m", value_parser = duration)]
    drain_timeout: Duration,
    /// Time between SIGTERM and SIGKILL of a server process
    #[arg(long, default_value = "2s", value_parser = duration)]
    grace: Duration,
    /// Longest message in either direction, in bytes
    #[arg(long, default_value_t = 16 * 1024 * 1024, value_parser = message_bytes)]
    max_message_bytes: usize,
    /// Folder of the control group whose memory limit is watched; the container's own where absent
    #[arg(long, hide = true)]
    cgroup: Option<PathBuf>,
    /// Where the reason of the exit is left as JSON; nothing is written when the file does not exist
    #[arg(long, default_value = "/dev/termination-log")]
    pub(crate) termination_log: PathBuf,
    /// Shape of the log on stderr
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SessionType {
    Stateful,
    Stateless,
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
        self.shared.config(Upstream::Stdio(ServerCommand::new(program, args.iter().cloned())))
    }
}

impl HttpArgs {
    /// The configuration; reads the key file. `transport` makes what the server speaks of its endpoint.
    pub(crate) fn config(&self, transport: fn(http::Uri) -> Upstream) -> anyhow::Result<Config> {
        self.shared.config(transport(self.upstream.clone()))
    }
}

impl Shared {
    fn config(&self, upstream: Upstream) -> anyhow::Result<Config> {
        Ok(Config {
            sessions: Sessions {
                stateless: self.session_type == SessionType::Stateless,
                max: self.max_sessions,
                idle_timeout: self.idle_timeout,
                warm: self.warm,
            },
            probe: Probe {
                interval: self.probe_interval,
                timeout: self.probe_timeout,
                unhealthy_threshold: self.unhealthy_threshold,
                healthy_threshold: self.healthy_threshold,
                handshake_timeout: self.handshake_timeout,
            },
            request_timeout: self.request_timeout,
            drain_timeout: self.drain_timeout,
            grace: self.grace,
            max_message_bytes: self.max_message_bytes,
            cgroup: self.cgroup.clone().or_else(own_cgroup),
            pod: self.pod_uid.clone(),
            ..Config::new(upstream, self.mac_key()?)
        })
    }

    fn mac_key(&self) -> anyhow::Result<MacKey> {
        let path = self.mac_key_file.display();
        let bytes =
            std::fs::read(&self.mac_key_file).map_err(|error| anyhow::anyhow!("cannot read {path}: {error}"))?;
        MacKey::new(&bytes)
            .ok_or_else(|| anyhow::anyhow!("{path} must hold exactly {KEY_LEN} bytes, but has {}", bytes.len()))
    }
}

/// Where a container sees its own control group: v1 by controller, v2 at the root.
fn own_cgroup() -> Option<PathBuf> {
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        .into_iter()
        .map(|(dir, file)| (PathBuf::from(dir), file))
        .find_map(|(dir, file)| dir.join(file).exists().then_some(dir))
}

fn message_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "write a number of bytes, such as 16777216".to_owned())?;
    if bytes < 1024 { Err("must be at least 1024".to_owned()) } else { Ok(bytes) }
}

/// Reads a duration: whole numbers with h, m, s or ms, largest unit first, such as `1h30m` or `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write one such as 30s, 10m, 1h30m or 500ms");
    let (mut rest, mut millis, mut smallest) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(wrong)?;
        if factor >= smallest {
            return Err(wrong());
        }
        smallest = factor;
        millis = number.checked_mul(factor).and_then(|part| part.checked_add(millis)).ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
    }
    if millis == 0 { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units_largest_first() {
        for (text, millis) in
            [("30s", 30_000), ("10m", 600_000), ("500ms", 500), ("1h30m", 5_400_000), ("1m1s1ms", 61_001)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "30", "s", "1.5s", "-1s", "1s1m", "1s1s", "99999999999999999999h", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
