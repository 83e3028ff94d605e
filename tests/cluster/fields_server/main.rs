//! Every field of an `MCPServer`, by what it does to the running system. `docs/fields.md` says which test shows which.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod container;
mod images;
mod pod;
mod resilience;
mod scheduling;
mod sessions;
mod volumes;

use k8s_openapi::ClusterResourceScope;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::wait::{PATIENCE, until};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A server that is Ready, and what calling it takes.
struct Served {
    cluster: Cluster,
    name: String,
    url: String,
    token: String,
}

impl Served {
    /// Applies the manifest and waits until its server is Ready.
    async fn from(manifest: &Value) -> Self {
        let cluster = Cluster::connect().await;
        let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
        cluster.apply::<MCPServer>(manifest).await.expect("the manifest is accepted");
        cluster.ready(TENANT, &name).await;
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, &name).await;
        Self { cluster, name, url, token }
    }

    async fn try_session(&self) -> Result<Session, String> {
        Session::open(&self.url, Some(&self.token)).await
    }

    async fn session(&self) -> Session {
        self.try_session().await.expect("a session")
    }

    /// What JavaScript gives in a new session's process.
    async fn eval(&self, code: &str) -> Value {
        puppet::eval(&self.session().await, 1, code).await.expect("the puppet answers")
    }

    /// The one pod of the server.
    async fn pod(&self) -> k8s_openapi::api::core::v1::Pod {
        let mut pods = self.cluster.pods(TENANT, &format!("portolan.dev/server={}", self.name)).await;
        assert_eq!(pods.len(), 1, "one pod");
        pods.remove(0)
    }

    async fn gone(self) {
        self.cluster.delete::<MCPServer>(TENANT, &self.name).await;
    }
}

/// The puppet over stdio with `spec` merged into its own.
fn puppet_with(name: &str, spec: &Value) -> Value {
    with(puppet::stdio(TENANT, name), spec)
}

/// A manifest with `spec` merged into its own. Sessions that a test leaves open do not outlive its server.
fn with(mut manifest: Value, spec: &Value) -> Value {
    manifest["spec"]["rollout"]["drainTimeout"] = "0s".into();
    merge(&mut manifest["spec"], spec);
    manifest
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Applies an object that is in no namespace.
async fn apply_global<K>(cluster: &Cluster, manifest: &Value)
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let name = manifest["metadata"]["name"].as_str().expect("a name");
    Api::<K>::all(cluster.client.clone())
        .patch(name, &PatchParams::apply("portolan-tests").force(), &Patch::Apply(manifest))
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Deletes an object that is in no namespace, if it is there, and waits until it is gone.
async fn delete_global<K>(cluster: &Cluster, name: &str)
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let api = Api::<K>::all(cluster.client.clone());
    until(&format!("{name} is gone"), PATIENCE, || async {
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Ok(_) => Err("it was there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// A Secret or ConfigMap of the tenant.
fn content(kind: &str, name: &str, data: &Value) -> Value {
    let member = if kind == "Secret" { "stringData" } else { "data" };
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": TENANT}, member: data})
}
