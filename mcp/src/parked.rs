//! The name of a call that waits for its client, as the client holds it between two rounds (SEP-2322): sealed, so that
//! any gateway replica finds the pod where the call waits, for the caller who made it and nobody else.
//!
//! Layout: `ptl1.` and base64url of `nonce (12) | AES-256-GCM(claims)`. The key is derived from the one that gateway and
//! bridge of a server share; the caller is authenticated but not carried.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::mac::MacKey;
use crate::token::SessionKey;

/// What every name of ours begins with: states that a server made itself pass untouched.
const PREFIX: &str = "ptl1.";
/// A longer text is none of ours.
const MAX_LEN: usize = 512;
/// What the key is derived for.
const LABEL: &[u8] = b"portolan request state v1";

/// Where a call waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// UID of the pod; empty outside of a cluster.
    #[serde(rename = "p")]
    pub pod: Box<str>,
    /// Which of its calls.
    #[serde(rename = "c")]
    pub call: Box<str>,
}

/// What a `requestState` turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// The name of a call of ours.
    Ours(Parked),
    /// The server's own: none of our business.
    Foreign,
    /// It looks like ours, and was not made for this caller and server.
    Refused,
}

/// Seals and opens the names of one server's calls.
pub struct ParkingKey(LessSafeKey);

impl std::fmt::Debug for ParkingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ParkingKey(..)")
    }
}

impl ParkingKey {
    /// The key of the server whose bridges `key` speaks to.
    #[must_use]
    pub fn of(key: &MacKey) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &key.derived(LABEL)).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Seals `parked` for `caller`; `None` where the system has no randomness to give.
    #[must_use]
    pub fn seal(&self, parked: &Parked, caller: &SessionKey) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = serde_json::to_vec(parked).ok()?;
        let caller = Aad::from(caller.as_str().as_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), caller, &mut sealed).ok()?;
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())))
    }

    /// Opens what `caller` presents.
    #[must_use]
    pub fn open(&self, state: &str, caller: &SessionKey) -> Opened {
        let Some(text) = state.strip_prefix(PREFIX).filter(|text| text.len() <= MAX_LEN) else {
            return Opened::Foreign;
        };
        self.unseal(text, caller).map_or(Opened::Refused, Opened::Ours)
    }

    fn unseal(&self, text: &str, caller: &SessionKey) -> Option<Parked> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let caller = Aad::from(caller.as_str().as_bytes());
        let plain = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), caller, &mut sealed).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ParkingKey {
        ParkingKey::of(&MacKey::new(&[byte; 32]).expect("32 bytes")).expect("a key")
    }

    #[test]
    fn a_parked_call_is_found_by_its_caller_at_its_server_only() {
        let (alice, bob) = (SessionKey::generate().expect("random"), SessionKey::generate().expect("random"));
        let parked = Parked { pod: "8c9f5a0e".into(), call: "7".into() };
        let state = key(1).seal(&parked, &alice).expect("sealed");
        assert_eq!(key(1).open(&state, &alice), Opened::Ours(parked));
        assert_eq!(key(1).open(&state, &bob), Opened::Refused);
        assert_eq!(key(2).open(&state, &alice), Opened::Refused);
        assert_eq!(key(1).open(&state[..state.len() - 1], &alice), Opened::Refused);
        assert_eq!(key(1).open("ptl1.", &alice), Opened::Refused);
        for foreign in ["", "x", "PTL1.x", &format!("ptl1.{}", "x".repeat(1000))] {
            assert_eq!(key(1).open(foreign, &alice), Opened::Foreign);
        }
    }
}
