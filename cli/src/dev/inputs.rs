//! The objects that a gateway would read from the API server, made from files and running revisions.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_crds::gateway::{Anonymous, Authentication};
use portolan_crds::server::{Revision as RevisionStatus, RevisionState};
use portolan_crds::{MCPGateway, MCPGatewaySpec, MCPServer, MCPServerStatus, labels};
use portolan_snapshot::inputs::secret_key;
use portolan_snapshot::{ClusterDomain, Inputs};

use super::files::Objects;
use super::fleet::{Fleet, Server};
use super::keys::{self, NoRandomness};
use super::objects::Name;
use super::problem::Problem;
use super::revision::Revision;
use super::toolsets;

/// What is the same for as long as `dev` runs.
#[derive(Debug)]
pub(super) struct Identity {
    uid: String,
    session: [u8; 32],
    seal: [u8; 32],
    /// The key of the stream on which the gateway tells what it has loaded.
    pub(super) stream: [u8; 32],
}

impl Identity {
    /// Fresh keys.
    pub(super) fn new() -> Result<Self, NoRandomness> {
        Ok(Self { uid: keys::uid()?, session: keys::key()?, seal: keys::key()?, stream: keys::key()? })
    }
}

/// Everything that the gateway serves from, and what is wrong with its credentials.
pub(super) fn inputs(identity: &Identity, objects: &Objects, fleet: &Fleet) -> (Inputs, Vec<Problem>) {
    let mut secret: BTreeMap<String, ByteString> = BTreeMap::new();
    let mut add = |key: String, bytes: &[u8]| _ = secret.insert(key, ByteString(bytes.to_vec()));
    add(secret_key::session(0), &identity.session);
    add(secret_key::SEAL.to_owned(), &identity.seal);
    add(secret_key::STREAM.to_owned(), &identity.stream);
    for (name, server) in &fleet.servers {
        add(secret_key::server(&name.namespace, &name.name), &server.mac);
    }
    let problems = add_api_keys(objects, &mut secret);
    let namespaces = fleet.servers.keys().chain(objects.toolsets.keys()).map(|name| {
        // Kubernetes puts this label on every namespace.
        let label = ("kubernetes.io/metadata.name".to_owned(), name.namespace.clone());
        (name.namespace.clone(), BTreeMap::from([label]))
    });
    let inputs = Inputs {
        gateway: gateway(identity, objects),
        cluster_domain: ClusterDomain::default(),
        servers: fleet.servers.iter().map(|(name, server)| with_status(name, server)).collect(),
        unreadable: Vec::new(),
        toolsets: toolsets::objects(objects),
        unreadable_toolsets: Vec::new(),
        namespaces: namespaces.collect(),
        slices: fleet.servers.iter().flat_map(|(name, server)| slices(name, server)).collect(),
        secret,
    };
    (inputs, problems)
}

/// Copies the hashes of API keys to where the operator would put them.
fn add_api_keys(objects: &Objects, secret: &mut BTreeMap<String, ByteString>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some((name, gateway)) = &objects.gateway else { return problems };
    for (index, list) in gateway.object.spec.authentication.api_keys.iter().enumerate() {
        let holder = name.sibling(&list.secret_ref.name);
        let Some(data) = objects.secrets.get(&holder) else {
            let path = format!("spec.authentication.apiKeys[{index}].secretRef.name");
            problems.push(gateway.origin.problem(&path, format!("the files have no Secret {holder}")));
            continue;
        };
        let entries =
            data.iter().map(|(entry, hash)| (secret_key::api_key(&list.name, entry), ByteString(hash.clone())));
        secret.extend(entries);
    }
    problems
}

/// The gateway of the files, or one that lets in whoever can reach loopback; nobody while the files may have one that
/// cannot be read.
fn gateway(identity: &Identity, objects: &Objects) -> MCPGateway {
    let mut gateway = match &objects.gateway {
        Some((name, gateway)) => {
            let mut object = gateway.object.clone();
            object.metadata.namespace = Some(name.namespace.clone());
            object
        }
        None => {
            let anonymous = objects.unread_gateway.is_none().then_some(Anonymous {});
            let authentication = Authentication { anonymous, ..Authentication::default() };
            let spec = MCPGatewaySpec {
                replicas: 1,
                authentication,
                servers: portolan_crds::gateway::ServerSelection::default(),
                http: portolan_crds::gateway::Http::default(),
            };
            let mut gateway = MCPGateway::new("dev", spec);
            gateway.metadata.namespace = Some("default".into());
            gateway
        }
    };
    gateway.metadata.uid = Some(identity.uid.clone());
    gateway.metadata.generation = Some(1);
    gateway
}

fn with_status(name: &Name, server: &Server) -> MCPServer {
    let mut object = MCPServer::new(&name.name, server.spec.clone());
    object.metadata = ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        uid: Some(server.uid.clone()),
        generation: Some(server.generation),
        labels: Some(server.labels.clone()),
        ..ObjectMeta::default()
    };
    let revisions = server.revisions.iter().map(|revision| RevisionStatus {
        name: revision.name.clone(),
        state: revision.state,
        weight: if revision.state == RevisionState::Serving { 100 } else { 0 },
        generation: revision.generation,
    });
    object.status = Some(MCPServerStatus { revisions: revisions.collect(), ..MCPServerStatus::default() });
    object
}

fn slices(name: &Name, server: &Server) -> impl Iterator<Item = EndpointSlice> {
    server.revisions.iter().filter_map(|revision| slice(name, revision))
}

fn slice(name: &Name, revision: &Revision) -> Option<EndpointSlice> {
    let address = revision.address?;
    let labels = [(labels::SERVER, name.name.clone()), (labels::REVISION, revision.name.clone())];
    Some(EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", revision.name, revision.uid)),
            namespace: Some(name.namespace.clone()),
            labels: Some(labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        endpoints: vec![Endpoint {
            addresses: vec![address.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(revision.health.ready),
                serving: Some(revision.health.ready),
                terminating: Some(false),
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                name: Some(revision.name.clone()),
                namespace: Some(name.namespace.clone()),
                uid: Some(revision.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(vec![EndpointPort {
            name: Some("data".into()),
            port: Some(address.port().into()),
            ..EndpointPort::default()
        }]),
    })
}
