//! What a gateway process is told when it starts. What it serves is configuration of another kind: see `snapshot`.

use std::net::SocketAddr;
use std::time::Duration;

/// How one gateway process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz`, `/metrics` and the operator's stream are served; nowhere when `None`.
    pub admin: Option<SocketAddr>,
    /// Bounds on what clients can make this process hold.
    pub bounds: Bounds,
    /// How the process ends.
    pub drain: Drain,
}

/// Bounds on what clients can make one process hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections open at once; the next one is closed at once.
    pub max_connections: usize,
    /// Requests that one HTTP/2 connection may have under way; a client that begins one more has that one refused.
    pub max_streams: u32,
    /// Requests under way at once, streams among them, of whomever; past it callers get 503.
    pub max_requests: usize,
    /// Bytes of requests and answers held at once, all together; past it callers get 503.
    pub max_buffered_bytes: usize,
    /// The same of one server, so that it leaves room for the others; at least one request body.
    pub max_buffered_bytes_per_server: usize,
    /// From the first byte of a request's head to its end.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request; then it is closed.
    pub idle_timeout: Duration,
    /// How long an HTTP/2 client may say nothing before it is asked whether it is there; as long again without an
    /// answer, and its connection is closed.
    pub ping_interval: Duration,
    /// From the end of a request's head to the end of its body.
    pub body_timeout: Duration,
    /// How long a client may leave unread what was written to it, in whole milliseconds; then its connection is closed,
    /// or in HTTP/2 its stream, and what its requests held is free again.
    pub unread_timeout: Duration,
    /// For how long `/mcp` takes what a server listed for what it lists now, while someone asks or listens; also how often
    /// an idle stream of it gets a comment.
    pub lists_interval: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_streams: 100,
            max_requests: 10_000,
            max_buffered_bytes: 64 * 1024 * 1024,
            max_buffered_bytes_per_server: 32 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            // Above what load balancers grant their idle connections, so that they close first.
            idle_timeout: Duration::from_secs(75),
            ping_interval: Duration::from_secs(20),
            body_timeout: Duration::from_secs(10),
            unread_timeout: Duration::from_secs(60),
            lists_interval: Duration::from_secs(15),
        }
    }
}

/// How a process ends: unready, then for `delay` as before (until every load balancer has noticed), then without new
/// connections for at most `timeout`, until the calls in flight are answered.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// From unready to the end of accepting.
    pub delay: Duration,
    /// How long calls in flight are waited for.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(40) }
    }
}
