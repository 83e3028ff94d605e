//! Calls to the API server: each has a timeout, and an error that says what was asked.

use std::{collections::BTreeMap, fmt::Debug, future::Future, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use portolan_crds::{OPERATOR_MANAGER, conditions::reasons};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{error::Error, metrics::Metrics};

/// How long one call may take, the client's own retries of 429, 503 and 504 included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Objects per page of a list.
const PAGE: u32 = 500;

/// A kind of namespaced object that is known at compile time.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync
{
}

/// The API server, called with timeouts.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    metrics: Metrics,
}

impl Cluster {
    /// Calls by `client`; writes are counted in `metrics`.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// The client, for watches.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// One object; `None` when there is none.
    ///
    /// # Errors
    /// The API server refused, is away, or took longer than [`CALL_TIMEOUT`].
    pub async fn get<K: Namespaced>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        bounded("read", &describe(&K::kind(&()), namespace, name), api.get_opt(name)).await
    }

    /// Labels of a namespace; `None` when there is none of that name.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub(crate) async fn namespace_labels(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = bounded("read", &format!("Namespace {name}"), api.get_metadata_opt(name)).await?;
        Ok(found.map(|namespace| namespace.metadata.labels.unwrap_or_default()))
    }

    /// The objects of a namespace that a label selector (`a=b,c`) selects; all with an empty one.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn list<K: Namespaced>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.pages(&api, &K::kind(&()), namespace, selector).await
    }

    /// Makes an object; whether there was none of its name.
    pub(crate) async fn create<K: Namespaced + Serialize>(&self, namespace: &str, object: &K) -> Result<bool, Error> {
        self.metrics.write("create");
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PostParams::default() };
        let call = async {
            match api.create(&params, object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
                other => other.map(|_| true),
            }
        };
        let name = object.meta().name.as_deref().unwrap_or_default();
        bounded("create", &describe(&K::kind(&()), namespace, name), call).await
    }

    /// One object of a kind that is known at run time.
    pub(crate) async fn get_any(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        let api = self.any(resource, namespace);
        bounded("read", &describe(&resource.kind, namespace, name), api.get_opt(name)).await
    }

    /// The objects of a kind that is known at run time.
    pub(crate) async fn list_any(
        &self,
        resource: &ApiResource,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<DynamicObject>, Error> {
        self.pages(&self.any(resource, namespace), &resource.kind, namespace, selector).await
    }

    /// Patches an object that is not ours to apply.
    pub(crate) async fn patch<K: Namespaced>(&self, object: &K, patch: &Patch<Value>) -> Result<(), Error> {
        self.metrics.write("patch");
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PatchParams::default() };
        bounded("patch", &describe(&K::kind(&()), &namespace, &name), api.patch(&name, &params, patch)).await.map(drop)
    }

    /// Server-side apply.
    pub(crate) async fn apply(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        desired: &Value,
        params: &PatchParams,
    ) -> Result<DynamicObject, Error> {
        self.metrics.write("apply");
        let api = self.any(resource, namespace);
        bounded("apply", &describe(&resource.kind, namespace, name), api.patch(name, params, &Patch::Apply(desired)))
            .await
    }

    /// Replaces an object whose `resourceVersion` is still the one in `object`.
    pub(crate) async fn replace(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        object: &DynamicObject,
        manager: &str,
    ) -> Result<DynamicObject, Error> {
        self.metrics.write("replace");
        let api = self.any(resource, namespace);
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        bounded("replace", &describe(&resource.kind, namespace, name), api.replace(name, &params, object)).await
    }

    /// Deletes the object with that uid, and with it what it owns; one that is gone already is fine.
    pub(crate) async fn delete(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), Error> {
        self.metrics.write("delete");
        let api = self.any(resource, namespace);
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        bounded("delete", &describe(&resource.kind, namespace, name), unless_gone(api.delete(name, &params))).await
    }

    /// Server-side apply of the status subresource. `status` carries `apiVersion`, `kind`, `metadata.name` and `status`.
    pub(crate) async fn apply_status<K: Namespaced>(
        &self,
        namespace: &str,
        name: &str,
        status: &serde_json::Value,
        manager: &str,
    ) -> Result<K, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(manager).force();
        bounded(
            "write the status of",
            &describe(&K::kind(&()), namespace, name),
            api.patch_status(name, &params, &Patch::Apply(status)),
        )
        .await
    }

    fn any(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }

    async fn pages<K>(&self, api: &Api<K>, kind: &str, namespace: &str, selector: &str) -> Result<Vec<K>, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = bounded("list", &format!("{kind} in {namespace}"), api.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => return Ok(found),
            }
        }
    }
}

/// `kind namespace/name`, as messages call an object.
#[must_use]
pub fn describe(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

/// A deletion of what is gone already has come true.
async fn unless_gone<T>(deletion: impl Future<Output = kube::Result<T>>) -> kube::Result<()> {
    match deletion.await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

async fn bounded<T>(verb: &str, what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::api(verb, what, &error)),
        Err(_) => Err(Error::transient(
            reasons::API_SERVER_ERROR,
            format!("cannot {verb} {what}: the API server did not answer within {} s", CALL_TIMEOUT.as_secs()),
        )),
    }
}
