//! What every bridge that is a process of its own is told on its command line, whatever stands behind it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use portolan_mcp::mac::{KEY_LEN, MacKey};
use portolan_mcp::wire;

use crate::config::{Config, Probe, Sessions, Upstream};

/// The flags of a bridge.
#[derive(Debug, Args)]
pub struct Flags {
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
    /// Most sessions of one caller at a time [default: three quarters of all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions_per_caller: Option<u32>,
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
    /// Add Saint Anthony to the server's resources: a document that proves to whoever asks about it that it was read
    #[arg(long)]
    canary_document: bool,
    /// Folder of the control group whose memory limit is watched; the container's own where absent
    #[arg(long, hide = true)]
    cgroup: Option<PathBuf>,
    /// Where the reason of the exit is left as JSON; nothing is written when the file does not exist
    #[arg(long, default_value = "/dev/termination-log")]
    pub(crate) termination_log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SessionType {
    Stateful,
    Stateless,
}

impl Flags {
    /// The configuration of a bridge in front of `upstream`; reads the key file.
    ///
    /// # Errors
    /// The key file cannot be read, or holds no key.
    pub fn config(&self, upstream: Upstream) -> anyhow::Result<Config> {
        Ok(Config {
            sessions: Sessions {
                stateless: self.session_type == SessionType::Stateless,
                max: self.max_sessions,
                max_per_caller: self.max_sessions_per_caller.unwrap_or_else(|| Sessions::share_of(self.max_sessions)),
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
            document: self.canary_document,
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
///
/// # Errors
/// It is none; the message says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
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
}
