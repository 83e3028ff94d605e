//! Another release under calls: servers roll a few at a time, and one that does not work stops at those.
//!
//! One test after the other, as each has its own release of the whole platform. Upgrades from the release before, whole and part by
//! part, are in the suite `upgrade_versions`, which needs that one built.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod broken;
mod crew;
mod pace;
mod rolls;

use portolan_tests::cluster::Cluster;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::{helm, operator};
use tokio::sync::Mutex;

use crew::{Crew, NAMES};

/// Runs a scenario with a crew, alone on the cluster, and afterwards goes back to the release that there was, whatever came of it.
async fn with_a_crew(scenario: impl AsyncFnOnce(&Crew, u64)) {
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let cluster = Cluster::connect().await;
    let number = helm::number().await;
    let body = deleting(&cluster, &NAMES, async {
        let crew = Crew::open(&cluster).await;
        let back = async {
            if helm::number().await != number {
                helm::go_back(number).await;
            }
        };
        finally(scenario(&crew, number), back).await;
        crew.stop().await;
    });
    body.await;
}

/// How many servers roll for another release, and how many wait for their turn.
async fn turns(cluster: &Cluster) -> Result<[u64; 2], String> {
    let sample = |state| format!(r#"portolan_operator_release_rollouts{{state="{state}"}}"#);
    let [under_way, waiting] = ["under_way", "waiting"].map(sample);
    Ok([operator::counted(cluster, &under_way).await?, operator::counted(cluster, &waiting).await?])
}
