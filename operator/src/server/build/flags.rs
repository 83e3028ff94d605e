//! What the bridge is told on its command line.

use portolan_crds::{
    Duration, MCPServerSpec,
    server::{Container, HealthCheck, SessionType},
};

use super::container::KEY_FILE;

/// Flags of a bridge in front of an HTTP server on loopback.
pub(super) fn http(spec: &MCPServerSpec, container: &Container) -> Vec<String> {
    let port = container.port.unwrap_or_default();
    let mut flags = vec!["--upstream".to_owned(), format!("http://127.0.0.1:{port}{}", container.http_path())];
    flags.extend(common(spec, KEY_FILE));
    flags
}

/// Flags of every bridge, whatever the server is; `key_file` holds the MAC key.
pub(super) fn common(spec: &MCPServerSpec, key_file: &str) -> Vec<String> {
    let HealthCheck { interval, timeout, unhealthy_threshold, healthy_threshold } = &spec.health_check;
    let type_ = match spec.sessions.type_ {
        SessionType::Stateful => "stateful",
        SessionType::Stateless => "stateless",
    };
    // Where nothing is said, the bridge's own default holds: a flag more would roll every server.
    let per_caller = spec.sessions.max_per_caller.map(|most| ("--max-sessions-per-caller", most.to_string()));
    [
        ("--mac-key-file", key_file.to_owned()),
        ("--session-type", type_.to_owned()),
        ("--max-sessions", spec.sessions.max_per_replica().to_string()),
        ("--idle-timeout", spec.sessions.idle_timeout().to_string()),
        ("--probe-interval", interval.to_string()),
        ("--probe-timeout", timeout.to_string()),
        ("--unhealthy-threshold", unhealthy_threshold.to_string()),
        ("--healthy-threshold", healthy_threshold.to_string()),
        ("--request-timeout", spec.timeouts.request.to_string()),
        ("--drain-timeout", at_least_a_moment(spec.rollout.drain_timeout).to_string()),
    ]
    .into_iter()
    .chain(per_caller)
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .chain(spec.has_canary_document().then(|| "--canary-document".to_owned()))
    .collect()
}

/// Flags of the command that waits, in an HTTP server's container, until the bridge beside it has drained.
pub(super) fn wait_drained(spec: &MCPServerSpec) -> Vec<String> {
    vec!["--timeout".into(), at_least_a_moment(spec.rollout.drain_timeout).to_string()]
}

/// The bridge takes no duration of zero; `drainTimeout: 0s` is the shortest that it takes.
fn at_least_a_moment(duration: Duration) -> Duration {
    duration.max(Duration::from_millis(1))
}
