//! Tests that leave nothing behind, those that fail included.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use portolan_crds::MCPServer;
use serde_json::{Value, json};

use crate::cluster::{Cluster, TENANT};

/// Runs `body`, then `tidy` whatever came of it. A panic of `body` goes on afterwards.
pub async fn finally<B: Future>(body: B, tidy: impl Future<Output = ()>) -> B::Output {
    let outcome = AssertUnwindSafe(body).catch_unwind().await;
    tidy.await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `body`, then deletes the servers of these names in [`TENANT`] whatever came of it.
///
/// # Panics
/// One of them cannot be deleted.
pub async fn deleting<B: Future>(cluster: &Cluster, servers: &[&str], body: B) -> B::Output {
    finally(body, async {
        for server in servers {
            cluster.delete::<MCPServer>(TENANT, server).await;
        }
    })
    .await
}

/// Runs `body` in a namespace of its own that no operator serves and that has `labels`, and deletes that whatever happens.
///
/// # Panics
/// The namespace cannot be made or deleted.
pub async fn in_a_namespace<F, Fut>(cluster: &Cluster, labels: &Value, body: F) -> Fut::Output
where
    F: FnOnce(String) -> Fut,
    Fut: Future,
{
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let wanted = json!({"metadata": {"generateName": "portolan-tests-", "labels": labels}});
    let wanted = serde_json::from_value(wanted).expect("a namespace");
    let name = namespaces.create(&PostParams::default(), &wanted).await.expect("the namespace is made").name_any();
    finally(body(name.clone()), async {
        namespaces.delete(&name, &DeleteParams::default()).await.expect("the namespace is deleted");
    })
    .await
}
