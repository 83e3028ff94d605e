//! What the operator keeps true: children as declared, sessions through an edit, nothing left of what was deleted.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod by_steps;
mod children;
mod deletion;
mod gateways;
mod guards;
mod load;
mod rollouts;
mod sessions;
mod status;

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DeleteParams;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long it takes until the operator notices what is done by hand to a child that it watches.
const SECONDS: Duration = Duration::from_secs(10);
/// The same for a Secret, which it may only read by name, every half a minute.
const HALF_A_MINUTE: Duration = Duration::from_secs(45);

fn everything(name: &str) -> Value {
    server("everything", Place::Container).manifest(TENANT, name)
}

async fn echo(session: &Session, id: u64, message: &str) -> Result<(), String> {
    let reply = session.call(id, "echo", json!({"message": message})).await?;
    let text = reply.messages.last().map(|answer| answer["result"]["content"][0]["text"].clone()).unwrap_or_default();
    if text == format!("Echo: {message}") { Ok(()) } else { Err(format!("{} {:?}", reply.status, reply.messages)) }
}

/// Deletes a child by hand, and waits until there is another one of its name; `meanwhile` is to succeed all the time.
async fn comes_back<K>(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    limit: Duration,
    meanwhile: impl AsyncFn() -> Result<(), String>,
) -> K
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let api = cluster.api::<K>(namespace);
    let kind = K::kind(&());
    let before = api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")).uid();
    api.delete(name, &DeleteParams::default()).await.expect("a hand deletes");
    until(&format!("{kind} {name} is back"), limit, || async {
        meanwhile().await.unwrap_or_else(|error| panic!("while {kind} {name} is gone: {error}"));
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            Some(now) if now.uid() != before && now.meta().deletion_timestamp.is_none() => Ok(now),
            Some(_) => Err("the one that was deleted is still there".to_owned()),
            None => Err("there is none".to_owned()),
        }
    })
    .await
}

#[tokio::test]
async fn changed_content_of_a_config_map_makes_a_revision() {
    changed_content_makes_a_revision::<ConfigMap>("content", "configMapRef", "data").await;
}

#[tokio::test]
async fn changed_content_of_a_secret_makes_a_revision() {
    changed_content_makes_a_revision::<Secret>("secret-content", "secretRef", "stringData").await;
}

/// Serves `name` with the entries of an object of kind `K` as variables, and changes them.
async fn changed_content_makes_a_revision<K>(name: &str, reference: &str, data: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let cluster = Cluster::connect().await;
    let settings = |value: &str| {
        json!({"apiVersion": "v1", "kind": K::kind(&()), "metadata": {"name": name, "namespace": TENANT},
            data: {"SETTING": value}})
    };
    let body = async {
        cluster.apply::<K>(&settings("one")).await.expect("made");
        let mut manifest = everything(name);
        manifest["spec"]["container"]["envFrom"] = json!([{reference: {"name": name}}]);
        let before = cluster.serve(&manifest).await;

        cluster.apply::<K>(&settings("two")).await.expect("changed");
        until("a revision with the new content serves", PATIENCE, || async {
            let now = cluster.serving_revision(TENANT, name).await;
            if now == before { Err(format!("{now} still serves")) } else { Ok(()) }
        })
        .await;
        let token = cluster.token(TENANT, "default").await;
        let session = Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session");
        let environment = session.call(1, "get-env", json!({})).await.expect("answers");
        assert!(environment.answer().to_string().contains("two"));
    };
    finally(deleting(&cluster, &[name], body), cluster.delete::<K>(TENANT, name)).await;
}

#[tokio::test]
async fn scaling_changes_the_pods_and_not_the_revision() {
    let cluster = Cluster::connect().await;
    let name = "scaled";
    deleting(&cluster, &[name], async {
        let before = cluster.serve(&everything(name)).await;
        kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "2"])
            .await
            .expect("the scale subresource takes it");
        until("two pods are ready", PATIENCE, || async {
            let status = cluster
                .api::<MCPServer>(TENANT)
                .get(name)
                .await
                .map_err(|error| error.to_string())?
                .status
                .unwrap_or_default();
            if status.ready_replicas == 2 { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, before);

        kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "0"])
            .await
            .expect("zero is a number of pods");
        cluster.condition(TENANT, name, "Available", "False", "ScaledToZero", PATIENCE).await;
        kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "1"]).await.expect("and back");
        cluster.ready(TENANT, name).await;
    })
    .await;
}
