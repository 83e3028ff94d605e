//! Suite `peers`: a tool call through others and through Portolan, the same load in turn, each on a core of its own.

pub(crate) mod alone;
pub(crate) mod beside;
mod candidates;
mod counted;
mod grid;
mod idle;
mod load;
pub(crate) mod process;
pub(crate) mod soak;
mod token;

use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use candidates::{Candidate, Cores};
use grid::{Cell, Lasting, Load, middle};
use idle::{Held, Kept};

/// Clients and server on one core, what is compared on the other.
const SPLIT: Cores = Cores { harness: 0, candidate: 1 };
/// Everything on one core.
const SAME: Cores = Cores { harness: 0, candidate: 0 };

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct PeersArgs {
    /// Rounds; in each, every load is put on everything that is compared
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long one load is measured, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// What is compared; everything when not given
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Candidate>,
    /// Loads, by the names in the table; all of them when not given
    #[arg(long = "load", value_name = "NAME", value_parser = load_name)]
    loads: Vec<String>,
    /// Sessions, connections and streams that are held open; none are when 0
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
}

fn load_name(text: &str) -> Result<String, String> {
    let mut names: Vec<&str> = grid::SPLIT.iter().chain(&grid::SAME).map(|load| load.name).collect();
    names.dedup();
    if names.contains(&text) { Ok(text.to_owned()) } else { Err(format!("write one of {}", names.join("; "))) }
}

/// Cells of one candidate and load, over all rounds.
struct Row {
    candidate: Candidate,
    load: Load,
    cells: Vec<Cell>,
}

/// Measures, round by round.
pub(crate) async fn run(args: &PeersArgs) -> anyhow::Result<Section> {
    ensure!(std::thread::available_parallelism()?.get() >= 2, "the comparison needs two cores");
    let compared = if args.only.is_empty() { Candidate::ALL.to_vec() } else { args.only.clone() };
    if compared.contains(&Candidate::McpProxy) {
        // Now, and not after minutes of measuring others.
        candidates::mcp_proxy_binary()?;
    }
    let mut machine = Machine::look().await?;
    let mut rows = Vec::new();
    for round in 0..args.rounds {
        for candidate in &compared {
            measure(*candidate, args, &mut rows).await?;
            eprintln!("bench: peers, round {} of {}: {}", round + 1, args.rounds, candidate.name());
        }
    }
    let mut kept = Vec::new();
    for candidate in compared.iter().filter(|_| args.idle > 0) {
        for (held, count) in holdings(*candidate, args.idle) {
            kept.push((*candidate, idle::measure(*candidate, SPLIT, held, count).await?));
            eprintln!("bench: peers, {count} {held:?}: {}", candidate.name());
        }
    }
    machine.done()?;
    Ok(Section {
        id: "peers",
        machine,
        figures: figures(&rows, &kept, token::micros_to_open()?),
        tables: vec![calls_table(&rows), kept_table(&kept)],
        notes: notes(args),
    })
}

async fn measure(candidate: Candidate, args: &PeersArgs, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measured = Duration::from_secs_f64(args.seconds);
    let lasting = Lasting { measured, before: measured / 3 };
    let chosen = |loads: &[Load]| -> Vec<Load> {
        let is_chosen = |load: &&Load| args.loads.is_empty() || args.loads.iter().any(|name| name == load.name);
        loads.iter().filter(is_chosen).copied().collect()
    };
    let mut cells = grid::measure(candidate, SPLIT, &chosen(&grid::SPLIT), lasting).await?;
    cells.extend(grid::measure(candidate, SAME, &chosen(&grid::SAME), lasting).await?);
    for (load, cell) in cells {
        match rows.iter_mut().find(|row| row.candidate == candidate && row.load == load) {
            Some(row) => row.cells.push(cell),
            None => rows.push(Row { candidate, load, cells: vec![cell] }),
        }
    }
    Ok(())
}

/// Each may be two connections of a process, which may have 20,000 descriptors.
const MOST_CONNECTIONS: usize = 9_900;

/// A bridge holds its own sessions and streams; what it keeps for each is no promise of the gateway's.
fn holdings(candidate: Candidate, count: usize) -> Vec<(Held, usize)> {
    let open = count.min(MOST_CONNECTIONS);
    match candidate {
        Candidate::Gateway => {
            vec![
                (Held::Sessions, count / 10),
                (Held::Sessions, count),
                (Held::Connections, open),
                (Held::Streams, open),
                (Held::Listens, open),
            ]
        }
        Candidate::Bridged => vec![(Held::Sessions, count / 10), (Held::Sessions, count)],
        Candidate::Anonymous => vec![],
        Candidate::Nginx | Candidate::Relay | Candidate::McpProxy => {
            vec![(Held::Sessions, count / 10), (Held::Sessions, count), (Held::Connections, open)]
        }
    }
}

fn calls_table(rows: &[Row]) -> Table {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    // Together what was asked the same, in the order of the loads.
    let place = |load: &Load| grid::SPLIT.iter().chain(&grid::SAME).position(|other| other == load);
    sorted.sort_by_key(|row| place(&row.load));
    let rows = sorted.into_iter().map(|row| {
        let at = |field: fn(&Cell) -> f64, places| decimal(middle(&row.cells, field), places);
        vec![
            row.load.name.to_owned(),
            row.load.clients.to_string(),
            row.candidate.name().to_owned(),
            at(|cell| cell.direct_rps, 0),
            at(|cell| cell.rps, 0),
            at(|cell| cell.p50, 0),
            at(|cell| cell.p99, 0),
            at(|cell| cell.added, 0),
            at(|cell| cell.cpu, 2),
            at(|cell| cell.peak / MIB, 1),
            // Of short answers a process holds next to nothing beside itself.
            if row.load.work.tool.bytes() < LARGE { "–".to_owned() } else { at(|cell| cell.held, 2) },
            at(|cell| cell.requests_per_call, 3),
            at(|cell| cell.new_connections, 0),
        ]
    });
    Table {
        caption: "Calls".into(),
        columns: vec![
            "load",
            "c",
            "through",
            "direct rps",
            "rps",
            "p50 µs",
            "p99 µs",
            "added p50",
            "CPU s / 10,000",
            "peak MiB",
            "held ÷ in flight",
            "requests a call",
            "new connections",
        ],
        rows: rows.collect(),
    }
}

const MIB: f64 = 1024.0 * 1024.0;
/// From this size of an answer on it is told what is held for each byte in flight.
const LARGE: usize = 100_000;

fn kept_table(kept: &[(Candidate, Kept)]) -> Table {
    let rows = kept.iter().map(|(candidate, kept)| {
        let [before, open, after] = kept.rss.map(|rss| decimal(rss / MIB, 1));
        vec![
            format!("{} {}", decimal(float(kept.count), 0), kept.held.name()),
            candidate.name().to_owned(),
            before,
            open,
            after,
            decimal(kept.each / 1024.0, 2),
            decimal(kept.at_server, 0),
        ]
    });
    Table {
        caption: "Clients that do nothing".into(),
        columns: vec!["held open", "by", "MiB before", "open", "closed", "KiB each", "sessions at the server"],
        rows: rows.collect(),
    }
}

/// Ratios that have a bound; `None` where one side was not measured.
fn figures(rows: &[Row], kept: &[(Candidate, Kept)], token: f64) -> Vec<Figure> {
    use Candidate::{Anonymous, Bridged, Gateway, McpProxy, Nginx, Relay};
    let value = |candidate, name: &str, clients, field: fn(&Cell) -> f64| {
        let found =
            rows.iter().find(|row| row.candidate == candidate && row.load.name == name && row.load.clients == clients);
        found.map(|row| middle(&row.cells, field))
    };
    let ratio = |what: &str, (one, other): (Option<f64>, Option<f64>), target| Figure {
        what: what.to_owned(),
        value: one.zip(other).map(|(one, other)| one / other),
        target,
        unit: "×",
    };
    let at = |candidates: (Candidate, Candidate), name: &str, clients, field: fn(&Cell) -> f64| {
        (value(candidates.0, name, clients, field), value(candidates.1, name, clients, field))
    };
    let each = |candidate, held| {
        let all = kept.iter().filter(|(of, kept)| *of == candidate && kept.held == held);
        all.max_by_key(|(_, kept)| kept.count).map(|(_, kept)| kept.each / 1024.0)
    };
    let kib = |what: &str, value, target| Figure { what: what.to_owned(), value, target, unit: "KiB" };
    vec![
        ratio(
            "CPU per call, gateway ÷ hyper relay, echo, c=32",
            at((Gateway, Relay), "echo", 32, |cell| cell.cpu),
            1.6,
        ),
        ratio(
            "CPU per call, gateway that lets everyone in ÷ hyper relay, echo, c=32",
            at((Anonymous, Relay), "echo", 32, |cell| cell.cpu),
            1.3,
        ),
        ratio(
            "CPU per call, gateway and bridge ÷ hyper relay, echo, c=32",
            at((Bridged, Relay), "echo", 32, |cell| cell.cpu),
            2.6,
        ),
        ratio("rps, hyper relay ÷ gateway, echo, c=32", at((Relay, Gateway), "echo", 32, |cell| cell.rps), 1.0 / 0.75),
        ratio("rps, mcp-proxy crate ÷ gateway, echo, c=32", at((McpProxy, Gateway), "echo", 32, |cell| cell.rps), 0.25),
        ratio(
            "added p50, gateway ÷ hyper relay, one core, c=1",
            at((Gateway, Relay), "echo, one core", 1, |cell| cell.added),
            2.0,
        ),
        ratio("p99, gateway ÷ nginx, echo, c=32", at((Gateway, Nginx), "echo", 32, |cell| cell.p99), 1.5),
        ratio(
            "CPU per call, gateway ÷ hyper relay, 1 MiB, c=8",
            at((Gateway, Relay), "1 MiB", 8, |cell| cell.cpu),
            1.3,
        ),
        Figure {
            what: "memory above idle ÷ bytes in flight, gateway, 1 MiB, c=8".into(),
            value: value(Gateway, "1 MiB", 8, |cell| cell.held),
            target: 1.5,
            unit: "×",
        },
        kib("gateway, per idle session", each(Gateway, Held::Sessions), 1.0),
        ratio(
            "memory per idle connection, gateway ÷ hyper relay",
            (each(Gateway, Held::Connections), each(Relay, Held::Connections)),
            0.75,
        ),
        kib("gateway, per standing stream", each(Gateway, Held::Streams), 32.0),
        kib("gateway, per stream of 2026-07-28", each(Gateway, Held::Listens), 32.0),
        Figure { what: "opening a session token".into(), value: Some(token), target: 5.0, unit: "µs" },
    ]
}

fn notes(args: &PeersArgs) -> Vec<String> {
    vec![
        format!(
            "{} rounds in turn, {} s for each load; every answer is checked; medians. *Direct* is the same server without \
             anything in front, a moment before. Clients and server share a core; what is compared has the other, but in \
             *one core* everything shares one.",
            args.rounds,
            decimal(args.seconds, 1)
        ),
        "At c ≥ 8 the core of clients and server is the limit for whatever is fast: read the processor time, not the \
         requests per second."
            .into(),
        "*Gateway* authenticates each request by its key, scans its body, opens its session token and signs the request \
         to the server; the server stands where a pod's bridge would. nginx and the relay pass bytes on."
            .into(),
        "*Requests a call* and *new connections* are counted at the server while the load is measured. *Held ÷ in flight* is \
         the peak above what the idle process had, for each byte of the answers that are under way at once."
            .into(),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds exactly")]
fn float(number: usize) -> f64 {
    number as f64
}
