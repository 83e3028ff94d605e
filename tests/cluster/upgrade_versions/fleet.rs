//! A server of each transport and a toolset of two of them, behind a gateway, called all the while.

use std::time::Duration;

use portolan_crds::{MCPServer, MCPToolset};
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::load::{Load, Plan};
use portolan_tests::mcp::Session;
use portolan_tests::stand::{GATEWAY, Stand};
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::parts::Parts;
use crate::{elsewhere, newer};

/// The server that the stand has.
const STDIO: &str = "versions-stdio";
/// Those beside it.
const OTHERS: [&str; 3] = ["versions-http", "versions-sse", "versions-remote"];
const TOOLSET: &str = "versions";
/// Sessions that each has at every moment. One lives for as many [`RENEWAL`]s.
const SESSIONS: usize = 4;
const RENEWAL: Duration = Duration::from_secs(4);
/// Calls a second of each.
const RATE: u32 = 4;
/// So many calls are made at least when everything has settled.
const AT_REST: u64 = 40;

/// All of it.
pub(crate) struct Fleet {
    cluster: Cluster,
    _stand: Stand,
    loads: Mutex<Vec<(String, Load)>>,
}

impl Fleet {
    /// Makes it, waits until it serves, and begins to call.
    pub(crate) async fn open(cluster: &Cluster) -> Self {
        elsewhere::open(cluster).await;
        let stand = Stand::open(cluster, STDIO, 2).await;
        for name in OTHERS {
            cluster.apply::<MCPServer>(&manifest(name)).await.expect("the manifest is accepted");
        }
        let chosen = json!([{"name": STDIO, "tools": [{"name": "echo", "as": "echo"}]}, {"name": OTHERS[0]}]);
        let toolset = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPToolset",
            "metadata": {"name": TOOLSET, "namespace": TENANT}, "spec": {"servers": chosen}});
        cluster.apply::<MCPToolset>(&toolset).await.expect("the manifest is accepted");
        let mut loads = Vec::new();
        for name in OTHERS.into_iter().chain([STDIO, "toolsets/versions"]) {
            let url = stand.front.direct_url(TENANT, name);
            until(&format!("{name} is served"), PATIENCE, || echoes(&url)).await;
            let plan = Plan { url, sessions: SESSIONS, renewal: RENEWAL, ..stand.plan(RATE) };
            loads.push((name.to_owned(), Load::start(plan).await));
        }
        Self { cluster: cluster.clone(), _stand: stand, loads: Mutex::new(loads) }
    }

    /// Takes all of it away, whatever came of it.
    pub(crate) async fn close(cluster: &Cluster) {
        newer::close(cluster).await;
        cluster.delete::<MCPToolset>(TENANT, TOOLSET).await;
        for name in OTHERS {
            cluster.delete::<MCPServer>(TENANT, name).await;
        }
        Stand::close(cluster, STDIO).await;
        elsewhere::close(cluster).await;
    }

    /// Waits until every part is the one that it is to be and calls have gone on for a while with that; none has failed.
    pub(crate) async fn settles(&self, with: &str, parts: &Parts<'_>) {
        let names: Vec<_> = OTHERS.into_iter().chain([STDIO]).collect();
        parts.settled(&self.cluster, &names).await;
        let loads = self.loads.lock().await;
        let made = || loads.iter().map(|(_, load)| load.so_far().made());
        let before: Vec<_> = made().collect();
        until(&format!("all are called with {with}"), PATIENCE, || async {
            let since: Vec<_> = made().zip(&before).map(|(now, before)| now - before).collect();
            if since.iter().all(|made| *made >= AT_REST) { Ok(()) } else { Err(format!("{since:?} calls")) }
        })
        .await;
        println!("{with}");
        for (name, load) in loads.iter() {
            println!("  {name}: {}", load.so_far());
        }
        for (_, load) in loads.iter() {
            load.so_far().assert_nothing_failed();
        }
    }

    /// Ends the calls: every one was answered.
    pub(crate) async fn stop(self) {
        for (name, load) in self.loads.into_inner() {
            let tally = load.stop().await;
            println!("{name}: {tally}");
            assert!(tally.rate() > 0.9 * f64::from(RATE), "the load went on all the while: {tally}");
            tally.assert_nothing_failed();
        }
    }
}

fn manifest(name: &str) -> Value {
    let place = Place::Container;
    let mut manifest = match name {
        "versions-http" => server("everything-http", place).manifest(TENANT, name),
        "versions-sse" => server("everything-sse", place).manifest(TENANT, name),
        _ => json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer",
            "metadata": {"name": name, "namespace": TENANT}, "spec": {"remote": {"url": elsewhere::url()}}}),
    };
    manifest["metadata"]["labels"] = json!({"tests/front": GATEWAY});
    manifest["spec"]["rollout"] = json!({"drainTimeout": "2m"});
    manifest
}

/// Whether a call is answered at a URL.
async fn echoes(url: &str) -> Result<(), String> {
    let session = Session::open(url, Some(&Stand::key())).await?;
    let reply = session.call(1, "echo", json!({"message": "is it served?"})).await?;
    let text = reply.messages.last().map(|answer| answer["result"]["content"][0]["text"].clone());
    session.delete().await?;
    if text == Some("Echo: is it served?".into()) { Ok(()) } else { Err(format!("{reply:?}")) }
}
