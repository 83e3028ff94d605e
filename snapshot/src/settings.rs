//! How one server is served, from its spec and its key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use portolan_crds::{MCPServer, server::Autoscaling};
use portolan_mcp::mac::{KEY_LEN, MacKey};

use crate::inputs::secret_key;
use crate::snapshot::{ObjectVersion, Settings};

/// Why the latest version of a server is not served.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServerProblem {
    /// This release does not know the object's shape.
    #[error("the object cannot be read by this gateway's release: {0}")]
    Unreadable(String),
    /// The operator has not copied the server's key yet, or it is damaged.
    #[error("the gateway's Secret has no {KEY_LEN}-byte key {0:?}; the operator writes it")]
    NoKey(String),
    /// Not an object that an API server made.
    #[error("the object has no {0}")]
    NoIdentity(&'static str),
}

impl ServerProblem {
    /// A word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::NoKey(_) => "NoKey",
            Self::NoIdentity(_) => "NoIdentity",
        }
    }
}

/// Settings of the server `name` in `namespace`.
pub(crate) fn settings(
    namespace: &str,
    name: &str,
    server: &MCPServer,
    secret: &BTreeMap<String, ByteString>,
) -> Result<Settings, ServerProblem> {
    let key = secret_key::server(namespace, name);
    let mac = secret.get(&key).and_then(|bytes| MacKey::new(&bytes.0)).ok_or(ServerProblem::NoKey(key))?;
    let uid = server.metadata.uid.as_deref().ok_or(ServerProblem::NoIdentity("metadata.uid"))?;
    let spec = &server.spec;
    Ok(Settings {
        version: ObjectVersion { uid: uid.into(), generation: server.metadata.generation.unwrap_or_default() },
        mac,
        request_timeout: spec.timeouts.request.as_std(),
        max_parallel_requests: spec.limits.max_parallel_requests as usize,
        max_pending_requests: spec.limits.max_pending_requests as usize,
        sessions: spec.sessions.type_,
        is_measured: spec.autoscaling.as_ref().is_some_and(|autoscaling| !autoscaling.is_by_usage()),
        activation: spec.autoscaling.as_ref().and_then(Autoscaling::sleep).map(|sleep| sleep.activation),
    })
}
