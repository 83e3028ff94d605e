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
use portolan_snapshot::{
    inputs::secret_key,
    report::GatewayReport,
    select::{self, Namespaces},
};

use super::child_name;
use crate::{apply::Owner, context::Ctx, error::Error, gateways::Replica, macs};

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
    /// MAC keys of servers whose namespace, or its labels, cannot be watched, as the gateway's Secret has them: they go on being served.
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
    let keys = ctx.gateway_keys.keep_or_make(owner, own.as_ref())?;
    let named: BTreeSet<&String> =
        gateway.spec.authentication.api_keys.iter().map(|list| &list.secret_ref.name).collect();
    let mut api_keys = BTreeMap::new();
    for secret in named {
        let found = ctx.cluster.get::<Secret>(namespace, secret).await?;
        api_keys.insert(secret.clone(), found.map(|found| found.data.unwrap_or_default()));
    }
    let pods = ctx.cluster.list::<Pod>(namespace, &format!("{}={name}", labels::GATEWAY)).await?;
    let (known, mut unknown) = ctx.stores.servers().await;
    unknown.extend(unlabelled(gateway, &ctx.config.tenant_namespaces, &ctx.gateways.namespaces()));
    let copies = own.and_then(|secret| secret.data).unwrap_or_default();
    let (selected, bad_selector) = select(gateway, known, ctx);
    let servers = stream::iter(selected.into_iter().map(|server| with_mac(server, &copies, ctx)));
    let mut servers: Vec<SelectedServer> = servers.buffer_unordered(PARALLEL).try_collect().await?;
    servers.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    let kept_macs = kept_macs(copies, &unknown);
    let replicas = ctx.gateways.ready_replicas_of(&format!("{namespace}/{name}"));
    let replicas = replicas.into_iter().map(|replica| {
        let report = ctx.loaded.gateway(&replica.uid);
        (replica, report)
    });
    Ok(Observed { keys, api_keys, servers, kept_macs, bad_selector, pods, replicas: replicas.collect() })
}

/// Namespaces of which nobody can tell yet whether the gateway selects them.
fn unlabelled(gateway: &MCPGateway, enrolled: &[String], known: &Namespaces) -> Vec<String> {
    if gateway.spec.servers.namespace_selector.is_none() {
        return Vec::new();
    }
    enrolled.iter().filter(|namespace| !known.contains_key(*namespace)).cloned().collect()
}

/// The keys of every server of the `unknown` namespaces.
fn kept_macs(copies: BTreeMap<String, ByteString>, unknown: &[String]) -> BTreeMap<String, ByteString> {
    let is_kept = |key: &str| unknown.iter().any(|namespace| key.starts_with(&secret_key::server(namespace, "")));
    copies.into_iter().filter(|(key, _)| is_kept(key)).collect()
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

async fn with_mac(
    server: MCPServer,
    copies: &BTreeMap<String, ByteString>,
    ctx: &Ctx,
) -> Result<SelectedServer, Error> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let uid = server.uid().unwrap_or_default();
    let mac = ctx.macs.get(&ctx.cluster, &namespace, &name, &uid).await?;
    let mac = mac.or_else(|| copy_of(&server, copies));
    let age = server.creation_timestamp().map(|made| Timestamp::now().duration_since(made.0));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    Ok(SelectedServer { namespace, name, mac, age })
}

/// The gateway's own copy of the key of a server that serves though its Secret is gone: its reconciler makes that again
/// from this copy, and until then its pods and sessions must not lose the gateway.
fn copy_of(server: &MCPServer, copies: &BTreeMap<String, ByteString>) -> Option<Vec<u8>> {
    let copy = copies.get(&secret_key::server(&server.namespace()?, &server.name_any()))?;
    macs::has_run(server).then(|| copy.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_servers_whose_namespace_cannot_be_watched_are_kept_and_no_others() {
        let keys = ["server.a.x", "server.ab.x", "server.b.y", "session.0"];
        let copies = keys.into_iter().map(|key| (key.to_owned(), ByteString(vec![1]))).collect();
        let kept = kept_macs(copies, &["a".to_owned()]);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["server.a.x"]);
        assert!(kept_macs(BTreeMap::new(), &["a".to_owned()]).is_empty());
    }

    #[test]
    fn a_namespace_whose_labels_are_not_known_yet_is_not_taken_for_one_that_is_not_selected() {
        let gateway = |servers| {
            let spec = serde_json::json!({"authentication": {"anonymous": {}}, "servers": servers});
            let metadata = serde_json::json!({"namespace": "p", "name": "g"});
            serde_json::from_value::<MCPGateway>(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let enrolled = ["a".to_owned(), "b".to_owned()];
        let known = Namespaces::from([("a".to_owned(), BTreeMap::new())]);
        let selecting = gateway(serde_json::json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}));
        assert_eq!(unlabelled(&selecting, &enrolled, &known), ["b"]);
        assert!(unlabelled(&gateway(serde_json::json!({})), &enrolled, &known).is_empty());
    }

    #[test]
    fn a_server_that_serves_keeps_its_key_while_its_secret_is_gone_and_a_new_one_of_its_name_does_not_inherit_it() {
        let copies = BTreeMap::from([("server.a.x".to_owned(), ByteString(vec![1]))]);
        let manifest = |status| {
            serde_json::from_value::<MCPServer>(serde_json::json!({
                "metadata": {"namespace": "a", "name": "x"},
                "spec": {"container": {"image": "i", "transport": "Stdio", "command": ["c"]}},
                "status": status,
            }))
            .unwrap()
        };
        let revision = serde_json::json!({"name": "x-1", "state": "Serving", "weight": 100, "generation": 1});
        let serving = manifest(serde_json::json!({"revisions": [revision]}));
        assert_eq!(copy_of(&serving, &copies), Some(vec![1]));
        assert_eq!(copy_of(&manifest(serde_json::json!({})), &copies), None);
        assert_eq!(copy_of(&serving, &BTreeMap::new()), None);
    }
}
