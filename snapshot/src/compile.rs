//! `Inputs` → `Snapshot`. Failure is per object: a server whose latest version is not good keeps its last good one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use portolan_crds::{
    MCPGateway, MCPServer,
    server::{Revision, RevisionState},
};
use portolan_mcp::{
    mac::MacKey,
    token::{KEY_LEN, Keyring},
};
use portolan_policy::hosts::{BadRule, HostRules};

pub use crate::settings::ServerProblem;

use crate::authentication::authentication;
use crate::cluster_domain::ClusterDomain;
use crate::inputs::{Inputs, Unreadable, secret_key};
use crate::pods;
use crate::select::{self, BadSelector};
use crate::settings::settings;
use crate::snapshot::{Canary, Http, ObjectVersion, Pod, Route, RouteName, Snapshot};
use crate::toolset::{self, Toolset, ToolsetProblem};

/// What came of compiling.
#[derive(Debug)]
pub struct Compiled {
    /// What to serve.
    pub snapshot: Snapshot,
    /// What is wrong with the objects.
    pub diagnostics: Diagnostics,
}

/// What is wrong with the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Of the gateway's own object and Secret.
    pub gateway: Vec<GatewayProblem>,
    /// Of servers. One that has a route besides is served in its last good version.
    pub servers: BTreeMap<RouteName, ServerProblem>,
    /// Of toolsets, by `namespace/name`.
    pub toolsets: BTreeMap<RouteName, Vec<ToolsetProblem>>,
}

/// What is wrong with the gateway's own object or Secret, each with what is done about it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GatewayProblem {
    /// An API key's hash cannot be read: the key lets nobody in.
    #[error(
        "apiKeys {list}: entry {entry:?} of its Secret is no key's hash; write \"sha256:\" and 64 hexadecimal digits"
    )]
    BadApiKey {
        /// The list.
        list: String,
        /// The Secret's entry.
        entry: String,
    },
    /// Two entries have the same key: it stands for the later one.
    #[error("apiKeys {list}: entries {entry:?} and {other:?} have the same key; make a key for each")]
    SharedApiKey {
        /// The list of the later entry.
        list: String,
        /// The later entry.
        entry: String,
        /// The earlier entry.
        other: String,
    },
    /// An entry of the host rules cannot be read: it admits nobody.
    #[error(transparent)]
    Http(#[from] BadRule),
    /// A selector cannot be read: it selects nothing.
    #[error("servers: {0}")]
    Selector(#[from] BadSelector),
    /// No usable session keys: those of the snapshot before stay in use.
    #[error("the gateway's Secret has no usable session keys, the earlier ones stay in use; {0}")]
    SessionKeys(#[from] Unusable),
    /// The stream's key is absent or damaged: the operator is not answered.
    #[error("the gateway's Secret has no {KEY_LEN}-byte key \"stream\"")]
    NoStreamKey,
}

/// How many pods that are gone a route remembers: only sessions of the last seconds are asked after by their pods' names.
const MAX_DEPARTED: usize = 128;

/// Why nothing can be served, and nothing was before.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the Secret needs a {KEY_LEN}-byte entry \"session.0\", and each further session.<n> of the same length")]
pub struct Unusable;

/// Compiles `inputs`. What is wrong with one object never changes how another is served; what was good in `previous`
/// is kept where the latest version is not.
///
/// # Errors
/// There are no keys to seal sessions with, and there were none before.
pub fn compile(inputs: &Inputs, previous: Option<&Snapshot>) -> Result<Compiled, Unusable> {
    let mut diagnostics = Diagnostics::default();
    let keyring = match keyring(inputs) {
        Ok(keyring) => Arc::new(keyring),
        Err(unusable) => {
            let previous = previous.ok_or(unusable)?;
            diagnostics.gateway.push(unusable.into());
            previous.keyring.clone()
        }
    };
    let routes = routes(inputs, previous, &mut diagnostics);
    let snapshot = Snapshot {
        generation: previous.map_or(0, |previous| previous.generation) + 1,
        gateway: ObjectVersion {
            uid: inputs.gateway.metadata.uid.as_deref().unwrap_or_default().into(),
            generation: inputs.gateway.metadata.generation.unwrap_or_default(),
        },
        toolsets: toolset::toolsets(inputs, previous, &routes, &mut diagnostics.toolsets),
        routes,
        authentication: authentication(&inputs.gateway, &inputs.secret, &mut diagnostics.gateway),
        http: http(inputs, &mut diagnostics.gateway),
        keyring,
        stream_key: stream_key(inputs, &mut diagnostics.gateway),
    };
    Ok(Compiled { snapshot, diagnostics })
}

/// Session keys in the order of their numbers, the first without a gap before it.
fn keyring(inputs: &Inputs) -> Result<Keyring, Unusable> {
    let keys = (0..).map_while(|index| inputs.secret.get(&secret_key::session(index)));
    Keyring::new(keys.map(|key| key.0.as_slice())).map_err(|_| Unusable)
}

fn stream_key(inputs: &Inputs, problems: &mut Vec<GatewayProblem>) -> Option<MacKey> {
    let key = inputs.secret.get(secret_key::STREAM).and_then(|bytes| MacKey::new(&bytes.0));
    if key.is_none() {
        problems.push(GatewayProblem::NoStreamKey);
    }
    key
}

fn http(inputs: &Inputs, problems: &mut Vec<GatewayProblem>) -> Http {
    let own = service_names(&inputs.gateway, &inputs.cluster_domain);
    let spec = &inputs.gateway.spec.http;
    let (rules, bad) = HostRules::new(own.iter().map(String::as_str), &spec.allowed_hosts, &spec.allowed_origins);
    problems.extend(bad.into_iter().map(GatewayProblem::from));
    Http { rules, max_body_bytes: spec.max_body_bytes.try_into().unwrap_or(usize::MAX) }
}

/// The names under which a cluster's DNS knows the gateway's Service.
fn service_names(gateway: &MCPGateway, domain: &ClusterDomain) -> Vec<String> {
    let (Some(name), Some(namespace)) = (&gateway.metadata.name, &gateway.metadata.namespace) else {
        return Vec::new();
    };
    let service = format!("portolan-gateway-{name}");
    let qualified = format!("{service}.{namespace}");
    vec![format!("{qualified}.svc.{domain}"), format!("{qualified}.svc"), qualified, service]
}

fn routes(
    inputs: &Inputs,
    previous: Option<&Snapshot>,
    diagnostics: &mut Diagnostics,
) -> HashMap<RouteName, Arc<Route>> {
    let mut pods = pods::by_server(&inputs.slices);
    let mut routes = HashMap::with_capacity(inputs.servers.len());
    // One that is being deleted takes its pods with it; nobody finds it any more, whatever holds it back.
    for server in inputs.servers.iter().filter(|server| server.metadata.deletion_timestamp.is_none()) {
        match select::selects(&inputs.gateway.spec.servers, &inputs.namespaces, server) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(bad) => {
                diagnostics.gateway.push(bad.into());
                return routes;
            }
        }
        let Some(namespace) = server.namespace() else { continue };
        let name = RouteName::new(&namespace, &server.name_any());
        let pods = pods.remove(&name).unwrap_or_default();
        if let Some(route) = route(name.clone(), server, pods, inputs, previous, diagnostics) {
            routes.insert(name, Arc::new(route));
        }
    }
    for unreadable in &inputs.unreadable {
        let Unreadable { namespace, name, uid, labels, message } = unreadable;
        match select::chooses(&inputs.gateway.spec.servers, &inputs.namespaces, namespace, labels) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(bad) => {
                diagnostics.gateway.push(bad.into());
                return routes;
            }
        }
        let name = RouteName::new(namespace, name);
        // An object that cannot be read cannot be asked for its revisions either: they stay as they were.
        if let Some(last) = last_of(previous, &name, uid.as_deref()) {
            let pods = pods.remove(&name).unwrap_or_default();
            let departed = departed(Some(last), &pods);
            routes.insert(name.clone(), Arc::new(Route { pods, departed, ..Route::clone(last) }));
        }
        diagnostics.servers.insert(name, ServerProblem::Unreadable(message.clone()));
    }
    routes
}

fn route(
    name: RouteName,
    server: &MCPServer,
    pods: HashMap<Box<str>, Pod>,
    inputs: &Inputs,
    previous: Option<&Snapshot>,
    diagnostics: &mut Diagnostics,
) -> Option<Route> {
    let target = name.target();
    let settings = match settings(target.namespace, target.server, server, &inputs.secret) {
        Ok(settings) => Arc::new(settings),
        Err(problem) => {
            diagnostics.servers.insert(name.clone(), problem);
            last_of(previous, &name, server.metadata.uid.as_deref())?.settings.clone()
        }
    };
    let revisions = server.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default();
    let departed = departed(previous.and_then(|previous| previous.routes.get(&name)).map(Arc::as_ref), &pods);
    let alone = settings.activation.map(|_| Toolset::alone(name.clone(), settings.version.clone()).into());
    Some(Route { serving: serving(revisions), canary: canary(revisions), settings, pods, departed, alone, name })
}

/// The pods that are gone since `previous`, and those that were before.
fn departed(previous: Option<&Route>, pods: &HashMap<Box<str>, Pod>) -> Vec<Box<str>> {
    let known = previous.into_iter().flat_map(|previous| previous.departed.iter().chain(previous.pods.keys()));
    let mut departed: Vec<_> = known.filter(|uid| !pods.contains_key(*uid)).cloned().collect();
    departed.drain(..departed.len().saturating_sub(MAX_DEPARTED));
    departed
}

/// The route as it was served last. Another object of the same name is not an earlier version of this one.
fn last_of<'a>(previous: Option<&'a Snapshot>, name: &RouteName, uid: Option<&str>) -> Option<&'a Route> {
    let last = previous?.routes.get(name)?;
    (Some(&*last.settings.version.uid) == uid).then_some(last)
}

/// The revision that takes new sessions. While one takes over from another both may say that they serve: the one
/// with the greater weight does, and of equals the later.
fn serving(revisions: &[Revision]) -> Option<Box<str>> {
    revisions
        .iter()
        .filter(|revision| revision.state == RevisionState::Serving)
        .max_by_key(|revision| (revision.weight, revision.generation))
        .map(|revision| revision.name.as_str().into())
}

/// The revision that takes a share of new sessions.
fn canary(revisions: &[Revision]) -> Option<Canary> {
    let takes_a_share = |revision: &&Revision| revision.state == RevisionState::Canary && revision.weight > 0;
    let latest = revisions.iter().filter(takes_a_share).max_by_key(|revision| revision.generation)?;
    Some(Canary { revision: latest.name.as_str().into(), weight: latest.weight.min(100) })
}
