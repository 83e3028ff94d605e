//! The Secret with which gateways and the operator authenticate to the bridges of a server, and they to them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::Parts;
use crate::macs;

pub(super) fn secret(parts: &Parts<'_>) -> Secret {
    Secret {
        metadata: parts.metadata(macs::secret_name(parts.server)),
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(macs::ENTRY.to_owned(), ByteString(parts.validated.mac.0.to_vec()))])),
        ..Secret::default()
    }
}
