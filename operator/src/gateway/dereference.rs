//! All reads of a gateway's reconcile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
    jiff::Timestamp,
};
use kube::ResourceExt;
use portolan_crds::{MCPGateway, MCPServer, labels};
use portolan_snapshot::{inputs::secret_key, report::GatewayReport, select};

use super::{child_name, keys};
use crate::{apply::Owner, context::Ctx, error::Error, gateways::Replica};

/// Reads at once.
const PARALLEL: usize = 16;

/// What the reads found.
#[derive(Debug)]
pub(super) struct Observed {
    /// The gateway's own keys.
    pub(super) keys: BTreeMap<String, ByteString>,
    /// Secrets that API keys come from; `None` for one that does not exist.
    pub(super) api_keys: BTreeMap<String, Option<BTreeMap<String, ByteString>>>,
    /// The servers that it selects, by namespace and name.
    pub(super) servers: Vec<SelectedServer>,
    /// MAC keys of servers whose namespace cannot be watched, as the gateway's Secret has them: they go on being served.
    pub(super) kept_macs: BTreeMap<String, ByteString>,
    /// Why its selectors cannot be read.
    pub(super) bad_selector: Option<String>,
    /// Its pods.
    pub(super) pods: Vec<Pod>,
    /// Its ready pods, with what each has loaded of the gateway's own object.
    pub(super) replicas: Vec<(Replica, Option<GatewayReport>)>,
}

/// A server that the gateway selects.
#[derive(Clone, Debug)]
pub(super) struct SelectedServer {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its MAC key; `None` while the server's reconciler has not made it.
    pub(super) mac: Option<Vec<u8>>,
    /// How long the server exists.
    pub(super) age: Duration,
}

pub(super) async fn dereference(gateway: &MCPGateway, owner: &Owner, ctx: &Ctx) -> Result<Observed, Error> {
    let (namespace, name) = (owner.namespace(), owner.name());
    let own = ctx.cluster.get::<Secret>(namespace, &child_name(name)).await?;
    // Keys in a Secret that someone else made are not ours to use; the apply says whose it is.
    let own = own.filter(|secret| owner.owns(secret));
    let keys = keys::keep_or_make(own.as_ref())?;
    let named: BTreeSet<&String> =
        gateway.spec.authentication.api_keys.iter().map(|list| &list.secret_ref.name).collect();
    let mut api_keys = BTreeMap::new();
    for secret in named {
        let found = ctx.cluster.get::<Secret>(namespace, secret).await?;
        api_keys.insert(secret.clone(), found.map(|found| found.data.unwrap_or_default()));
    }
    let pods = ctx.cluster.list::<Pod>(namespace, &format!("{}={name}", labels::GATEWAY)).await?;
    let (known, unknown) = ctx.stores.servers().await;
    let kept_macs = kept_macs(own, &unknown);
    let (selected, bad_selector) = select(gateway, known, ctx);
    let servers = stream::iter(selected.into_iter().map(|server| with_mac(server, ctx)));
    let mut servers: Vec<SelectedServer> = servers.buffer_unordered(PARALLEL).try_collect().await?;
    servers.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    let replicas = ctx.gateways.ready_replicas_of(&format!("{namespace}/{name}"));
    let replicas = replicas.into_iter().map(|replica| {
        let report = ctx.loaded.gateway(&replica.uid);
        (replica, report)
    });
    Ok(Observed { keys, api_keys, servers, kept_macs, bad_selector, pods, replicas: replicas.collect() })
}

/// The keys of every server of the `unknown` namespaces.
fn kept_macs(own: Option<Secret>, unknown: &[String]) -> BTreeMap<String, ByteString> {
    let is_kept = |key: &str| unknown.iter().any(|namespace| key.starts_with(&secret_key::server(namespace, "")));
    let data = own.and_then(|secret| secret.data).unwrap_or_default();
    data.into_iter().filter(|(key, _)| is_kept(key)).collect()
}

fn select(gateway: &MCPGateway, known: Vec<MCPServer>, ctx: &Ctx) -> (Vec<MCPServer>, Option<String>) {
    let namespaces = ctx.gateways.namespaces();
    let mut selected = Vec::new();
    for server in known {
        match select::selects(&gateway.spec.servers, &namespaces, &server) {
            Ok(true) => selected.push(server),
            Ok(false) => {}
            Err(bad) => return (Vec::new(), Some(bad.to_string())),
        }
    }
    (selected, None)
}

async fn with_mac(server: MCPServer, ctx: &Ctx) -> Result<SelectedServer, Error> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let uid = server.uid().unwrap_or_default();
    let mac = ctx.macs.get(&ctx.cluster, &namespace, &name, &uid).await?;
    let age = server.creation_timestamp().map(|made| Timestamp::now().duration_since(made.0));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    Ok(SelectedServer { namespace, name, mac, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_servers_whose_namespace_cannot_be_watched_are_kept_and_no_others() {
        let keys = ["server.a.x", "server.ab.x", "server.b.y", "session.0"];
        let data = keys.into_iter().map(|key| (key.to_owned(), ByteString(vec![1]))).collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let kept = kept_macs(Some(secret), &["a".to_owned()]);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["server.a.x"]);
        assert!(kept_macs(None, &["a".to_owned()]).is_empty());
    }
}
