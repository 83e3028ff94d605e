//! API keys: `ptl_` and 256 random bits. Only their SHA-256 is ever stored; a plain hash is enough for a random key.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

use crate::identity::Identity;

/// What every key starts with: it is found by secret scanners, and tried by no other method.
pub const PREFIX: &str = "ptl_";

/// What every hash starts with.
const HASH_PREFIX: &str = "sha256:";

/// SHA-256 of a key, written as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

/// A hash that is not written as it should be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("write the SHA-256 of the key as \"sha256:\" and 64 hexadecimal digits (portolan apikey prints it)")]
pub struct BadHash;

impl Hash {
    /// The hash of a key as presented.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }
}

impl std::str::FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let hex = text.trim_end_matches(['\r', '\n']).strip_prefix(HASH_PREFIX).ok_or(BadHash)?.as_bytes();
        let mut hash = [0; 32];
        if hex.len() != 2 * hash.len() {
            return Err(BadHash);
        }
        for (byte, digits) in hash.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(digits[0])? << 4 | nibble(digits[1])?;
        }
        Ok(Self(hash))
    }
}

fn nibble(digit: u8) -> Result<u8, BadHash> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok()).ok_or(BadHash)
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The keys that a gateway accepts.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(HashMap<Hash, Identity>);

impl ApiKeys {
    /// Accepts the key behind `hash` as `identity`; the identity that had the hash before is returned.
    pub fn insert(&mut self, hash: Hash, identity: Identity) -> Option<Identity> {
        self.0.insert(hash, identity)
    }

    /// Whose key this is. The lookup is by hash: how long it takes says nothing about any stored key.
    #[must_use]
    pub fn identify(&self, key: &str) -> Option<&Identity> {
        self.0.get(&Hash::of(key))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Makes a key: `ptl_` and 43 base64url characters. The caller shows it once and stores [`Hash::of`] it.
///
/// # Errors
/// The system has no randomness to give.
pub fn generate() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_known_by_its_hash_alone() {
        let key = generate().expect("random");
        assert_eq!(key.len(), PREFIX.len() + 43);
        assert_ne!(key, generate().expect("random"));
        let hash: Hash = Hash::of(&key).to_string().parse().expect("reads what it writes");
        let mut keys = ApiKeys::default();
        assert!(keys.insert(hash, Identity::new("apikeys/ci", "alice")).is_none());
        assert_eq!(keys.identify(&key).map(Identity::subject), Some("alice"));
        assert_eq!(keys.identify(&format!("{key}x")), None);
        assert_eq!(keys.identify(&hash.to_string()), None, "the hash is not the key");
    }

    #[test]
    fn a_hash_is_read_as_documented_and_nothing_else_is() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        assert!(format!("sha256:{hex}").parse::<Hash>().is_ok());
        assert!(format!("sha256:{hex}\n").parse::<Hash>().is_ok(), "a Secret made from a file ends in a newline");
        for bad in [hex.clone(), format!("sha256:{hex}0"), format!("md5:{hex}"), format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(bad.parse::<Hash>(), Err(BadHash), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_the_one_that_sha256sum_prints() {
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of("abc").to_string(), known);
    }
}
