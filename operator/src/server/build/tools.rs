//! The tool definitions of a revision, kept for comparisons and for times when no pod can be asked.

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use portolan_crds::conditions::reasons;
use ring::digest::{SHA256, digest};

use super::Parts;
use crate::{error::Error, hex::hex, server::observed::Definitions};

/// The key that holds the JSON array; gzip in `binaryData`, plain in `data`.
const KEY: &str = "tools.json";
/// Definitions of more bytes are compressed.
const PLAIN_BYTES: usize = 512 * 1024;
/// What a ConfigMap can hold, less room for its metadata.
const MOST_BYTES: usize = 1000 * 1024;
/// Annotation: the bridge's hash of the definitions.
const HASH: &str = "portolan.dev/tools-hash";
/// Annotation: digest of what is stored, so that an edit by hand is noticed.
const STORED: &str = "portolan.dev/tools-stored";

/// Name of the ConfigMap of that revision.
pub(in crate::server) fn name(revision: &str) -> String {
    format!("{revision}-tools")
}

/// The ConfigMap. Definitions that do not fit even when compressed are left out; their hash is not.
pub(super) fn config_map(parts: &Parts<'_>, revision: &str, definitions: &Definitions) -> Result<ConfigMap, Error> {
    let mut metadata = parts.revision_metadata(revision);
    metadata.name = Some(name(revision));
    let mut config_map = ConfigMap { metadata, ..ConfigMap::default() };
    if definitions.json.len() <= PLAIN_BYTES {
        config_map.data = Some(BTreeMap::from([(KEY.to_owned(), definitions.json.clone())]));
    } else {
        let compressed =
            gzip(&definitions.json).map_err(|error| Error::transient(reasons::INVALID, error.to_string()))?;
        if compressed.len() <= MOST_BYTES {
            config_map.binary_data = Some(BTreeMap::from([(KEY.to_owned(), ByteString(compressed))]));
        } else {
            tracing::warn!(revision, bytes = compressed.len(), "tool definitions are too large for a ConfigMap");
        }
    }
    let annotations = [(HASH.to_owned(), definitions.hash.clone()), (STORED.to_owned(), content_digest(&config_map))];
    config_map.metadata.annotations = Some(annotations.into());
    Ok(config_map)
}

/// The bridge's hash of the definitions that a ConfigMap holds; `None` when someone else changed them.
pub(in crate::server) fn stored_hash(config_map: &ConfigMap) -> Option<&str> {
    let annotations = config_map.metadata.annotations.as_ref()?;
    let untouched = annotations.get(STORED) == Some(&content_digest(config_map));
    annotations.get(HASH).map(String::as_str).filter(|_| untouched)
}

fn content_digest(config_map: &ConfigMap) -> String {
    let plain = config_map.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
    let binary = config_map.binary_data.iter().flatten().map(|(key, value)| (key, value.0.as_slice()));
    let mut bytes = Vec::new();
    for (key, value) in plain.chain(binary) {
        bytes.extend(key.as_bytes());
        bytes.extend(value.len().to_be_bytes());
        bytes.extend(value);
    }
    hex(&digest(&SHA256, &bytes).as_ref()[..8])
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
