//! The running cluster, with Portolan installed from its chart by `hack/cluster-install`.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use portolan_crds::server::RevisionState;
use portolan_crds::{MCPGateway, MCPServer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::thirdparty::{Place, server};
use crate::wait::{PATIENCE, until};

/// Where the chart is installed.
pub const PLATFORM: &str = "portolan-system";
/// An enrolled tenant namespace.
pub const TENANT: &str = "default";
/// Another enrolled tenant namespace.
pub const OTHER_TENANT: &str = "team-a";

/// Selects the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/name=portolan-operator";

/// A connection as the cluster's administrator.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
}

impl Cluster {
    /// Connects by `KUBECONFIG`.
    ///
    /// # Panics
    /// There is no cluster, or Portolan is not installed: run the suite by `tests/kube/run` after `hack/cluster-install`.
    pub async fn connect() -> Self {
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
        let gateways: Api<MCPGateway> = Api::namespaced(client.clone(), PLATFORM);
        gateways.list(&ListParams::default()).await.expect("Portolan is installed: run hack/cluster-install");
        Self { client }
    }

    /// Connects, runs server-everything under `name` in [`TENANT`] until it is Ready, and returns its URL at the default
    /// gateway and a token that is let in.
    ///
    /// # Panics
    /// It does not get Ready.
    pub async fn serving(name: &str) -> (Self, String, String) {
        let cluster = Self::connect().await;
        let manifest = server("everything", Place::Container).manifest(TENANT, name);
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        cluster.ready(TENANT, name).await;
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, name).await;
        (cluster, url, token)
    }

    /// The objects of one kind in a namespace.
    #[must_use]
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Applies a manifest, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn apply<K>(&self, manifest: &Value) -> kube::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or(TENANT);
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        self.api::<K>(namespace)
            .patch(name, &PatchParams::apply("portolan-tests").force(), &Patch::Apply(manifest))
            .await
    }

    /// Deletes an object and everything it owns, and waits until it is gone.
    ///
    /// # Panics
    /// It is still there after [`PATIENCE`].
    pub async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let api = self.api::<K>(namespace);
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        let deleted = match api.get_opt(name).await {
            Ok(None) => return,
            Ok(Some(object)) => object.uid(),
            Err(error) => panic!("look at {name}: {error}"),
        };
        match api.delete(name, &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return,
            Err(error) => panic!("delete {name}: {error}"),
        }
        until(&format!("{name} is gone"), PATIENCE, || async {
            match api.get_opt(name).await {
                Ok(None) => Ok(()),
                // The operator may have made one of the same name at once.
                Ok(Some(object)) if object.uid() != deleted => Ok(()),
                Ok(Some(_)) => Err("it is still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits until a server's condition has a status and, unless empty, a reason; returns the condition.
    ///
    /// # Panics
    /// It does not come within `limit`.
    pub async fn condition(
        &self,
        namespace: &str,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
        limit: Duration,
    ) -> Condition {
        let api = self.api::<MCPServer>(namespace);
        until(&format!("MCPServer {name} has {type_}={status} {reason}"), limit, || async {
            let server = api.get(name).await.map_err(|error| error.to_string())?;
            let generation = server.metadata.generation;
            let conditions = server.status.map(|status| status.conditions).unwrap_or_default();
            conditions
                .iter()
                .find(|condition| {
                    condition.type_ == type_
                        && condition.status == status
                        && (reason.is_empty() || condition.reason == reason)
                        && condition.observed_generation == generation
                })
                .cloned()
                .ok_or_else(|| serde_json::to_string(&conditions).unwrap_or_default())
        })
        .await
    }

    /// Waits until a server is Ready.
    ///
    /// # Panics
    /// It does not get so within [`PATIENCE`].
    pub async fn ready(&self, namespace: &str, name: &str) {
        self.condition(namespace, name, "Ready", "True", "", PATIENCE).await;
    }

    /// Applies a server's manifest, waits until it is Ready, and returns the name of the revision that serves.
    ///
    /// # Panics
    /// It does not get Ready within [`PATIENCE`].
    pub async fn serve(&self, manifest: &Value) -> String {
        let server = self.apply::<MCPServer>(manifest).await.expect("the manifest is accepted");
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        self.ready(&namespace, &name).await;
        self.serving_revision(&namespace, &name).await
    }

    /// The name of the revision of a server that takes new sessions, or what another leaves of them.
    ///
    /// # Panics
    /// There is none.
    pub async fn serving_revision(&self, namespace: &str, name: &str) -> String {
        let server = self.api::<MCPServer>(namespace).get(name).await.expect("the server is there");
        let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
        let serving = revisions.iter().find(|revision| revision.state == RevisionState::Serving);
        serving.unwrap_or_else(|| panic!("{name} has a serving revision: {revisions:?}")).name.clone()
    }

    /// Waits until an object is gone.
    ///
    /// # Panics
    /// It is still there after `limit`.
    pub async fn gone<K>(&self, namespace: &str, name: &str, limit: Duration)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let api = self.api::<K>(namespace);
        until(&format!("{} {name} is gone", K::kind(&())), limit, || async {
            match api.get_metadata_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it is still there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// The default gateway's address as seen from the node: the Service's ClusterIP, which is let in by `hack/cluster-install`.
    ///
    /// # Panics
    /// There is no such Service.
    pub async fn gateway_url(&self, namespace: &str, server: &str) -> String {
        let service = self
            .api::<Service>(PLATFORM)
            .get("portolan-gateway-default")
            .await
            .expect("the default gateway has a Service");
        let address = service.spec.and_then(|spec| spec.cluster_ip).expect("the Service has an address");
        format!("http://{address}/{namespace}/{server}/mcp")
    }

    /// URLs of one server at each replica of the default gateway.
    ///
    /// # Panics
    /// The pods cannot be listed.
    pub async fn replica_urls(&self, namespace: &str, server: &str) -> Vec<String> {
        let pods = self.pods(PLATFORM, "portolan.dev/gateway=default").await;
        pods.into_iter()
            .filter_map(|pod| pod.status?.pod_ip)
            .map(|ip| format!("http://{ip}:8080/{namespace}/{server}/mcp"))
            .collect()
    }

    /// Pods by label, those that are going away left out.
    ///
    /// # Panics
    /// They cannot be listed.
    pub async fn pods(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let pods =
            self.api::<Pod>(namespace).list(&ListParams::default().labels(labels)).await.expect("pods can be listed");
        pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// A token of a service account for the default gateway's audience.
    ///
    /// # Panics
    /// `kubectl create token` fails.
    pub async fn token(&self, namespace: &str, account: &str) -> String {
        kubectl(&["create", "token", account, "--namespace", namespace, "--audience", "portolan"])
            .await
            .expect("a token")
            .trim()
            .to_owned()
    }

    /// A patch of an `MCPServer`'s spec.
    ///
    /// # Panics
    /// The API server refuses it.
    pub async fn patch_spec(&self, namespace: &str, name: &str, spec: &Value) -> MCPServer {
        self.api::<MCPServer>(namespace)
            .patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec})))
            .await
            .expect("the spec is accepted")
    }
}

/// Runs kubectl and returns what it printed.
///
/// # Errors
/// It failed; the error carries stderr.
pub async fn kubectl(arguments: &[&str]) -> Result<String, String> {
    printed("kubectl", arguments).await
}

/// Runs a program and returns what it printed.
///
/// # Errors
/// It failed; the error carries stderr.
pub(crate) async fn printed(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("{} does not start: {error}", program.as_ref().display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
