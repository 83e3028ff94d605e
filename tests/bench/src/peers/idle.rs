//! What a candidate keeps for clients that do nothing: sessions, connections, standing streams.

use std::time::Duration;

use hyper::body::Incoming;

use super::candidates::{Candidate, Cores, Stand};
use super::counted::Stats;
use super::load::{Client, Target, Work};
use super::process;

/// Until what was opened has settled.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections that the sessions share.
const SHARED: usize = 8;

/// What is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Sessions, on a few connections.
    Sessions,
    /// Sessions with a connection each.
    Connections,
    /// Sessions with a connection and an open standing stream each.
    Streams,
    /// Streams of changes, of the era without sessions.
    Listens,
}

impl Held {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Connections => "connections",
            Self::Streams => "standing streams",
            Self::Listens => "streams of 2026-07-28",
        }
    }

    /// Opens so many of it at `target`.
    ///
    /// # Errors
    /// One is refused.
    pub(super) async fn open(self, target: &Target, count: usize) -> anyhow::Result<Open> {
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        match self {
            Self::Sessions => {
                for _ in 0..SHARED {
                    clients.push(Client::connect(target).await?);
                }
                for number in 0..count {
                    clients[number % SHARED].open_session().await?;
                }
            }
            Self::Connections | Self::Streams => {
                for _ in 0..count {
                    let mut client = Client::open(target, Work::ECHO).await?;
                    if self == Self::Streams {
                        streams.push(client.listen().await?);
                    }
                    clients.push(client);
                }
            }
            Self::Listens => {
                for _ in 0..count {
                    let mut client = Client::connect(target).await?;
                    streams.push(client.subscribe().await?);
                    clients.push(client);
                }
            }
        }
        Ok(Open { clients, streams })
    }
}

/// What is held open until it is dropped.
pub(super) struct Open {
    pub(super) clients: Vec<Client>,
    pub(super) streams: Vec<Incoming>,
}

/// What was kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) held: Held,
    pub(super) count: usize,
    /// Bytes for each, while open.
    pub(super) each: f64,
    /// Bytes before, while open, and after all were closed.
    pub(super) rss: [f64; 3],
    /// Sessions that were opened at the server for it.
    pub(super) at_server: f64,
}

/// Opens `count` of `held` in front of `candidate`, looks at its memory, and closes them.
pub(super) async fn measure(candidate: Candidate, cores: Cores, held: Held, count: usize) -> anyhow::Result<Kept> {
    process::pin(cores.harness)?;
    let stand = Stand::start(candidate, cores, 1, None).await?;
    let kept = kept(&stand, held, count).await;
    stand.end().await?;
    kept
}

async fn kept(stand: &Stand, held: Held, count: usize) -> anyhow::Result<Kept> {
    // What the first request sets up once is no share of anyone.
    drop(Client::open(&stand.through, Work::ECHO).await?);
    let counted = Stats::of(stand.through.server).await?;
    tokio::time::sleep(SETTLE).await;
    let before = stand.usage()?.rss;
    let holding = held.open(&stand.through, count).await?;
    tokio::time::sleep(SETTLE).await;
    let open = stand.usage()?.rss;
    let at_server = Stats::of(stand.through.server).await?.since(&counted).initialized;
    drop(holding);
    tokio::time::sleep(SETTLE).await;
    let after = stand.usage()?.rss;
    Ok(Kept { held, count, each: (open - before) / super::float(count), rss: [before, open, after], at_server })
}
