//! Which release each part is of.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_crds::conditions::is_true;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT};
use portolan_tests::helm::Version;
use portolan_tests::operator::{counted, led};
use portolan_tests::wait::until;
use portolan_tests::{images, pods};
use serde_json::{Value, json};

/// Until every server has rolled and what it was before has drained.
const ROLLED: Duration = Duration::from_secs(300);

/// The release of each.
pub(crate) struct Parts<'a> {
    /// The operator's.
    pub(crate) operator: &'a Version,
    /// That of gateways, relays and bridges.
    pub(crate) others: &'a Version,
}

impl<'a> Parts<'a> {
    /// All of one.
    pub(crate) fn of(version: &'a Version) -> Self {
        Self { operator: version, others: version }
    }

    /// Waits until every part is of its release and serves, and nothing of another is left of these servers.
    pub(crate) async fn settled(&self, cluster: &Cluster, servers: &[&str]) {
        until("the operator is of its release", ROLLED, || async {
            all_are(&cluster.pods(PLATFORM, OPERATOR).await, 1, &self.operator.tag)
        })
        .await;
        led(cluster).await;
        until("it has looked at every server", ROLLED, || async {
            let looks = counted(cluster, "portolan_operator_reconcile_total{kind=\"MCPServer\"").await?;
            if looks >= servers.len() as u64 { Ok(()) } else { Err(format!("{looks} looks")) }
        })
        .await;
        until("the gateways are of their release", ROLLED, || async {
            for gateway in ["default", "failure"] {
                let pods = cluster.pods(PLATFORM, &format!("portolan.dev/gateway={gateway}")).await;
                all_are(&pods, 2, &self.others.tag)?;
            }
            Ok(())
        })
        .await;
        for name in servers {
            until(&format!("{name} is of its release"), ROLLED, || self.is_settled(cluster, name)).await;
        }
    }

    async fn is_settled(&self, cluster: &Cluster, name: &str) -> Result<(), String> {
        let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
        let status = server.status.unwrap_or_default();
        let revisions: Vec<_> = status.revisions.iter().map(|revision| &revision.name).collect();
        if !is_true(&status.conditions, "Ready") || revisions.len() != 1 {
            let conditions = serde_json::to_string(&status.conditions).unwrap_or_default();
            return Err(format!("{revisions:?} {conditions}"));
        }
        let count = usize::try_from(server.spec.replicas).unwrap_or_default();
        all_are(&cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await, count, &self.others.tag)
    }
}

/// There are so many pods, ready, with images of that tag alone.
fn all_are(pods: &[Pod], count: usize, tag: &str) -> Result<(), String> {
    let tags: BTreeSet<_> = pods.iter().flat_map(images::in_pod).map(|image| tag_of(&image).to_owned()).collect();
    if pods.len() == count && pods.iter().all(pods::is_ready) && tags.iter().eq([tag]) {
        Ok(())
    } else {
        Err(format!("{:?} with {tags:?}", pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()))
    }
}

fn tag_of(image: &str) -> &str {
    image.rsplit_once(':').map_or(image, |(_, tag)| tag)
}

/// Gives gateways, relays and bridges the images of another release, and leaves the operator as it is.
pub(crate) async fn patch_others(cluster: &Cluster, tag: &str) {
    change_operator(cluster, |container| {
        for argument in container["args"].as_array_mut().into_iter().flatten() {
            let text = argument.as_str().unwrap_or_default();
            if text.starts_with("--image=") || text.starts_with("--bridge-image=") {
                *argument = retagged(text, tag).into();
            }
        }
    })
    .await;
}

/// Gives the operator the image of another release, and leaves what it gives to others.
pub(crate) async fn patch_operator(cluster: &Cluster, tag: &str) {
    change_operator(cluster, |container| {
        container["image"] = retagged(container["image"].as_str().unwrap_or_default(), tag).into();
    })
    .await;
}

fn retagged(image: &str, tag: &str) -> String {
    let (repository, _) = image.rsplit_once(':').expect("an image has a tag");
    format!("{repository}:{tag}")
}

async fn change_operator(cluster: &Cluster, change: impl FnOnce(&mut Value)) {
    let deployments = cluster.api::<Deployment>(PLATFORM);
    let deployment = deployments.get("portolan-operator").await.expect("the operator is there");
    let deployment = serde_json::to_value(deployment).expect("JSON");
    let whole = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut container = json!({"name": whole["name"], "image": whole["image"], "args": whole["args"]});
    change(&mut container);
    let mut changed = nothing();
    changed["spec"] = json!({"template": {"spec": {"containers": [container]}}});
    cluster.apply::<Deployment>(&changed).await.expect("it is changed");
}

/// Leaves the operator to helm alone, which must have set all of it again: nobody else is asked for its next change.
pub(crate) async fn hand_back(cluster: &Cluster) {
    cluster.apply::<Deployment>(&nothing()).await.expect("nothing is changed");
}

/// The operator without anything that it is to be.
fn nothing() -> Value {
    let metadata = json!({"name": "portolan-operator", "namespace": PLATFORM});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata})
}
