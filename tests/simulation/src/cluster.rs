//! The cluster as its API server has it: two servers, their revisions and pods. Replicas learn of it late.

use std::sync::Arc;

use k8s_openapi::ByteString;
use portolan_mcp::mac::MacKey;
use portolan_snapshot::{Inputs, Snapshot, compile, inputs::secret_key};
use serde_json::{Value, json};

/// The servers, by number.
pub(crate) const SERVERS: [&str; 2] = ["alpha", "beta"];
/// The one that runs elsewhere: its pods are relays.
pub(crate) const REMOTE: usize = 1;
/// The namespace of both.
pub(crate) const NAMESPACE: &str = "team";

/// A pod's object and the entry for it in an EndpointSlice.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) uid: String,
    pub(crate) server: usize,
    pub(crate) revision: u64,
    pub(crate) address: usize,
    /// Whether it was told to end.
    pub(crate) terminating: bool,
}

/// What there is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    objects: Objects,
    /// What a replica that has followed everything makes of it; nothing since the last change.
    compiled: Option<Arc<Snapshot>>,
    previous: Option<Arc<Snapshot>>,
}

/// The objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<Listed>,
    /// The revision of each server that takes new sessions.
    pub(crate) serving: [u64; 2],
}

/// What the bridges of a server are spoken to with.
pub(crate) fn mac_of(server: usize) -> MacKey {
    MacKey::new(&key_of(server)).expect("32 bytes")
}

fn key_of(server: usize) -> [u8; 32] {
    [10 + u8::try_from(server).expect("two servers"); 32]
}

pub(crate) fn revision_name(server: usize, revision: u64) -> String {
    format!("{}-{revision:08x}", SERVERS[server])
}

impl Cluster {
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The objects, to be changed.
    pub(crate) fn change(&mut self) -> &mut Objects {
        self.previous = self.compiled.take().or(self.previous.take());
        &mut self.objects
    }

    /// What a replica that has followed everything serves from.
    pub(crate) fn followed(&mut self) -> Arc<Snapshot> {
        let compiled = self.compiled.take().unwrap_or_else(|| self.compile(self.previous.as_deref()));
        self.compiled.insert(compiled).clone()
    }

    /// What a replica that has just started serves from.
    pub(crate) fn fresh(&self) -> Arc<Snapshot> {
        self.compile(None)
    }

    fn compile(&self, previous: Option<&Snapshot>) -> Arc<Snapshot> {
        Arc::new(compile(&self.objects.inputs(), previous).expect("there are session keys").snapshot)
    }
}

impl Objects {
    fn inputs(&self) -> Inputs {
        let inputs = json!({
            "gateway": {
                "metadata": {"namespace": "platform", "name": "default", "uid": "gateway"},
                "spec": {"authentication": {"anonymous": {}}},
            },
            "servers": (0..SERVERS.len()).map(|server| self.server(server)).collect::<Vec<_>>(),
            "slices": self.pods.iter().map(slice).collect::<Vec<_>>(),
            "secret": {},
        });
        let mut inputs: Inputs = serde_json::from_value(inputs).expect("inputs");
        inputs.secret.insert(secret_key::session(0), ByteString(vec![1; 32]));
        inputs.secret.insert(secret_key::STREAM.into(), ByteString(vec![2; 32]));
        for (server, name) in SERVERS.iter().enumerate() {
            inputs.secret.insert(secret_key::server(NAMESPACE, name), ByteString(key_of(server).into()));
        }
        inputs
    }

    fn server(&self, server: usize) -> Value {
        let serving = self.serving[server];
        let mut revisions: Vec<u64> =
            self.pods.iter().filter(|pod| pod.server == server).map(|pod| pod.revision).chain([serving]).collect();
        revisions.sort_unstable();
        revisions.dedup();
        let revisions = revisions.into_iter().map(|revision| {
            let (state, weight) = if revision == serving { ("Serving", 100) } else { ("Draining", 0) };
            json!({"name": revision_name(server, revision), "state": state, "weight": weight, "generation": 1})
        });
        let spec = match server {
            REMOTE => json!({"remote": {"url": "https://mcp.example.com/mcp"}}),
            _ => json!({"container": {"image": "x", "transport": "Stdio", "command": ["x"]}}),
        };
        json!({
            "metadata": {"namespace": NAMESPACE, "name": SERVERS[server], "uid": SERVERS[server], "generation": 1},
            "spec": spec,
            "status": {"revisions": revisions.collect::<Vec<_>>()},
        })
    }
}

fn slice(pod: &Listed) -> Value {
    let revision = revision_name(pod.server, pod.revision);
    json!({
        "metadata": {"namespace": NAMESPACE, "name": pod.uid, "labels": {
            "portolan.dev/server": SERVERS[pod.server], "portolan.dev/revision": revision,
        }},
        "addressType": "IPv4",
        "ports": [{"name": "data", "port": 8700}],
        "endpoints": [{
            "addresses": [format!("10.0.0.{}", pod.address)],
            "conditions": {"ready": !pod.terminating, "serving": true, "terminating": pod.terminating},
            "targetRef": {"kind": "Pod", "name": pod.uid, "uid": pod.uid},
        }],
    })
}
