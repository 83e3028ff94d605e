//! Copies this program to where the server's container will find it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

const NAME: &str = "portolan-bridge";

/// Copies this program to `dest`, a file or an existing folder. The copy appears whole or not at all.
pub(crate) fn run(dest: &Path) -> anyhow::Result<()> {
    let dest = if dest.is_dir() { dest.join(NAME) } else { dest.to_owned() };
    let shown = dest.display();
    let mut partial = dest.clone().into_os_string();
    partial.push(".partial");
    fs::copy("/proc/self/exe", &partial).with_context(|| format!("cannot write beside {shown}"))?;
    // Readable and executable by the server's user, whoever that is.
    fs::set_permissions(&partial, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {shown} executable"))?;
    fs::rename(&partial, &dest).with_context(|| format!("cannot write {shown}"))
}
