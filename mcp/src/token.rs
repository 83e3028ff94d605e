//! The session id that a client holds: sealed, so that any gateway replica can read it and nobody else can make one.
//!
//! Layout, base64url: `version (1) | key id (4) | nonce (12) | AES-256-GCM(claims)`, the claims as postcard writes them.
//! Principal, route and the kind of claims are authenticated but not carried: a token presented by someone else, on another
//! route or for another kind of session does not open.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// The header that carries the token (2025-11-25, "Session Management").
pub const HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// Length of a sealing key in bytes.
pub const KEY_LEN: usize = 32;

const VERSION: u8 = 2;
const KEY_ID_LEN: usize = 4;
/// A longer header is refused before anything is decoded.
const MAX_LEN: usize = 1024;
/// What is in a header of that length.
const MAX_BYTES: usize = MAX_LEN / 4 * 3;

/// Names one session between gateway and bridge: 128 random bits, base64url.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionKey(Box<str>);

impl SessionKey {
    /// A fresh key.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = [0u8; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes).into()))
    }

    /// The key of a caller without sessions: the same for all it asks of one route.
    #[must_use]
    pub fn of_caller(Binding { principal, route }: Binding<'_>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"portolan caller v1");
        context.update(principal);
        context.update(route.as_bytes());
        Self(URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..16]).into())
    }

    /// The key of what is kept for all callers together.
    #[must_use]
    pub fn of_everyone() -> Self {
        Self(URL_SAFE_NO_PAD.encode([0; 16]).into())
    }

    /// A key of its own for what belongs to this one and `part` alone.
    #[must_use]
    pub fn derived(&self, part: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"portolan part v1");
        context.update(self.0.as_bytes());
        context.update(part);
        Self(URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..16]).into())
    }

    /// Where the pod `uid` stands in this key's order of pods, which is the same on every replica and another one for the next
    /// key (rendezvous hashing).
    #[must_use]
    pub fn rank(&self, uid: &str) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.0.as_bytes());
        context.update(uid.as_bytes());
        let mut rank = [0; 32];
        rank.copy_from_slice(context.finish().as_ref());
        rank
    }

    /// Where this session stands among all of them by chance, from 0 to 99; the same for everyone who asks about `what`.
    #[must_use]
    pub fn percentile(&self, what: &str) -> u8 {
        let mut start = [0; 8];
        start.copy_from_slice(&self.rank(what)[..8]);
        // Below 100.
        (u64::from_be_bytes(start) % 100) as u8
    }

    /// Reads a key from a header; `None` unless it has the shape that [`Self::generate`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 16).then(|| Self(text.into()))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The session's name at the bridge.
    pub session: SessionKey,
    /// The revision that the session lives on.
    pub revision: Box<str>,
    /// UID of the pod that holds the session's state; `None` where any pod of the revision will do.
    pub pod: Option<Box<str>>,
    /// Unix seconds at which the session was opened.
    pub issued: u64,
    /// Unix seconds after which the token is void.
    pub expires: u64,
}

/// What the token of a session with several servers says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManyClaims {
    /// What the session's names at the servers' bridges derive from.
    pub session: SessionKey,
    /// Parameters with which sessions are opened at servers, JSON: what the client said of itself.
    pub client: Box<str>,
    /// Unix seconds after which the token is void.
    pub expires: u64,
}

/// What can be in a token.
pub trait Sealable: Serialize + serde::de::DeserializeOwned {
    /// Tells what it is from everything else that is sealed: what is written does not.
    const KIND: u8;

    /// Unix seconds after which the token is void.
    fn expires(&self) -> u64;
}

impl Sealable for Claims {
    const KIND: u8 = 1;

    fn expires(&self) -> u64 {
        self.expires
    }
}

impl Sealable for ManyClaims {
    const KIND: u8 = 2;

    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Whom and where a token is for; both must be presented again to open it.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Digest of issuer, subject and tenant.
    pub principal: &'a [u8; 32],
    /// The route, as `namespace/server`.
    pub route: &'a str,
}

/// Why a token was not made or not accepted. To a client every refusal is the same 404.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not base64url of the right shape, or too long.
    #[error("the session id is malformed")]
    Malformed,
    /// Made by a later or earlier release.
    #[error("the session id has an unknown version")]
    UnknownVersion,
    /// Sealed with a key that is no longer, or not yet, in the ring.
    #[error("the session id was sealed with an unknown key")]
    UnknownKey,
    /// Forged, altered, or presented by another principal or on another route.
    #[error("the session id does not belong to this caller and route")]
    NotYours,
    /// Past its time.
    #[error("the session id has expired")]
    Expired,
    /// No randomness to be had.
    #[error("the system gave no random bytes")]
    NoRandomness,
    /// A key of the wrong length, or none.
    #[error("a session key must be {KEY_LEN} bytes, and there must be at least one")]
    BadKey,
}

/// The sealing keys: the first seals, all open. Rotation puts a new key in front and drops the last one
/// when every token it sealed has expired.
pub struct Keyring {
    keys: Vec<([u8; KEY_ID_LEN], LessSafeKey)>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// A ring from raw keys, the sealing one first.
    ///
    /// # Errors
    /// There is no key, or one has the wrong length.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TokenError> {
        let keys = keys.into_iter().map(Self::load).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(TokenError::BadKey) } else { Ok(Self { keys }) }
    }

    fn load(bytes: &[u8]) -> Result<([u8; KEY_ID_LEN], LessSafeKey), TokenError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| TokenError::BadKey)?;
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest::digest(&digest::SHA256, bytes).as_ref()[..KEY_ID_LEN]);
        Ok((id, LessSafeKey::new(key)))
    }

    /// Seals `claims` for `binding`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn seal<C: Sealable>(&self, claims: &C, binding: Binding<'_>) -> Result<String, TokenError> {
        let (id, key) = self.keys.first().ok_or(TokenError::BadKey)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| TokenError::NoRandomness)?;
        let mut sealed = postcard::to_allocvec(claims).map_err(|_| TokenError::Malformed)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), associated::<C>(binding), &mut sealed)
            .map_err(|_| TokenError::BadKey)?;
        let mut token = Vec::with_capacity(1 + KEY_ID_LEN + NONCE_LEN + sealed.len());
        token.push(VERSION);
        token.extend_from_slice(id);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens a token presented by `binding` at `now` (Unix seconds).
    ///
    /// # Errors
    /// Says why the token is not accepted; the client is told none of it.
    pub fn open(&self, token: &str, binding: Binding<'_>, now: u64) -> Result<Claims, TokenError> {
        self.open_as(token, binding, now)
    }

    /// Opens a token that says `C`, as [`Self::open`] does.
    ///
    /// # Errors
    /// As there.
    pub fn open_as<C: Sealable>(&self, token: &str, binding: Binding<'_>, now: u64) -> Result<C, TokenError> {
        if token.len() > MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let mut bytes = [0; MAX_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).map_err(|_| TokenError::Malformed)?;
        let (&mut version, rest) = bytes[..length].split_first_mut().ok_or(TokenError::Malformed)?;
        if version != VERSION {
            return Err(TokenError::UnknownVersion);
        }
        let (id, rest) = rest.split_first_chunk_mut::<KEY_ID_LEN>().ok_or(TokenError::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_LEN>().ok_or(TokenError::Malformed)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == id).ok_or(TokenError::UnknownKey)?;
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated::<C>(binding), sealed)
            .map_err(|_| TokenError::NotYours)?;
        let claims: C = postcard::from_bytes(plain).map_err(|_| TokenError::Malformed)?;
        if claims.expires() <= now { Err(TokenError::Expired) } else { Ok(claims) }
    }
}

fn associated<C: Sealable>(Binding { principal, route }: Binding<'_>) -> Aad<Vec<u8>> {
    let mut data = Vec::with_capacity(2 + principal.len() + route.len());
    data.extend([VERSION, C::KIND]);
    data.extend_from_slice(principal);
    data.extend_from_slice(route.as_bytes());
    Aad::from(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALICE: Binding<'static> = Binding { principal: &[1; 32], route: "default/everything" };

    fn ring(keys: &[[u8; KEY_LEN]]) -> Keyring {
        Keyring::new(keys.iter().map(<[u8; KEY_LEN]>::as_slice)).expect("good keys")
    }

    fn claims() -> Claims {
        Claims {
            session: SessionKey::generate().expect("random"),
            revision: "everything-0a1b2c3d".into(),
            pod: Some("8c9f5a0e-0b57-4b0e-9d3c-0e6c3a9c6c11".into()),
            issued: 10,
            expires: 1_000,
        }
    }

    #[test]
    fn a_token_opens_for_its_caller_on_its_route_only() {
        let ring = ring(&[[9; KEY_LEN]]);
        let claims = claims();
        let token = ring.seal(&claims, ALICE).expect("seals");
        assert!(token.len() <= 192, "{} bytes", token.len());
        assert_eq!(ring.open(&token, ALICE, 999), Ok(claims));
        let bob = Binding { principal: &[2; 32], ..ALICE };
        let elsewhere = Binding { route: "default/other", ..ALICE };
        assert_eq!(ring.open(&token, bob, 999), Err(TokenError::NotYours));
        assert_eq!(ring.open(&token, elsewhere, 999), Err(TokenError::NotYours));
        assert_eq!(ring.open(&token, ALICE, 1_000), Err(TokenError::Expired));
    }

    #[test]
    fn claims_of_one_kind_are_never_read_as_another() {
        let ring = ring(&[[9; KEY_LEN]]);
        let token = ring.seal(&claims(), ALICE).expect("seals");
        assert_eq!(ring.open_as::<ManyClaims>(&token, ALICE, 0), Err(TokenError::NotYours));
    }

    #[test]
    fn keys_rotate_without_ending_sessions() {
        let (old, new) = ([1; KEY_LEN], [2; KEY_LEN]);
        let token = ring(&[old]).seal(&claims(), ALICE).expect("seals");
        assert!(ring(&[new, old]).open(&token, ALICE, 0).is_ok());
        assert_eq!(ring(&[new]).open(&token, ALICE, 0), Err(TokenError::UnknownKey));
    }

    proptest! {
        #[test]
        fn no_altered_token_opens(position in 0usize..200, bit in 0u8..8) {
            let ring = ring(&[[9; KEY_LEN]]);
            let token = ring.seal(&claims(), ALICE).expect("seals");
            let mut bytes = URL_SAFE_NO_PAD.decode(token).expect("ours");
            let position = position % bytes.len();
            bytes[position] ^= 1 << bit;
            prop_assert!(ring.open(&URL_SAFE_NO_PAD.encode(bytes), ALICE, 0).is_err());
        }

        #[test]
        fn no_garbage_opens_or_panics(text in ".{0,300}") {
            prop_assert!(ring(&[[9; KEY_LEN]]).open(&text, ALICE, 0).is_err());
        }
    }
}
