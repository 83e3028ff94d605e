//! The gateway's own keys: made once, kept for ever.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use portolan_crds::conditions::reasons;
use portolan_mcp::mac::KEY_LEN;
use portolan_snapshot::inputs::secret_key;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::Error;

/// Name of the key that authenticates the operator's stream, in the gateway's Secret.
pub const STREAM_KEY: &str = secret_key::STREAM;

/// The keys that the Secret holds already, and new ones for those it lacks. Every session key that is there is kept:
/// a token sealed by any of them stays good.
pub(super) fn keep_or_make(existing: Option<&Secret>) -> Result<BTreeMap<String, ByteString>, Error> {
    let data = existing.and_then(|secret| secret.data.as_ref());
    let is_key = |bytes: &ByteString| bytes.0.len() == KEY_LEN;
    let mut keys: BTreeMap<String, ByteString> = data
        .into_iter()
        .flatten()
        .filter(|(name, bytes)| name.starts_with(secret_key::SESSION_PREFIX) && is_key(bytes))
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect();
    for name in [secret_key::session(0), secret_key::SEAL.to_owned(), secret_key::STREAM.to_owned()] {
        if keys.contains_key(&name) {
            continue;
        }
        let kept = data.and_then(|data| data.get(&name)).filter(|bytes| is_key(bytes)).cloned();
        keys.insert(name, kept.map_or_else(random, Ok)?);
    }
    Ok(keys)
}

fn random() -> Result<ByteString, Error> {
    let mut key = vec![0; KEY_LEN];
    let failed = |_| Error::transient(reasons::PENDING, "the system has no random numbers for a key");
    SystemRandom::new().fill(&mut key).map_err(failed)?;
    Ok(ByteString(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, usize)]) -> Secret {
        let data = entries.iter().map(|(name, length)| ((*name).to_owned(), ByteString(vec![7; *length])));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn keys_that_exist_are_kept_and_only_missing_or_damaged_ones_are_made() {
        let keys =
            keep_or_make(Some(&secret(&[("session.0", 32), ("session.1", 32), ("seal", 31), ("other", 32)]))).unwrap();
        let names: Vec<&str> = keys.keys().map(String::as_str).collect();
        assert_eq!(names, ["seal", "session.0", "session.1", "stream"]);
        assert_eq!(keys["session.0"].0, [7; 32]);
        assert_eq!(keys["session.1"].0, [7; 32]);
        assert_eq!(keys["seal"].0.len(), 32);
        assert_ne!(keys["seal"].0[..31], [7; 31]);
        assert_ne!(keys["seal"], keys["stream"]);
    }
}
