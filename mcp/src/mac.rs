//! How gateway, operator and bridge authenticate each other: an HMAC over what a request asks for.
//!
//! NetworkPolicies are not relied upon: whoever can reach a port still needs the key of that server.
//! The header is `v1 t=<unix milliseconds> m=<HMAC-SHA256, base64url>`; the MAC covers version, method, path,
//! session key, pod and time, each ended by a newline.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use ring::hmac;

/// The header that carries the MAC.
pub const HEADER: HeaderName = HeaderName::from_static("portolan-mac");

/// How far apart two clocks may be, in milliseconds, before a MAC is refused as stale.
pub const WINDOW_MILLIS: u64 = 60_000;

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;

/// A shared key.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// Why a request's MAC was not accepted.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MacError {
    /// The header is absent.
    #[error("the portolan-mac header is missing")]
    Missing,
    /// The header does not have the shape `v1 t=… m=…`.
    #[error("the portolan-mac header is malformed or of an unknown version")]
    Malformed,
    /// Sender and receiver disagree about the time by more than the window.
    #[error("the portolan-mac header is too old or too new: compare the clocks")]
    Stale,
    /// Made with another key, or for another request.
    #[error("the portolan-mac header does not match the request")]
    Mismatch,
}

/// What a MAC speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// Path and query as sent.
    pub path: &'a str,
    /// The session key, or empty.
    pub session: &'a str,
    /// UID of the pod that is meant, or empty.
    pub pod: &'a str,
}

impl MacKey {
    /// A key from its bytes; `None` unless there are [`KEY_LEN`] of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == KEY_LEN).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// Another key, for what `label` says.
    #[must_use]
    pub(crate) fn derived(&self, label: &[u8]) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        key.copy_from_slice(hmac::sign(&self.0, label).as_ref());
        key
    }

    /// The header's value for `subject` at `now` (Unix milliseconds).
    #[must_use]
    pub fn sign(&self, subject: Subject<'_>, now: u64) -> String {
        let now = now.to_string();
        let mut header = String::with_capacity(80);
        header.extend(["v1 t=", &now, " m="]);
        URL_SAFE_NO_PAD.encode_string(hmac::sign(&self.0, covered(subject, &now).as_bytes()), &mut header);
        header
    }

    /// Checks a header's value against `subject` at `now` (Unix milliseconds).
    ///
    /// # Errors
    /// Says what is wrong with the header.
    pub fn verify(&self, header: Option<&str>, subject: Subject<'_>, now: u64) -> Result<(), MacError> {
        let Parsed { text, time, mac } = header.ok_or(MacError::Missing).and_then(parse)?;
        hmac::verify(&self.0, covered(subject, text).as_bytes(), &mac).map_err(|_| MacError::Mismatch)?;
        if time.abs_diff(now) > WINDOW_MILLIS {
            return Err(MacError::Stale);
        }
        Ok(())
    }
}

/// A header's value.
struct Parsed<'a> {
    /// The time as written.
    text: &'a str,
    /// Unix milliseconds.
    time: u64,
    mac: Vec<u8>,
}

fn parse(header: &str) -> Result<Parsed<'_>, MacError> {
    let rest = header.strip_prefix("v1 t=").ok_or(MacError::Malformed)?;
    let (text, mac) = rest.split_once(" m=").ok_or(MacError::Malformed)?;
    // One text for one time: a number has no sign and no zeros before it.
    let is_plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    let time = text.parse().ok().filter(|_| is_plain).ok_or(MacError::Malformed)?;
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| MacError::Malformed)?;
    Ok(Parsed { text, time, mac })
}

/// Joined, not formatted: it is made for every request, on both sides.
fn covered(Subject { method, path, session, pod }: Subject<'_>, time: &str) -> String {
    ["v1", method, path, session, pod, time, ""].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'static> = Subject { method: "POST", path: "/mcp", session: "k", pod: "p" };

    fn key() -> MacKey {
        MacKey::new(&[7; KEY_LEN]).expect("right length")
    }

    #[test]
    fn a_mac_speaks_for_one_request_of_one_key() {
        let header = key().sign(SUBJECT, 1_000);
        assert_eq!(key().verify(Some(&header), SUBJECT, 1_000), Ok(()));
        for other in [
            Subject { method: "GET", ..SUBJECT },
            Subject { path: "/v1/status", ..SUBJECT },
            Subject { session: "other", ..SUBJECT },
            Subject { pod: "other", ..SUBJECT },
        ] {
            assert_eq!(key().verify(Some(&header), other, 1_000), Err(MacError::Mismatch));
        }
        let foreign = MacKey::new(&[8; KEY_LEN]).expect("right length");
        assert_eq!(foreign.verify(Some(&header), SUBJECT, 1_000), Err(MacError::Mismatch));
    }

    #[test]
    fn a_mac_lives_for_a_minute_either_way() {
        let header = key().sign(SUBJECT, 100_000);
        assert_eq!(key().verify(Some(&header), SUBJECT, 160_000), Ok(()));
        assert_eq!(key().verify(Some(&header), SUBJECT, 160_001), Err(MacError::Stale));
        assert_eq!(key().verify(Some(&header), SUBJECT, 39_999), Err(MacError::Stale));
    }

    #[test]
    fn absent_malformed_and_later_versions_are_told_apart_from_forged() {
        assert_eq!(key().verify(None, SUBJECT, 0), Err(MacError::Missing));
        for header in ["", "v2 t=0 m=AA", "v1 t=x m=AA", "v1 t=0", "v1 t=0 m=!"] {
            assert_eq!(key().verify(Some(header), SUBJECT, 0), Err(MacError::Malformed), "{header}");
        }
        let signed = key().sign(SUBJECT, 7);
        for rewritten in [signed.replace("t=7", "t=+7"), signed.replace("t=7", "t=07")] {
            assert_eq!(key().verify(Some(&rewritten), SUBJECT, 7), Err(MacError::Malformed), "{rewritten}");
        }
    }
}
