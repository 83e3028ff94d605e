//! The Secret with which gateways and the operator authenticate to the bridges of a server, and they to them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::Parts;

/// The Secret's only key.
pub(in crate::server) const MAC_KEY: &str = "mac";

/// Name of the Secret of that server.
pub(in crate::server) fn name(server: &str) -> String {
    format!("{server}-mac")
}

pub(super) fn secret(parts: &Parts<'_>) -> Secret {
    Secret {
        metadata: parts.metadata(name(parts.server)),
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(MAC_KEY.to_owned(), ByteString(parts.validated.mac.0.to_vec()))])),
        ..Secret::default()
    }
}
