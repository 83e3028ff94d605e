//! An API server that refuses what a test wants refused, by an admission policy of that test.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as Policy, ValidatingAdmissionPolicyBinding as Binding,
};
use kube::Resource;
use kube::api::{Api, DeleteParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::wait::{PATIENCE, until};

/// Makes the API server refuse, saying `message`, what `rule` (of `resourceRules`) matches and `which` (CEL) is true of.
/// `trial` is something of the kind, without effect: it tells when the API server obeys, a moment after it was told.
/// [`lift`] ends it, which a test has to do whatever comes.
///
/// # Panics
/// The policy is not taken, or not obeyed within [`PATIENCE`].
pub async fn refuse(
    cluster: &Cluster,
    name: &str,
    (rule, which): (&Value, &str),
    message: &str,
    trial: impl AsyncFn() -> kube::Result<()>,
) {
    let policy = json!({"metadata": {"name": full(name)}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": format!("!({which})"), "message": message}],
    }});
    let binding = json!({"metadata": {"name": full(name)},
        "spec": {"policyName": full(name), "validationActions": ["Deny"]}});
    make::<Policy>(cluster, policy).await;
    make::<Binding>(cluster, binding).await;
    until("the admission policy is obeyed", PATIENCE, || async {
        match trial().await {
            Err(kube::Error::Api(status)) if status.message.contains(message) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Ends the refusal of that name; nothing when there is none.
///
/// # Panics
/// It cannot be deleted.
pub async fn lift(cluster: &Cluster, name: &str) {
    remove::<Binding>(cluster, name).await;
    remove::<Policy>(cluster, name).await;
}

fn full(name: &str) -> String {
    format!("portolan-tests-{name}")
}

async fn make<K>(cluster: &Cluster, object: Value)
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Serialize
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).expect("an object of its kind");
    Api::<K>::all(cluster.client.clone()).create(&PostParams::default(), &object).await.expect("it is made");
}

async fn remove<K>(cluster: &Cluster, name: &str)
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    match Api::<K>::all(cluster.client.clone()).delete(&full(name), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => drop(other.expect("it is deleted")),
    }
}
