//! What must hold for any bytes that reach the protocol types: one module a target, each with a `check` that panics where
//! a promise is broken. `fuzz_targets/` gives them to libFuzzer, `tests/replay.rs` to a seeded replay on the stable compiler.

#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a panic is the report")]

pub mod header;
mod oracle;
pub mod rewrite;
pub mod scan;
pub mod session;
pub mod sse;
pub mod token;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `corpus/` too.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub check: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "scan", check: scan::check },
    Target { name: "rewrite", check: rewrite::check },
    Target { name: "sse", check: sse::check },
    Target { name: "token", check: token::check },
    Target { name: "header", check: header::check },
    Target { name: "session", check: session::check },
];
