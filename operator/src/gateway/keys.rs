//! The gateway's own keys: made once, kept for ever, and remembered: a Secret that someone deletes comes back as it was.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use portolan_crds::conditions::reasons;
use portolan_mcp::mac::KEY_LEN;
use portolan_snapshot::inputs::secret_key;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{apply::Owner, error::Error};

/// Name of the key that authenticates the operator's stream, in the gateway's Secret.
pub const STREAM_KEY: &str = secret_key::STREAM;

/// What each gateway's keys were at its last reconcile, by its namespace and name; those of a gateway that is seen to be
/// gone are forgotten.
#[derive(Default)]
pub struct KeyMemory(Mutex<HashMap<(String, String), Known>>);

struct Known {
    gateway_uid: String,
    keys: BTreeMap<String, ByteString>,
}

impl KeyMemory {
    /// The keys that the Secret holds, those that this gateway had before where it lacks them, and new ones otherwise.
    pub(super) fn keep_or_make(
        &self,
        gateway: &Owner,
        existing: Option<&Secret>,
    ) -> Result<BTreeMap<String, ByteString>, Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (gateway.namespace().to_owned(), gateway.name().to_owned());
        let before = known.get(&name).filter(|known| known.gateway_uid == gateway.uid()).map(|known| &known.keys);
        let keys = keep_or_make(existing.and_then(|secret| secret.data.as_ref()), before)?;
        known.insert(name, Known { gateway_uid: gateway.uid().to_owned(), keys: keys.clone() });
        Ok(keys)
    }

    /// A gateway is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

/// Every session key of the Secret is kept, as a token sealed by any of them stays good; one that was taken out of it
/// stays out, unless the whole Secret is gone.
fn keep_or_make(
    existing: Option<&BTreeMap<String, ByteString>>,
    before: Option<&BTreeMap<String, ByteString>>,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let data = existing.or(before);
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
        let kept = [data, before].into_iter().flatten().find_map(|keys| keys.get(&name).filter(|bytes| is_key(bytes)));
        keys.insert(name, kept.cloned().map_or_else(random, Ok)?);
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

    fn data(entries: &[(&str, usize)]) -> BTreeMap<String, ByteString> {
        entries.iter().map(|(name, length)| ((*name).to_owned(), ByteString(vec![7; *length]))).collect()
    }

    fn owner(uid: &str) -> Owner {
        let gateway = serde_json::json!({
            "metadata": {"namespace": "platform", "name": "default", "uid": uid},
            "spec": {"authentication": {"anonymous": {}}},
        });
        Owner::of(&serde_json::from_value::<portolan_crds::MCPGateway>(gateway).unwrap()).unwrap()
    }

    #[test]
    fn keys_that_exist_are_kept_and_only_missing_or_damaged_ones_are_made() {
        let existing = data(&[("session.0", 32), ("session.1", 32), ("seal", 31), ("other", 32)]);
        let keys = keep_or_make(Some(&existing), None).unwrap();
        let names: Vec<&str> = keys.keys().map(String::as_str).collect();
        assert_eq!(names, ["seal", "session.0", "session.1", "stream"]);
        assert_eq!(keys["session.0"].0, [7; 32]);
        assert_eq!(keys["session.1"].0, [7; 32]);
        assert_eq!(keys["seal"].0.len(), 32);
        assert_ne!(keys["seal"].0[..31], [7; 31]);
        assert_ne!(keys["seal"], keys["stream"]);
    }

    #[test]
    fn a_secret_that_was_deleted_comes_back_with_the_same_keys_and_another_gateway_gets_its_own() {
        let memory = KeyMemory::default();
        let mut rotated = data(&[("session.1", 32)]);
        rotated.extend(memory.keep_or_make(&owner("1"), None).unwrap());
        let secret = Secret { data: Some(rotated), ..Secret::default() };
        let keys = memory.keep_or_make(&owner("1"), Some(&secret)).unwrap();
        assert_eq!(memory.keep_or_make(&owner("1"), None).unwrap(), keys);
        assert_ne!(memory.keep_or_make(&owner("2"), None).unwrap()["session.0"], keys["session.0"]);
    }

    #[test]
    fn a_session_key_taken_out_of_the_secret_stays_out_and_a_damaged_one_is_mended() {
        let before = data(&[("session.0", 32), ("session.1", 32), ("seal", 32), ("stream", 32)]);
        let keys =
            keep_or_make(Some(&data(&[("session.0", 32), ("seal", 31), ("stream", 32)])), Some(&before)).unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["seal", "session.0", "stream"]);
        assert_eq!(keys["seal"], before["seal"]);
    }
}
