//! Keys and identifiers of one run of `dev`: random, in memory only.

use ring::rand::{SecureRandom, SystemRandom};

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub(super) struct NoRandomness;

/// A fresh key.
pub(super) fn key() -> Result<[u8; 32], NoRandomness> {
    bytes()
}

/// A fresh UID, as the API server makes them.
pub(super) fn uid() -> Result<String, NoRandomness> {
    let mut bytes: [u8; 16] = bytes()?;
    // RFC 9562: version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uid_looks_like_the_api_servers() {
        let uid = super::uid().expect("random");
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert_ne!(uid, super::uid().expect("random"));
    }
}
