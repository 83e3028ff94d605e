//! What is called in front of each candidate, and what came out.

use std::time::Duration;

use super::candidates::{Candidate, Cores, Stand};
use super::counted::Stats;
use super::load::{self, Target, Tool, Work};
use super::process;
use crate::stats::median;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) work: Work,
    /// Each with a connection of its own.
    pub(super) clients: usize,
    /// Servers that the candidate knows.
    pub(super) servers: usize,
}

const fn json(tool: Tool) -> Work {
    Work { tool, sse: false, modern: false }
}

const fn load(name: &'static str, work: Work, clients: usize) -> Load {
    Load { name, work, clients, servers: 1 }
}

const fn events(tool: Tool) -> Work {
    Work { tool, sse: true, modern: false }
}

const fn modern(tool: Tool) -> Work {
    Work { tool, sse: false, modern: true }
}

const KB: Tool = Tool::Blob(1000);
const KB_100: Tool = Tool::Blob(100_000);
const MIB: Tool = Tool::Blob(1 << 20);

/// With candidates on a core of their own.
pub(super) const SPLIT: [Load; 30] = [
    load("echo", json(Tool::Echo), 1),
    load("echo", json(Tool::Echo), 8),
    OF_ANONYMOUS,
    load("echo", json(Tool::Echo), 256),
    load("echo, events", events(Tool::Echo), 1),
    load("echo, events", events(Tool::Echo), 8),
    load("echo, events", events(Tool::Echo), 32),
    load("echo, events", events(Tool::Echo), 256),
    load("echo, 2026-07-28", modern(Tool::Echo), 1),
    load("echo, 2026-07-28", modern(Tool::Echo), 8),
    load("echo, 2026-07-28", modern(Tool::Echo), 32),
    load("echo, 2026-07-28", modern(Tool::Echo), 256),
    load("1 KB", json(KB), 1),
    load("1 KB", json(KB), 8),
    load("1 KB", json(KB), 32),
    load("1 KB", json(KB), 256),
    load("100 KB", json(KB_100), 1),
    load("100 KB", json(KB_100), 8),
    load("100 KB", json(KB_100), 32),
    load("100 KB", json(KB_100), 256),
    load("100 KB, events", events(KB_100), 32),
    load("100 KB, 2026-07-28", modern(KB_100), 32),
    load("1 MiB", json(MIB), 1),
    load("1 MiB", json(MIB), 8),
    load("1 MiB", json(MIB), 32),
    load("1 MiB, events", events(MIB), 8),
    load("1 MiB, 2026-07-28", modern(MIB), 8),
    Load { name: "echo, 50 servers", work: json(Tool::Echo), clients: 32, servers: 50 },
    Load { name: "echo, 2026-07-28, 50 servers", work: modern(Tool::Echo), clients: 32, servers: 50 },
    Load { name: "100 KB, 50 servers", work: json(KB_100), clients: 32, servers: 50 },
];

/// What shows how much of the cost is telling callers apart.
const OF_ANONYMOUS: Load = load("echo", json(Tool::Echo), 32);

/// With everything on one core, so that nothing waits for a core to wake up.
pub(super) const SAME: [Load; 1] = [load("echo, one core", json(Tool::Echo), 1)];

/// How long each is measured, and how long before it is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting {
    pub(super) measured: Duration,
    pub(super) before: Duration,
}

/// One load in front of one candidate, once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) direct_rps: f64,
    pub(super) rps: f64,
    /// Microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Beyond that of the server alone, a moment before.
    pub(super) added: f64,
    /// Seconds of processor time for ten thousand calls.
    pub(super) cpu: f64,
    /// Bytes.
    pub(super) peak: f64,
    /// Above what it had before the load, for each byte in flight.
    pub(super) held: f64,
    /// At the server.
    pub(super) requests_per_call: f64,
    pub(super) new_connections: f64,
}

/// Measures `loads` in front of `candidate`; those that it cannot be asked are left out.
pub(super) async fn measure(
    candidate: Candidate,
    cores: Cores,
    loads: &[Load],
    lasting: Lasting,
) -> anyhow::Result<Vec<(Load, Cell)>> {
    let mut cells = Vec::new();
    for load in loads {
        let is_told_apart = candidate != Candidate::Anonymous || *load == OF_ANONYMOUS;
        if load.work.modern && !candidate.is_modern() || load.servers > 1 && !candidate.is_ours() || !is_told_apart {
            continue;
        }
        // Each load finds a candidate that has seen none before, so that the memory is its own.
        process::pin(cores.harness)?;
        let stand = Stand::start(candidate, cores, load.servers, None).await?;
        let cell = cell(&stand, load, lasting).await;
        stand.end().await?;
        cells.push((*load, cell.map_err(|error| error.context(format!("{}, {}", candidate.name(), load.name)))?));
    }
    Ok(cells)
}

async fn cell(stand: &Stand, load: &Load, lasting: Lasting) -> anyhow::Result<Cell> {
    let direct = run(stand, &stand.direct, load, lasting).await?;
    let idle = stand.usage()?;
    let through = run(stand, &stand.through, load, lasting).await?;
    let calls = through.seen.calls();
    let in_flight = super::float(load.clients * load.work.tool.bytes());
    Ok(Cell {
        direct_rps: direct.seen.rps(),
        rps: through.seen.rps(),
        p50: through.seen.at(0.5),
        p99: through.seen.at(0.99),
        added: through.seen.at(0.5) - direct.seen.at(0.5),
        cpu: through.cpu / calls * 1e4,
        peak: through.peak,
        held: (through.peak - idle.rss) / in_flight,
        requests_per_call: through.at_server.requests / calls,
        new_connections: through.at_server.connections,
    })
}

struct Run {
    seen: load::Seen,
    at_server: Stats,
    /// Of what stands in front: seconds meanwhile, and the most bytes so far.
    cpu: f64,
    peak: f64,
}

async fn run(stand: &Stand, target: &Target, load: &Load, lasting: Lasting) -> anyhow::Result<Run> {
    let mut clients = load::clients(target, load.work, load.clients).await?;
    load::call(&mut clients, load.work, lasting.before).await?;
    let before = Stats::of(target.server).await?;
    let began = stand.usage()?;
    let seen = load::call(&mut clients, load.work, lasting.measured).await?;
    let used = stand.usage()?;
    let at_server = Stats::of(target.server).await?.since(&before);
    Ok(Run { seen, at_server, cpu: used.cpu - began.cpu, peak: used.peak })
}

/// The middle of `field` over rounds.
pub(super) fn middle<T>(rounds: &[T], field: impl Fn(&T) -> f64) -> f64 {
    median(&rounds.iter().map(field).collect::<Vec<_>>()).unwrap_or(f64::NAN)
}
