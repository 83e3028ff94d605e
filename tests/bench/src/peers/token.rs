//! What it takes to open a session token.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use portolan_mcp::token::{Binding, Claims, KEY_LEN, Keyring, SessionKey};

/// How often it is opened.
const TIMES: u32 = 100_000;

/// Microseconds to open a token as gateways make them, with a new key in front of the one that sealed it.
///
/// # Errors
/// There is no randomness, or the token does not open.
pub(super) fn micros_to_open() -> anyhow::Result<f64> {
    let (old, new) = ([1; KEY_LEN], [2; KEY_LEN]);
    let binding = Binding { principal: &[3; 32], route: "default/server-0" };
    let claims = Claims {
        session: SessionKey::generate()?,
        revision: "server-0-0a1b2c3d".into(),
        pod: Some("8c9f5a0e-0b57-4b0e-9d3c-0e6c3a9c6c11".into()),
        issued: 1_000,
        expires: 2_000,
    };
    let token = Keyring::new([&old[..]])?.seal(&claims, binding)?;
    let keys = Keyring::new([&new[..], &old])?;
    ensure!(keys.open(&token, binding, 1_500)? == claims, "the token says something else");
    let began = Instant::now();
    for _ in 0..TIMES {
        black_box(keys.open(black_box(&token), binding, 1_500)?);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES))
}
