//! `portolan crds`: the CRDs of this release.

use crate::exit::{Exit, Failure, print};

/// The CRDs as YAML, ready for `kubectl apply -f -`.
pub(crate) fn run() -> Result<(), Failure> {
    let mut text = String::new();
    for (_, crd) in portolan_crds::crds() {
        let yaml = portolan_crds::render(&crd).map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    print(&text)
}
