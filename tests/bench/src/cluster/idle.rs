//! Suite `idle`: what servers cost that nobody uses: writes of the operator, and memory.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use portolan_crds::conditions::{is_true, types};
use portolan_crds::{MCPServer, labels};
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};

use super::audit::{AuditLog, Writes};
use super::memory::{Process, processes};
use super::{ASK, OWN, PATIENCE, apply, echo_server, kubernetes, sweep};
use crate::machine::Machine;
use crate::report::{Figure, Section, Table, decimal};
use crate::stats::median;

/// How much is measured.
#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    /// Servers
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    servers: u32,
    /// Seconds during which writes are counted
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// The servers count as unchanged when the operator wrote nothing for so long.
const SETTLED: Duration = Duration::from_secs(15);
/// Longest wait for that; writes that never end are what is to be found.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// How the servers' names begin.
const NAME: &str = "bench-idle-";

/// Measures.
pub(crate) async fn run(args: &IdleArgs) -> anyhow::Result<Section> {
    let mut machine = Machine::look().await?;
    let cluster = Cluster::connect().await;
    machine.version(kubernetes(&cluster).await?);
    sweep(&cluster).await?;
    let measured = measure(&cluster, args).await;
    sweep(&cluster).await?;
    let measured = measured?;
    machine.done()?;
    Ok(measured.section(machine, args))
}

struct Measured {
    /// Servers of others in the cluster: what the operator writes for them is counted too.
    strangers: usize,
    all_ready: Duration,
    writes: Option<Writes>,
    gateways: Vec<f64>,
    operators: Vec<f64>,
    bridges: Vec<f64>,
    /// All processes of the bridge in a pod: reaper, bridge and guards.
    bridge_pods: Vec<f64>,
}

async fn measure(cluster: &Cluster, args: &IdleArgs) -> anyhow::Result<Measured> {
    let manifests: Vec<_> = (0..args.servers).map(|number| echo_server(&format!("{NAME}{number}"))).collect();
    let began = Instant::now();
    apply(&manifests).await?;
    ready(cluster, manifests.len()).await?;
    let all_ready = began.elapsed();
    eprintln!("bench: idle, {} servers ready after {} s", args.servers, all_ready.as_secs());
    let writes = count_writes(Duration::from_secs(args.seconds)).await?;
    let (bridges, bridge_pods) = bridges(cluster).await?;
    Ok(Measured {
        strangers: strangers(cluster).await?,
        all_ready,
        writes,
        gateways: largest(cluster, &format!("{}=default", labels::GATEWAY)).await?,
        operators: largest(cluster, "app.kubernetes.io/name=portolan-operator").await?,
        bridges,
        bridge_pods,
    })
}

async fn ready(cluster: &Cluster, wanted: usize) -> anyhow::Result<()> {
    let servers: Api<MCPServer> = cluster.api(TENANT);
    let own = ListParams::default().labels(&format!("{}={}", OWN.0, OWN.1));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = servers.list(&own).await?.items;
        let is_ready = |server: &&MCPServer| {
            server.status.as_ref().is_some_and(|status| is_true(&status.conditions, types::READY))
        };
        let ready = list.iter().filter(is_ready).count();
        if ready == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            let late = list.iter().find(|server| !is_ready(server)).and_then(|server| server.status.as_ref());
            bail!(
                "{ready} of {wanted} servers are ready after {PATIENCE:?}; another says {:?}",
                late.map(|s| &s.conditions)
            );
        }
        tokio::time::sleep(ASK).await;
    }
}

/// What the operator writes once it has settled; `None` where the cluster's audit log cannot be read.
async fn count_writes(period: Duration) -> anyhow::Result<Option<Writes>> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let Some(log) = AuditLog::from_now()? else { return Ok(None) };
        tokio::time::sleep(SETTLED).await;
        if log.writes()?.count() == 0 || Instant::now() > deadline {
            break;
        }
    }
    let Some(log) = AuditLog::from_now()? else { return Ok(None) };
    tokio::time::sleep(period).await;
    let writes = log.writes()?;
    // The operator renews its Lease every few seconds: a log without that counts nothing.
    ensure!(
        writes.leases > 0 || period < SETTLED,
        "the audit log has no renewal of the operator's Lease: it is not its log"
    );
    Ok(Some(writes))
}

async fn strangers(cluster: &Cluster) -> anyhow::Result<usize> {
    let servers: Api<MCPServer> = Api::all(cluster.client.clone());
    let others = ListParams::default().labels(&format!("{}!={}", OWN.0, OWN.1));
    Ok(servers.list(&others).await?.items.len())
}

/// The largest process of each pod of the platform with those labels.
async fn largest(cluster: &Cluster, labels: &str) -> anyhow::Result<Vec<f64>> {
    let pods: Api<Pod> = cluster.api(PLATFORM);
    let mut sizes = Vec::new();
    for pod in pods.list(&ListParams::default().labels(labels)).await?.items {
        // The other process of such a pod is its sandbox's, which is smaller.
        sizes.extend(processes(&pod)?.iter().map(|process| process.rss).max_by(f64::total_cmp));
    }
    Ok(sizes)
}

/// Of each pod of the bench's servers: the bridge, and everything that belongs to it.
async fn bridges(cluster: &Cluster) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let pods: Api<Pod> = cluster.api(TENANT);
    let (mut bridges, mut all) = (Vec::new(), Vec::new());
    for pod in pods.list(&ListParams::default().labels(labels::SERVER)).await?.items {
        if !pod.labels().get(labels::SERVER).is_some_and(|server| server.starts_with(NAME)) {
            continue;
        }
        let own: Vec<Process> = processes(&pod)?.into_iter().filter(is_bridge).collect();
        bridges.extend(own.iter().filter(|process| serves(process)).map(|process| process.rss));
        if !own.is_empty() {
            all.push(own.iter().map(|process| process.pss).sum());
        }
    }
    Ok((bridges, all))
}

fn is_bridge(process: &Process) -> bool {
    let word = |index: usize| process.command.get(index).map(String::as_str);
    word(0).is_some_and(|program| program.ends_with("portolan-bridge")) || word(1) == Some("guard")
}

/// Whether it is the bridge itself, not its reaper or a guard.
fn serves(process: &Process) -> bool {
    process.command.iter().any(|word| word == "--below-reaper")
}

fn most(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

impl Measured {
    fn section(self, machine: Machine, args: &IdleArgs) -> Section {
        let memory = |what: &str, values: &[f64], target: f64| Figure {
            what: what.to_owned(),
            value: most(values),
            target,
            unit: "MiB",
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of writes within a minute")]
        let writes = self.writes.as_ref().map(|writes| writes.count() as f64);
        let servers = args.servers;
        let figures = vec![
            Figure {
                what: format!("operator's writes in {} s, {servers} unchanged servers, Lease aside", args.seconds),
                value: writes,
                target: 0.0,
                unit: "writes",
            },
            memory(&format!("gateway RSS, {servers} idle servers, largest replica"), &self.gateways, 30.0),
            memory(&format!("operator RSS, {servers} servers"), &self.operators, 50.0),
            memory("bridge RSS with one probe session, largest", &self.bridges, 8.0),
        ];
        let notes = self.notes(args);
        let mut tables = vec![self.memory()];
        tables.extend(self.writes.filter(|writes| writes.count() > 0).map(|writes| writes_table(&writes)));
        Section { id: "idle", machine, figures, tables, notes }
    }

    fn memory(&self) -> Table {
        let row = |what: &str, values: &[f64]| {
            let mib = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| decimal(value, 1));
            vec![what.to_owned(), values.len().to_string(), mib(median(values)), mib(most(values))]
        };
        Table {
            caption: "Memory, MiB".to_owned(),
            columns: vec!["process", "how many", "p50", "largest"],
            rows: vec![
                row("gateway, RSS", &self.gateways),
                row("operator, RSS", &self.operators),
                row("bridge, RSS", &self.bridges),
                row("bridge with reaper and guards, PSS of a pod", &self.bridge_pods),
            ],
        }
    }

    fn notes(&self, args: &IdleArgs) -> Vec<String> {
        let mut notes = vec![format!(
            "All {} servers, applied at once, were Ready after {} s.",
            args.servers,
            decimal(self.all_ready.as_secs_f64(), 0)
        )];
        notes.push(match &self.writes {
            Some(writes) => format!(
                "Counted in the API server's audit log, which has {} renewals of the operator's Lease in that time.",
                writes.leases
            ),
            None => "Writes are not counted: PORTOLAN_AUDIT_LOG names no log of this cluster.".to_owned(),
        });
        if self.strangers > 0 {
            notes.push(format!(
                "**{} servers that are not the bench's were in the cluster**: what the operator wrote for them is counted.",
                self.strangers
            ));
        }
        if self.gateways.is_empty() {
            notes.push("Memory is not measured: the cluster's processes are not on this machine.".to_owned());
        }
        notes
    }
}

fn writes_table(writes: &Writes) -> Table {
    let mut rows: Vec<(&String, &u64)> = writes.others.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    Table {
        caption: "What the operator wrote, most often first".to_owned(),
        columns: vec!["write", "times"],
        rows: rows.into_iter().take(20).map(|(what, count)| vec![what.clone(), count.to_string()]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &[&str]) -> Process {
        Process { command: command.iter().map(|word| (*word).to_owned()).collect(), rss: 1.0, pss: 1.0 }
    }

    #[test]
    fn the_bridge_is_told_from_its_reaper_its_guards_and_the_server() {
        let bridge = process(&["portolan-bridge", "stdio", "--below-reaper", "--", "/portolan-echo"]);
        let reaper = process(&["/portolan/bin/portolan-bridge", "stdio", "--", "/portolan-echo"]);
        let guard = process(&["/proc/self/exe", "guard", "2000", "/portolan-echo", "stdio"]);
        let server = process(&["/portolan-echo", "stdio"]);
        let all = [&bridge, &reaper, &guard, &server];
        assert_eq!(all.map(is_bridge), [true, true, true, false]);
        assert_eq!(all.map(serves), [true, false, false, false]);
    }
}
