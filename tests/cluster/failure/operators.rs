//! An operator that ends again and again, in the middle of what it does.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use nix::sys::signal::Signal;
use portolan_crds::MCPServer;
use portolan_tests::children::{count, versions};
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT};
use portolan_tests::node::Process;
use portolan_tests::operator::{led, looks_again};
use portolan_tests::pods::settled;
use portolan_tests::stand::manifest;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::{amount, on_a_stand, rate, report};

/// The server that is edited meanwhile.
const EDITED: &str = "edited-meanwhile";
/// From one kill to the next.
const PACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_operator_that_is_killed_every_five_seconds_while_specs_are_edited_is_not_noticed_by_any_call() {
    on_a_stand("without-operator", 2, async |stand| {
        let cluster = &stand.cluster;
        deleting(cluster, &[EDITED], async {
            cluster.serve(&manifest(EDITED, 1)).await;
            let load = stand.load(rate()).await;
            let kills = amount(6, 24);
            let mut clock = interval(PACE);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for kill in 0..kills {
                clock.tick().await;
                edit(cluster, &stand.server, kill).await;
                end(cluster, kill).await;
            }
            settled(cluster, PLATFORM, OPERATOR, 1, PATIENCE).await;
            led(cluster).await;
            for name in [EDITED, &stand.server] {
                is_as_declared(cluster, name).await;
            }
            changes_nothing_at_rest(cluster, &[EDITED, &stand.server]).await;
            let tally = load.stop().await;
            report(&format!("the operator killed {kills} times, specs edited meanwhile"), &tally);
            tally.assert_nothing_failed();
        })
        .await;
    })
    .await;
}

/// Edits both servers, so that what is killed is in the middle of it: the one under load so that its pods stay, the other so
/// that they are replaced.
async fn edit(cluster: &Cluster, loaded: &str, kill: usize) {
    let variable = json!({"name": "KILL", "value": kill.to_string()});
    let spec = json!({"container": {"env": [variable]}, "rollout": {"drainTimeout": "1s"}});
    cluster.patch_spec(TENANT, EDITED, &spec).await;
    cluster.patch_spec(TENANT, loaded, &json!({"replicas": 2 + kill % 2})).await;
}

/// Ends the operator without a warning: its pod, or the process in it, which is started again with the same name.
async fn end(cluster: &Cluster, kill: usize) {
    let Some(pod) = cluster.pods(PLATFORM, OPERATOR).await.pop() else { return };
    match Process::find(&pod, "operator") {
        Some(process) if kill % 2 == 1 => process.signal(Signal::SIGKILL),
        _ => {
            let name = pod.metadata.name.unwrap_or_default();
            let at_once = DeleteParams::default().grace_period(0);
            cluster.api::<Pod>(PLATFORM).delete(&name, &at_once).await.expect("deleted");
        }
    }
}

/// Waits until a server is Ready with one of everything, whoever began to make it.
async fn is_as_declared(cluster: &Cluster, name: &str) {
    cluster.ready(TENANT, name).await;
    until(&format!("{name} has one of everything"), 2 * PATIENCE, || async {
        let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
        let children = versions(&[name]).await?;
        let ones = ["Deployment", "Service", "ConfigMap", "Secret", "NetworkPolicy", "ServiceAccount"];
        let each_once = ones.iter().all(|kind| count(&children, kind) == 1);
        if each_once && usize::try_from(server.spec.replicas) == Ok(count(&children, "Pod")) {
            Ok(())
        } else {
            Err(format!("{} replicas: {:?}", server.spec.replicas, children.keys()))
        }
    })
    .await;
}

/// One that begins anew finds everything as it is to be, and writes nothing.
async fn changes_nothing_at_rest(cluster: &Cluster, names: &[&str]) {
    let rest = until("nothing is written any more", PATIENCE, || async {
        let before = versions(names).await?;
        looks_again(cluster, 2).await;
        let after = versions(names).await?;
        if before == after { Ok(after) } else { Err(format!("{before:?} became {after:?}")) }
    })
    .await;
    let first = led(cluster).await;
    end(cluster, 0).await;
    until("another one leads", PATIENCE, || async {
        let now = led(cluster).await;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    settled(cluster, PLATFORM, OPERATOR, 1, PATIENCE).await;
    looks_again(cluster, 2 * names.len() as u64).await;
    assert_eq!(versions(names).await.expect("listed"), rest, "every child has the version that it had");
}
