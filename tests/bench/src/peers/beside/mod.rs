//! Suite `beside`: what a caller of one server notices of the trouble of others.

mod trouble;

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;

use super::candidates::{Candidate, Stand};
use super::grid::middle;
use super::load::{self, Client, Seen, Target, Work};
use super::{MIB, SPLIT, alone, process};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use trouble::Trouble;

/// Between what goes on and what is measured, and after its end.
const SETTLE: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct BesideArgs {
    /// Rounds; in each, calls are measured without the trouble and beside it
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each is measured, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Clients that call all the time
    #[arg(long, default_value_t = 8)]
    clients: usize,
}

/// One round.
struct Round {
    without: Pair,
    beside: Pair,
}

/// The same calls twice, one after the other.
struct Pair {
    through: Seen,
    /// To the server itself: of what is made on the core of clients and server, it shows as much.
    direct: Seen,
}

/// What was seen of one trouble.
struct Noticed {
    trouble: Trouble,
    rounds: Vec<Round>,
    /// The most that the gateway had, bytes.
    peak: f64,
}

/// Measures, one trouble after the other.
pub(crate) async fn run(args: &BesideArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let mut all = Vec::new();
    for trouble in Trouble::ALL {
        process::pin(SPLIT.harness)?;
        let noticed = beside(trouble, args).await.map_err(|error| error.context(trouble.name()))?;
        eprintln!("bench: beside {}", trouble.name());
        all.push(noticed);
    }
    machine.done()?;
    Ok(Section {
        id: "beside",
        machine,
        figures: all.iter().filter(|noticed| noticed.trouble != Trouble::Nothing).map(Noticed::figure).collect(),
        tables: vec![table(&all)],
        notes: notes(args),
    })
}

async fn beside(trouble: Trouble, args: &BesideArgs) -> anyhow::Result<Noticed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    // Who reads slowly needs a server that answers: the one that everyone else has.
    let beside = (trouble != Trouble::Unread).then_some(address);
    let server = tokio::spawn(trouble.serve(listener));
    let stand = Stand::start(Candidate::Gateway, SPLIT, 2, beside).await?;
    let noticed = rounds(&stand, trouble, args).await;
    stand.end().await?;
    server.abort();
    noticed
}

async fn rounds(stand: &Stand, trouble: Trouble, args: &BesideArgs) -> anyhow::Result<Noticed> {
    let troubled = Target { path: alone::SECOND_PATH, ..stand.through.clone() };
    let mut callers = Callers {
        through: load::clients(&stand.through, Work::ECHO, args.clients).await?,
        direct: load::clients(&stand.direct, Work::ECHO, args.clients).await?,
        lasting: Duration::from_secs_f64(args.seconds),
    };
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let without = callers.call().await?;
        let mut going = trouble.begin(stand, &troubled).await?;
        let beside = callers.call().await?;
        going.check()?;
        drop(going);
        rounds.push(Round { without, beside });
    }
    Ok(Noticed { trouble, rounds, peak: stand.usage()?.peak })
}

/// Those whose calls are measured.
struct Callers {
    through: Vec<Client>,
    direct: Vec<Client>,
    lasting: Duration,
}

impl Callers {
    async fn call(&mut self) -> anyhow::Result<Pair> {
        load::call(&mut self.through, Work::ECHO, SETTLE).await?;
        let through = load::call(&mut self.through, Work::ECHO, self.lasting).await?;
        let direct = load::call(&mut self.direct, Work::ECHO, self.lasting).await?;
        Ok(Pair { through, direct })
    }
}

impl Round {
    /// The p99 beside the trouble ÷ that without, of the calls that `of` chooses.
    fn p99_ratio(&self, of: fn(&Pair) -> &Seen) -> f64 {
        of(&self.beside).at(0.99) / of(&self.without).at(0.99)
    }
}

impl Noticed {
    fn p99_ratio(&self) -> f64 {
        middle(&self.rounds, |round| round.p99_ratio(|pair| &pair.through))
    }

    fn figure(&self) -> Figure {
        let what = format!("p99 beside {} ÷ without", self.trouble.name());
        Figure { what, value: Some(self.p99_ratio()), target: 1.05, unit: "×" }
    }
}

fn table(all: &[Noticed]) -> Table {
    let rows = all.iter().map(|noticed| {
        let at = |field: fn(&Round) -> f64, places| decimal(middle(&noticed.rounds, field), places);
        vec![
            noticed.trouble.name(),
            at(|round| round.without.through.rps(), 0),
            at(|round| round.beside.through.rps(), 0),
            at(|round| round.without.through.at(0.5), 0),
            at(|round| round.beside.through.at(0.5), 0),
            at(|round| round.without.through.at(0.99), 0),
            at(|round| round.beside.through.at(0.99), 0),
            decimal(noticed.p99_ratio(), 2),
            at(|round| round.without.direct.at(0.99), 0),
            at(|round| round.beside.direct.at(0.99), 0),
            at(|round| round.p99_ratio(|pair| &pair.direct), 2),
            decimal(noticed.peak / MIB, 1),
        ]
    });
    Table {
        caption: "Calls of one server, without and beside".into(),
        columns: vec![
            "beside",
            "rps",
            "beside",
            "p50 µs",
            "beside",
            "p99 µs",
            "beside",
            "p99 ratio",
            "direct p99 µs",
            "beside",
            "direct ratio",
            "peak MiB",
        ],
        rows: rows.collect(),
    }
}

fn notes(args: &BesideArgs) -> Vec<String> {
    vec![
        format!(
            "{} clients with a session each call `echo` of one server as fast as they are answered, through a gateway on a core of \
             its own, {} times {} s without the trouble and as long beside it, in turn; every answer is checked. Medians of the \
             rounds; the ratio is the median of the rounds' ratios.",
            args.clients,
            args.rounds,
            decimal(args.seconds, 1)
        ),
        "*Nothing* is the same without any trouble: how far two looks at the same thing differ on this machine.".into(),
        "Those who make trouble share the core of the clients and the server that are measured, so what they need to make it \
         is in what is seen. *Direct* shows how much that is: the same calls to the server itself, with the trouble at the \
         gateway all the same."
            .into(),
    ]
}
