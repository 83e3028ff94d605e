//! `portolan crds`: the CRDs of this release.

use crate::exit::{Exit, Failure, print};

/// The CRDs as YAML, ready for `kubectl apply -f -`.
pub(crate) fn run() -> Result<(), Failure> {
    let mut text = String::new();
    for (_, crd) in portolan_crds::crds() {
        let yaml = serde_saphyr::to_string(&crd)
            .map_err(|error| Failure::new(Exit::Negative, format!("a CRD cannot be written as YAML: {error}")))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    print(&text)
}
