//! Suite `soak`: memory under load that does not end.

use std::time::{Duration, Instant};

use clap::Args;

use super::candidates::{Candidate, Stand};
use super::load::{self, Work};
use super::{MIB, SPLIT, process};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};

/// Its memory is looked at after each.
const STEP: Duration = Duration::from_secs(10);

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// How long each is under load, in seconds; the first tenth is not compared
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(100..))]
    seconds: u64,
    /// Clients that call all the time
    #[arg(long, default_value_t = 32)]
    clients: usize,
}

/// What was seen of one candidate.
struct Soaked {
    candidate: Candidate,
    calls: f64,
    /// Bytes, after each step.
    memory: Vec<f64>,
}

/// Measures, one after the other.
pub(crate) async fn run(args: &SoakArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let mut all = Vec::new();
    for candidate in [Candidate::Gateway, Candidate::Bridged] {
        process::pin(SPLIT.harness)?;
        let stand = Stand::start(candidate, SPLIT, 1, None).await?;
        let soaked = soak(&stand, candidate, args).await;
        stand.end().await?;
        all.push(soaked?);
    }
    machine.done()?;
    Ok(Section {
        id: "soak",
        machine,
        figures: all.iter().map(Soaked::figure).collect(),
        tables: vec![table(&all)],
        notes: vec![format!(
            "{} clients with a session each call `echo` for {} s without a pause; every answer is checked. Memory is resident, \
             after each {} s; compared is what comes after the first tenth.",
            args.clients,
            args.seconds,
            STEP.as_secs()
        )],
    })
}

async fn soak(stand: &Stand, candidate: Candidate, args: &SoakArgs) -> anyhow::Result<Soaked> {
    let mut clients = load::clients(&stand.through, Work::ECHO, args.clients).await?;
    let (began, lasting) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut soaked = Soaked { candidate, calls: 0.0, memory: Vec::new() };
    while began.elapsed() < lasting {
        soaked.calls += load::call(&mut clients, Work::ECHO, STEP).await?.calls();
        soaked.memory.push(stand.usage()?.rss);
        if soaked.memory.len().is_multiple_of(6) {
            eprintln!("bench: soak, {} s: {}", began.elapsed().as_secs(), candidate.name());
        }
    }
    Ok(soaked)
}

impl Soaked {
    /// After the first tenth.
    fn settled(&self) -> &[f64] {
        &self.memory[self.memory.len().div_ceil(10)..]
    }

    fn figure(&self) -> Figure {
        let settled = self.settled();
        let growth = settled.first().zip(settled.last()).map(|(first, last)| last / first);
        let what = format!("memory at the end ÷ after the first tenth, {}", self.candidate.name());
        Figure { what, value: growth, target: 1.05, unit: "×" }
    }
}

fn table(all: &[Soaked]) -> Table {
    let rows = all.iter().map(|soaked| {
        let settled = soaked.settled();
        let mib = |bytes: Option<f64>| bytes.map_or_else(|| "–".to_owned(), |bytes| decimal(bytes / MIB, 1));
        let (least, most) = (settled.iter().copied().reduce(f64::min), settled.iter().copied().reduce(f64::max));
        vec![
            soaked.candidate.name().to_owned(),
            decimal(soaked.calls, 0),
            mib(settled.first().copied()),
            mib(least),
            mib(most),
            mib(settled.last().copied()),
        ]
    });
    Table {
        caption: "Memory under load".into(),
        columns: vec!["through", "calls", "MiB after the first tenth", "least", "most", "at the end"],
        rows: rows.collect(),
    }
}
