//! Suite `changes`: what calls and sessions notice of changes that are made every day.

use clap::Args;
use futures::future::{BoxFuture, FutureExt};
use portolan_tests::cluster::Cluster;
use portolan_tests::load::Tally;
use portolan_tests::stand::{SESSIONS, Stand};
use portolan_tests::tidy::finally;

use super::kubernetes;
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct ChangesArgs {
    /// Calls a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Times that each change is made
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    times: u32,
}

/// The server.
const NAME: &str = "bench-changes";
/// Its pods, but while it is scaled.
const REPLICAS: usize = 2;

/// Something that is changed.
struct Change {
    what: &'static str,
    make: for<'a> fn(&'a Stand, &'a str) -> BoxFuture<'a, ()>,
}

const CHANGES: [Change; 8] = [
    Change { what: "an edit that replaces the server's pods", make: |stand, value| stand.edit(value).boxed() },
    Change {
        what: "a new revision that has a share of new sessions is promoted",
        make: |stand, value| stand.promote(value).boxed(),
    },
    Change { what: "one that has a share is taken back", make: |stand, value| stand.roll_back(value).boxed() },
    Change { what: "the gateway's pods are replaced", make: |stand, _| stand.restart_gateway().boxed() },
    Change { what: "the operator is replaced", make: |stand, _| stand.restart_operator().boxed() },
    Change { what: "the server is scaled 1 → 5 → 1", make: |stand, _| scaled(stand).boxed() },
    Change { what: "a pod of the server is evicted", make: |stand, _| stand.evict_a_server_pod().boxed() },
    Change { what: "a pod of the gateway is evicted", make: |stand, _| stand.evict_a_gateway_pod().boxed() },
];

/// From one pod to five and back, beginning and ending with [`REPLICAS`].
async fn scaled(stand: &Stand) {
    for replicas in [1, 5, 1, REPLICAS] {
        stand.scale(replicas).await;
    }
}

/// Measures.
pub(crate) async fn run(args: &ChangesArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    let measured = async {
        let stand = Stand::open(&cluster, NAME, REPLICAS.try_into().unwrap_or_default()).await;
        let mut seen = Vec::new();
        for change in &CHANGES {
            seen.push((change.what, measure(&stand, change, args).await));
        }
        seen
    };
    let seen = finally(measured, Stand::close(&cluster, NAME)).await;
    machine.done()?;
    let figures = seen.iter().flat_map(|(what, tally)| figures(what, tally)).collect();
    let rows = seen.iter().map(|(what, tally)| row(what, tally)).collect();
    let columns = vec!["change", "calls", "in seconds", "failed", "sessions begun", "lost", "slowest call, s"];
    let table = Table { caption: "Under load".into(), columns, rows };
    let notes = vec![format!(
        "{} calls a second, half of them in {SESSIONS} sessions that are alive at every moment and live for twenty seconds each, half \
         without one; {REPLICAS} gateway replicas, {REPLICAS} pods of the server unless scaled. A change is over when nothing of \
         what was before is left: pods that go keep their sessions until these end. A call fails that is not answered as it was \
         asked within 10 s; a session is lost that is over although its client has not ended it.",
        args.rate
    )];
    Ok(Section { id: "changes", machine, figures, tables: vec![table], notes })
}

/// Makes a change as often as is asked for, under load from before its beginning until after its end.
async fn measure(stand: &Stand, change: &Change, args: &ChangesArgs) -> Tally {
    let load = stand.load(args.rate).await;
    for time in 0..args.times {
        (change.make)(stand, &format!("{} {time}", change.what)).await;
    }
    let tally = load.stop().await;
    eprintln!("bench: changes, {}: {tally}", change.what);
    tally
}

fn figures(what: &str, tally: &Tally) -> [Figure; 2] {
    let figure = |count: u64, of: &str, unit| Figure {
        what: format!("{what}: {of}"),
        value: Some(count as f64),
        target: 0.0,
        unit,
    };
    [figure(tally.failed(), "failed calls", "calls"), figure(tally.lost, "lost sessions", "sessions")]
}

fn row(what: &str, tally: &Tally) -> Vec<String> {
    let count = |count: u64| decimal(count as f64, 0);
    vec![
        what.to_owned(),
        count(tally.made()),
        decimal((tally.until - tally.began).as_secs_f64(), 0),
        count(tally.failed()),
        count(tally.opened),
        count(tally.lost),
        decimal(tally.longest.as_secs_f64(), 2),
    ]
}
