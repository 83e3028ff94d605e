//! Children that a hand deletes behind the operator's back.

use std::time::Duration;

use portolan_tests::changes::pods_of;
use portolan_tests::children::versions;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::pods::settled;
use portolan_tests::wait::{PATIENCE, until};

use crate::{on_a_stand, rate, report};

/// A Secret is read by name every half a minute; everything else is watched.
const BACK: Duration = Duration::from_secs(45);

#[tokio::test]
async fn every_child_that_is_deleted_behind_the_operators_back_comes_back_under_load() {
    on_a_stand("stripped", 2, async |stand| {
        let (cluster, name) = (&stand.cluster, stand.server.as_str());
        let load = stand.load(rate()).await;
        // What no call goes through: nobody notices.
        for kind in ["NetworkPolicy", "ServiceAccount", "ConfigMap", "ControllerRevision", "Secret"] {
            comes_back(cluster, name, kind).await;
        }
        let tally = load.stop().await;
        report("policy, account, tools, template and key deleted", &tally);
        tally.assert_nothing_failed();

        // Without its Service nobody finds a server's pods, and without its Deployment they go: it is served again.
        let load = stand.load(rate()).await;
        for kind in ["Service", "Deployment"] {
            comes_back(cluster, name, kind).await;
            cluster.ready(TENANT, name).await;
        }
        let torn = load.stop().await;
        report("Service and Deployment deleted", &torn);
        settled(cluster, TENANT, &pods_of(name), 2, 2 * PATIENCE).await;
        let load = stand.load(rate()).await;
        until("calls are made again", PATIENCE, || async {
            let made = load.so_far().made();
            if made > u64::from(10 * rate()) { Ok(()) } else { Err(format!("{made}")) }
        })
        .await;
        let tally = load.stop().await;
        report("afterwards", &tally);
        tally.assert_nothing_failed();
    })
    .await;
}

/// Deletes the one child of a kind, and waits until there is another one of its name.
async fn comes_back(cluster: &Cluster, server: &str, kind: &str) {
    let child = async || {
        let children = versions(&[server]).await?;
        let mut of_kind = children.into_iter().filter(|(child, _)| child.split('/').next() == Some(kind));
        let child = of_kind.next().ok_or_else(|| format!("there is no {kind}"))?;
        let output = ["--output", "jsonpath={.metadata.uid}"];
        let uid = kubectl(&[&["get", &child.0, "--namespace", TENANT][..], &output].concat()).await?;
        Ok::<_, String>((child.0, uid))
    };
    let (name, before) = child().await.expect("it is there");
    kubectl(&["delete", &name, "--namespace", TENANT, "--wait=false"]).await.expect("a hand deletes");
    until(&format!("{name} is back"), BACK, || async {
        match child().await? {
            (_, uid) if uid != before => Ok(()),
            (name, _) => Err(format!("{name} is the one that was deleted")),
        }
    })
    .await;
    cluster.ready(TENANT, server).await;
}
