//! Suite `probes`: what it costs the operator to hear what the probes of a thousand bridges find.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use futures::stream::{self, Stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_mcp::mac::KEY_LEN;
use portolan_mcp::revision::Era;
use portolan_mcp::wire::{self, ProbeReason, ProbeState, ProbeStatus, ServerFound, ToolsFound};
use portolan_operator::bridge_client::Address;
use portolan_operator::metrics::Metrics;
use portolan_operator::probes::Probes;
use portolan_operator::requeue::{Key, Requeue};
use portolan_tests::process;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::children;
use crate::machine::Machine;
use crate::peers::process::Usage;
use crate::report::{Figure, Section, Table, decimal};

const SUITE: &str = "probes";
/// It guards nothing here.
const KEY: [u8; KEY_LEN] = [0x42; KEY_LEN];
/// Every so many lines a verdict is another one: once a minute.
const LINES_A_VERDICT: usize = 12;
/// Longest time until all ports are read.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct ProbesArgs {
    /// Admin ports that are read
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=5000))]
    ports: u16,
    /// For how long, in seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
}

/// What reads them.
#[derive(Args, Debug)]
pub(crate) struct ReadProbesArgs {
    /// Admin ports that are read
    ports: u16,
}

/// What the ports have seen.
#[derive(Debug, Default)]
struct Seen {
    readers: AtomicUsize,
    verdicts: AtomicUsize,
}

/// Measures: the ports are of this process, what reads them is one of its own.
pub(crate) async fn run(args: &ProbesArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    // A listener and a connection for each port.
    ensure!(process::may_open() > 2 * usize::from(args.ports) + 100, "too few descriptors may be open: see ulimit -n");
    let seen = Arc::<Seen>::default();
    let mut ports = Vec::new();
    for number in 0..args.ports {
        let socket = TcpListener::bind((ip(number), wire::ADMIN_PORT)).await;
        let socket = socket.with_context(|| format!("no port {} at {}", wire::ADMIN_PORT, ip(number)))?;
        ports.push(AbortOnDropHandle::new(tokio::spawn(speak(socket, number.into(), seen.clone()))));
    }
    let this = std::env::current_exe()?;
    let reader = children::start(Command::new(this).arg("read-probes").arg(args.ports.to_string()), SUITE)?;
    let pid = reader.id().context("the reader ended at once")?;
    let all_read = async {
        while seen.readers.load(Ordering::Relaxed) < usize::from(args.ports) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, all_read)
        .await
        .with_context(|| format!("not all ports are read; see {}", children::log(SUITE)))?;
    // What it takes to connect to all of them at once is not what is measured.
    sleep(wire::HEARTBEAT).await;
    let (before, verdicts, began) = (Usage::of(&[pid])?, seen.verdicts.load(Ordering::Relaxed), Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, lasted) = (Usage::of(&[pid])?, began.elapsed().as_secs_f64());
    let verdicts = seen.verdicts.load(Ordering::Relaxed) - verdicts;
    ensure!(seen.readers.load(Ordering::Relaxed) == usize::from(args.ports), "a stream broke and was opened anew");
    children::end(reader, SUITE).await?;
    machine.done()?;
    let cpu = after.cpu - before.cpu;
    Ok(Section {
        id: SUITE,
        machine,
        figures: vec![Figure {
            what: format!("reading the probes of {} admin ports, share of a core", args.ports),
            value: Some(cpu / lasted * 100.0),
            target: 5.0,
            unit: "%",
        }],
        tables: vec![Table {
            caption: String::new(),
            columns: vec!["ports", "seconds", "lines", "of them verdicts that changed", "processor seconds", "resident MiB"],
            rows: vec![vec![
                args.ports.to_string(),
                decimal(lasted, 0),
                decimal(f64::from(args.ports) * lasted / wire::HEARTBEAT.as_secs_f64(), 0),
                verdicts.to_string(),
                decimal(cpu, 2),
                decimal(after.rss / 1024.0 / 1024.0, 1),
            ]],
        }],
        notes: vec![
            "The reader is the operator's own (`portolan_operator::probes`) in a process of its own, one server a port; for \
             each verdict that changed it asks for what is known of that server, as a reconcile does. The ports answer as a \
             bridge does: a line every five seconds, and once a minute another verdict."
                .to_owned(),
        ],
    })
}

/// Reads them until SIGTERM.
///
/// # Errors
/// It cannot begin.
pub(crate) fn read(args: &ReadProbesArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let woken = Requeue::default();
        let probes = Probes::new(woken.clone(), Metrics::new()?);
        for number in 0..args.ports {
            probes.of(&server(number), &[pod(number)], KEY).await;
        }
        let mut woken = std::pin::pin!(woken.stream(SUITE));
        while let Some((_, name)) = woken.next().await {
            let number = name.parse().context("a server of ours")?;
            probes.of(&server(number), &[pod(number)], KEY).await;
        }
        Ok(())
    })
}

fn ip(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 88, high, low).into()
}

fn server(number: u16) -> Key {
    (SUITE.to_owned(), number.to_string())
}

fn pod(number: u16) -> Address {
    Address { uid: format!("uid-{number}"), ip: ip(number) }
}

/// Answers as a bridge's admin port does.
async fn speak(socket: TcpListener, number: usize, seen: Arc<Seen>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        let seen = seen.clone();
        connections.spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                seen.readers.fetch_add(1, Ordering::Relaxed);
                let body = StreamBody::new(lines(number, seen.clone()));
                std::future::ready(Ok::<_, Infallible>(Response::new(body)))
            });
            // A reader that goes away is counted by whoever comes instead.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A verdict, then heartbeats and other verdicts; not all ports change theirs at the same time.
fn lines(number: usize, seen: Arc<Seen>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(0, move |said: usize| {
        let seen = seen.clone();
        async move {
            if said > 0 {
                sleep(wire::HEARTBEAT).await;
            }
            let changes = (said + number).is_multiple_of(LINES_A_VERDICT);
            let mut line = Vec::new();
            if said == 0 || changes {
                let is_well = ((said + number) / LINES_A_VERDICT).is_multiple_of(2);
                line = serde_json::to_vec(&verdict(is_well)).unwrap_or_default();
                seen.verdicts.fetch_add(1, Ordering::Relaxed);
            }
            line.push(b'\n');
            Some((Ok(Frame::data(line.into())), said + 1))
        }
    })
}

fn verdict(is_well: bool) -> ProbeStatus {
    let server = ServerFound {
        name: "everything".into(),
        version: "2.0.0".into(),
        protocol_version: "2025-11-25".into(),
        era: Era::Legacy,
        supported_versions: vec!["2025-11-25".into(), "2025-06-18".into(), "2025-03-26".into()],
        capabilities: vec!["tools".into(), "resources".into(), "prompts".into(), "logging".into()],
    };
    let hash = format!("sha256:{}", "0123456789abcdef".repeat(4));
    ProbeStatus {
        state: if is_well { ProbeState::Ready } else { ProbeState::Failing },
        reason: (!is_well).then_some(ProbeReason::ProbeTimeout),
        message: if is_well { String::new() } else { "tools/list was not answered within 3000 ms".into() },
        server: Some(server),
        tools: Some(ToolsFound { count: 12, hash, definitions: None }),
    }
}
