//! Servers whose specs have what only this release knows, at the time of writing: fields that another prunes, a number that it does
//! not let in, and a word that it cannot read.

use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::demo;
use serde_json::{Value, json};

const NAMES: [&str; 2] = ["versions-by-cpu", "versions-asleep"];

fn manifest(name: &str) -> Value {
    let mut manifest = demo::stdio(TENANT, name);
    manifest["spec"]["autoscaling"] = if name == "versions-by-cpu" {
        manifest["spec"]["container"]["resources"] = json!({"requests": {"cpu": "50m", "memory": "32Mi"}});
        json!({"maxReplicas": 2, "metrics": [{"type": "CPU", "target": 80}]})
    } else {
        json!({"minReplicas": 0, "maxReplicas": 2, "metrics": [{"type": "InFlight", "target": 10}],
            "scaleToZeroAfter": "10s", "activationTimeout": "1m"})
    };
    manifest
}

/// Makes them, and waits until they are Ready.
pub(crate) async fn apply(cluster: &Cluster) {
    for name in NAMES {
        cluster.serve(&manifest(name)).await;
    }
}

/// Waits until they are Ready again, whatever another release made of them.
pub(crate) async fn are_ready(cluster: &Cluster) {
    for name in NAMES {
        cluster.ready(TENANT, name).await;
    }
}

/// Takes them away.
pub(crate) async fn close(cluster: &Cluster) {
    for name in NAMES {
        cluster.delete::<MCPServer>(TENANT, name).await;
    }
}
