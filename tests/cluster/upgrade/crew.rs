//! Four servers that are called all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_crds::conditions::is_true;
use portolan_tests::cluster::{Cluster, PLATFORM, TENANT};
use portolan_tests::load::{Load, Plan};
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{demo, images};
use serde_json::json;
use tokio::sync::Mutex;

/// What they are called.
pub(crate) const NAMES: [&str; 4] = ["upgraded-a", "upgraded-b", "upgraded-c", "upgraded-d"];
/// Sessions that each has at every moment. One lives for as many [`RENEWAL`]s, so that what drains has ended soon.
const SESSIONS: usize = 3;
const RENEWAL: Duration = Duration::from_secs(1);
/// Calls a second of each.
const RATE: u32 = 5;
/// Until all of them have rolled, one after the other.
const ROLLED: Duration = Duration::from_secs(240);

/// All of them, serving.
pub(crate) struct Crew {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// The image of their bridges.
    pub(crate) bridge: String,
    /// The revision that each served with at first.
    pub(crate) first: BTreeMap<&'static str, String>,
    loads: Mutex<Vec<Load>>,
}

impl Crew {
    /// Makes them, waits until they serve, and begins to call.
    pub(crate) async fn open(cluster: &Cluster) -> Self {
        for name in NAMES {
            let mut manifest = demo::stdio(TENANT, name);
            manifest["spec"]["rollout"] = json!({"drainTimeout": "2m"});
            cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        }
        let token = cluster.token(TENANT, "default").await;
        let (mut first, mut loads) = (BTreeMap::new(), Vec::new());
        for name in NAMES {
            cluster.ready(TENANT, name).await;
            first.insert(name, cluster.serving_revision(TENANT, name).await);
            loads.push(Load::start(Plan {
                url: cluster.gateway_url(TENANT, name).await,
                credentials: vec![Some(token.clone())],
                sessions: SESSIONS,
                rate: RATE,
                renewal: RENEWAL,
                streams: 0,
            }));
        }
        let loads = Mutex::new(join_all(loads).await);
        Self { cluster: cluster.clone(), bridge: bridge_image(cluster).await, first, loads }
    }

    /// Ends the calls: every one was answered.
    pub(crate) async fn stop(self) {
        for (name, load) in NAMES.into_iter().zip(self.loads.into_inner()) {
            let tally = load.stop().await;
            println!("{name}: {tally}");
            assert!(tally.rate() > 0.9 * f64::from(RATE), "the load went on all the while: {tally}");
            tally.assert_nothing_failed();
        }
    }

    /// A server as it is now.
    pub(crate) async fn server(&self, name: &str) -> Result<MCPServer, String> {
        self.cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())
    }

    /// Waits until all are Ready, and the bridge of every pod that stays is of this image.
    pub(crate) async fn until_on(&self, bridge: &str) {
        for name in NAMES {
            until(&format!("{name} has the bridge {bridge}"), ROLLED, || async {
                let server = self.server(name).await?;
                let conditions = server.status.map(|status| status.conditions).unwrap_or_default();
                let pods = self.cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
                let bridges: BTreeSet<_> = pods.iter().flat_map(images::in_pod).collect();
                if is_true(&conditions, "Ready") && bridges.iter().eq([bridge]) {
                    Ok(())
                } else {
                    Err(format!("{bridges:?} {}", serde_json::to_string(&conditions).unwrap_or_default()))
                }
            })
            .await;
        }
    }

    /// Every pod that stays.
    pub(crate) async fn pods(&self) -> BTreeSet<String> {
        let pods = self.cluster.pods(TENANT, &format!("portolan.dev/server in ({})", NAMES.join(","))).await;
        pods.iter().map(ResourceExt::name_any).collect()
    }

    /// Waits until each serves with the revision that it had at first, and has no other.
    pub(crate) async fn until_as_at_first(&self) {
        for (name, first) in &self.first {
            until(&format!("{name} serves with {first} alone"), PATIENCE + ROLLED, || async {
                let server = self.server(name).await?;
                let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
                let names: Vec<_> = revisions.iter().map(|revision| &revision.name).collect();
                if names == [first] { Ok(()) } else { Err(format!("{names:?}")) }
            })
            .await;
        }
    }
}

/// What the operator gives servers as their bridge.
async fn bridge_image(cluster: &Cluster) -> String {
    let operator = cluster.api::<Deployment>(PLATFORM).get("portolan-operator").await.expect("the operator is there");
    let pod = operator.spec.and_then(|spec| spec.template.spec).expect("it has a pod template");
    let mut arguments = pod.containers.into_iter().flat_map(|container| container.args.unwrap_or_default());
    let image = arguments.find_map(|argument| argument.strip_prefix("--bridge-image=").map(str::to_owned));
    image.expect("it is told")
}
