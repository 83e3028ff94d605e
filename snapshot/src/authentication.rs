//! Who is let in, from the gateway's spec and Secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use portolan_crds::MCPGateway;
use portolan_policy::{
    api_key::{ApiKeys, Hash},
    identity::Identity,
};

use crate::compile::GatewayProblem;
use crate::inputs::secret_key;
use crate::snapshot::Authentication;

/// What the gateway's spec spells out and nothing else. A key that cannot be read lets nobody in.
pub(crate) fn authentication(
    gateway: &MCPGateway,
    secret: &BTreeMap<String, ByteString>,
    problems: &mut Vec<GatewayProblem>,
) -> Authentication {
    let spec = &gateway.spec.authentication;
    let mut api_keys = ApiKeys::default();
    for list in &spec.api_keys {
        let prefix = secret_key::api_key(&list.name, "");
        for (key, value) in secret {
            // A list's name has no dot, so one list's prefix never starts another's keys.
            let Some(subject) = key.strip_prefix(&prefix) else { continue };
            let hash = std::str::from_utf8(&value.0).ok().and_then(|text| text.parse::<Hash>().ok());
            let Some(hash) = hash else {
                problems.push(GatewayProblem::BadApiKey { list: list.name.clone(), entry: subject.to_owned() });
                continue;
            };
            let identity = Identity::new(format!("apikeys/{}", list.name), subject);
            if let Some(other) = api_keys.insert(hash, identity) {
                problems.push(GatewayProblem::SharedApiKey {
                    list: list.name.clone(),
                    entry: subject.to_owned(),
                    other: other.subject().into(),
                });
            }
        }
    }
    Authentication {
        api_keys,
        audiences: spec.service_accounts.as_ref().map(|accounts| accounts.audiences.clone()).unwrap_or_default().into(),
        anonymous: spec.anonymous.is_some(),
    }
}
