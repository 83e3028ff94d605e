//! Where the suites find what the build made.

use std::path::PathBuf;

/// A path below the repository's root.
#[must_use]
pub fn repo(relative: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(relative)
}

/// A static release binary, made by `make static`.
///
/// # Panics
/// It has not been made.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = repo("target/dist").join(name);
    assert!(path.exists(), "{} is missing: run `make static` first", path.display());
    path
}
