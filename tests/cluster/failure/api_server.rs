//! The API server away, while a gateway begins anew.

use std::time::Duration;

use nix::sys::signal::Signal;
use portolan_tests::changes::GATEWAY_PODS;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::node::Process;
use portolan_tests::operator::led;
use portolan_tests::pods::settled;
use portolan_tests::stand::Stand;
use portolan_tests::wait::{PATIENCE, until};
use tokio::time::{Instant, sleep_until};

use crate::{amount, on_a_stand, rate, replica_url, replicas, report};

#[tokio::test]
async fn without_the_api_server_a_gateway_serves_on_and_one_that_starts_meanwhile_serves_the_last_good_configuration() {
    on_a_stand("without-api", 2, async |stand| {
        let load = stand.load(rate()).await;
        let pod = replicas(&stand.cluster).await.remove(0);
        let (url, key) = (replica_url(&pod, &stand.server), Stand::key());
        let before = Process::of(&pod, "gateway");
        let api = Process::component("kube-apiserver").pause();
        let back = Instant::now() + amount(Duration::from_secs(20), Duration::from_secs(600));
        // It ends its calls first, and the kubelet starts its container again: nobody tells the Service of either.
        before.signal(Signal::SIGTERM);
        until("the replica has another process", PATIENCE, || async {
            match Process::find(&pod, "gateway") {
                Some(now) if now != before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        until("it serves what the one before had sealed", PATIENCE, || async {
            let session = Session::open(&url, Some(&key)).await?;
            session.delete().await.map(|_| ())
        })
        .await;
        println!("a replica that started without the API server serves");
        sleep_until(back).await;
        let meanwhile = load.so_far();
        println!("the API server away: {meanwhile}");
        drop(api);
        is_back(&stand.cluster).await;
        stand.cluster.ready(TENANT, &stand.server).await;
        settled(&stand.cluster, PLATFORM, GATEWAY_PODS, 2, PATIENCE).await;
        let tally = load.stop().await;
        report("the API server away and back", &tally);
        tally.assert_nothing_failed();
    })
    .await;
}

/// Waits until the API server answers, and the operator, which gives up where it cannot renew its lease, leads again.
async fn is_back(cluster: &Cluster) {
    until("the API server answers", PATIENCE, || kubectl(&["get", "--raw", "/readyz"])).await;
    led(cluster).await;
    settled(cluster, PLATFORM, OPERATOR, 1, PATIENCE).await;
}
