//! Whatever fails or is changed, under a load that counts every answer: what clients see of it, and what they do not.
//!
//! One test after the other, as each does to the whole cluster what would be a fault in another one. `FAILURE=long` has more of
//! everything, as `make test-failure` runs it.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod api_server;
mod deletions;
mod evictions;
mod gateways;
mod leaders;
mod operations;
mod operators;
mod servers;
mod slow_clients;
mod troubles;

use k8s_openapi::api::core::v1::Pod;
use portolan_tests::changes::GATEWAY_PODS;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::load::Tally;
use portolan_tests::stand::Stand;
use portolan_tests::tidy::finally;
use tokio::sync::Mutex;

/// One amount in the short form of the suite, another in the long one.
fn amount<T>(short: T, long: T) -> T {
    match std::env::var("FAILURE").as_deref() {
        Ok("long") => long,
        Ok(other) => panic!("FAILURE is {other:?}: write long, or leave it out"),
        Err(_) => short,
    }
}

/// Calls a second.
fn rate() -> u32 {
    amount(60, 200)
}

/// Runs a scenario on a gateway and a server of so many replicas, alone on the cluster, and takes both away whatever came of
/// it.
async fn on_a_stand(server: &str, replicas: u32, scenario: impl AsyncFnOnce(&Stand)) {
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let cluster = Cluster::connect().await;
    let body = async {
        let stand = Stand::open(&cluster, server, replicas).await;
        scenario(&stand).await;
    };
    finally(body, Stand::close(&cluster, server)).await;
}

/// Says what the load came to, and that it was one: the rate is what was asked for.
fn report(what: &str, tally: &Tally) {
    println!("{what}: {tally}");
    assert!(tally.rate() > 0.9 * f64::from(rate()), "the load went on all the while: {tally}");
}

/// Where one pod of the gateway serves a server.
fn replica_url(pod: &Pod, server: &str) -> String {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
    format!("http://{address}:8080/{TENANT}/{server}/mcp")
}

/// Pods of the gateway that stay.
async fn replicas(cluster: &Cluster) -> Vec<Pod> {
    cluster.pods(PLATFORM, GATEWAY_PODS).await
}
