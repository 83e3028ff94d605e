//! The gateway's one Secret: its own keys, the keys of its servers, and hashes of API keys.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use portolan_snapshot::inputs::secret_key;

use super::{Observed, Parts, Validated};

pub(super) fn secret(parts: &Parts<'_>, validated: &Validated, observed: &Observed) -> Secret {
    let mut data = observed.keys.clone();
    data.extend(observed.kept_macs.clone());
    data.extend(validated.api_keys.clone());
    data.extend(observed.servers.iter().filter_map(|server| {
        let mac = server.mac.clone()?;
        Some((secret_key::server(&server.namespace, &server.name), ByteString(mac)))
    }));
    Secret { metadata: parts.metadata(), type_: Some("Opaque".into()), data: Some(data), ..Secret::default() }
}
