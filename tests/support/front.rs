//! A gateway that was made for one test. Its name has to be enrolled in `tests/cluster/values.yaml`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use portolan_crds::MCPGateway;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PLATFORM, TENANT};
use crate::mcp;
use crate::wait::{PATIENCE, until};

/// A gateway, and a client that reaches it under the name that its Service has in the cluster.
pub struct Front {
    /// The cluster.
    pub cluster: Cluster,
    /// The client.
    pub http: Client,
    name: &'static str,
    address: IpAddr,
}

impl Front {
    /// Makes the gateway and waits until it serves.
    ///
    /// # Panics
    /// It does not within [`PATIENCE`].
    pub async fn open(name: &'static str, spec: &Value) -> Self {
        let cluster = Cluster::connect().await;
        cluster.apply::<MCPGateway>(&manifest(name, spec)).await.expect("the manifest is accepted");
        let address = address(&cluster, name).await;
        let front = Self { http: client(name, address), cluster, name, address };
        front.loaded().await;
        front.reached().await;
        front
    }

    /// Looks its Service up again, which someone deleted, and waits until it leads to a pod.
    ///
    /// # Panics
    /// It does not within [`PATIENCE`].
    pub async fn find_again(&mut self) {
        self.address = address(&self.cluster, self.name).await;
        self.http = client(self.name, self.address);
        self.reached().await;
    }

    /// The node's Service rules follow the pods' readiness a moment later.
    async fn reached(&self) {
        until("the Service leads to a pod", PATIENCE, || async {
            self.http.get(self.url(TENANT, "any")).send().await.map(|_| ()).map_err(|error| format!("{error:?}"))
        })
        .await;
    }

    /// Waits until every replica serves what the spec says.
    ///
    /// # Panics
    /// They do not within [`PATIENCE`].
    pub async fn loaded(&self) {
        self.condition("Ready", "True", "").await;
    }

    /// Waits until a condition has a status and, unless empty, a reason, for the spec as it is; returns the condition.
    ///
    /// # Panics
    /// It does not come within [`PATIENCE`].
    pub async fn condition(&self, type_: &str, status: &str, reason: &str) -> Condition {
        let gateways = self.cluster.api::<MCPGateway>(PLATFORM);
        until(&format!("MCPGateway {} has {type_}={status} {reason}", self.name), PATIENCE, || async {
            let gateway = gateways.get(self.name).await.map_err(|error| error.to_string())?;
            let generation = gateway.metadata.generation;
            let conditions = gateway.status.map(|status| status.conditions).unwrap_or_default();
            let found = conditions.iter().find(|condition| {
                condition.type_ == type_
                    && condition.status == status
                    && (reason.is_empty() || condition.reason == reason)
                    && condition.observed_generation == generation
            });
            found.cloned().ok_or_else(|| serde_json::to_string(&conditions).unwrap_or_default())
        })
        .await
    }

    /// Changes the spec and waits until every replica serves by it.
    ///
    /// # Panics
    /// They do not within [`PATIENCE`].
    pub async fn change(&self, spec: &Value) {
        self.cluster
            .api::<MCPGateway>(PLATFORM)
            .patch(self.name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec})))
            .await
            .expect("the spec is accepted");
        self.loaded().await;
    }

    /// The URL of a server.
    #[must_use]
    pub fn url(&self, namespace: &str, server: &str) -> String {
        format!("http://{}.{PLATFORM}/{namespace}/{server}/mcp", service(self.name))
    }

    /// The URL of a server for clients that do not know the Service's name.
    #[must_use]
    pub fn direct_url(&self, namespace: &str, server: &str) -> String {
        format!("http://{}/{namespace}/{server}/mcp", self.address)
    }

    /// What opening a session is answered with.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn initialize(&self, namespace: &str, server: &str, credential: Option<&str>) -> StatusCode {
        let url = self.url(namespace, server);
        mcp::post(&self.http, &url, credential, &mcp::initialize()).await.expect("answers").status()
    }

    /// Deletes the gateway. It is enough to know its name, so that a test can do it whatever came of the gateway.
    pub async fn close(cluster: &Cluster, name: &str) {
        cluster.delete::<MCPGateway>(PLATFORM, name).await;
    }
}

/// What a gateway's children are called.
#[must_use]
pub fn service(gateway: &str) -> String {
    format!("portolan-gateway-{gateway}")
}

fn manifest(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPGateway",
        "metadata": {"name": name, "namespace": PLATFORM}, "spec": spec})
}

async fn address(cluster: &Cluster, name: &str) -> IpAddr {
    let services = cluster.api::<Service>(PLATFORM);
    until("the gateway has a Service", PATIENCE, || async {
        let service = services.get(&service(name)).await.map_err(|error| error.to_string())?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).ok_or("no address yet")?;
        address.parse().map_err(|error: std::net::AddrParseError| error.to_string())
    })
    .await
}

fn client(name: &str, address: IpAddr) -> Client {
    Client::builder()
        .timeout(Duration::from_secs(60))
        .resolve(&format!("{}.{PLATFORM}", service(name)), SocketAddr::new(address, 80))
        .build()
        .expect("a client")
}
