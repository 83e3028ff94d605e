//! crdgen
fn main() {
    for (_, crd) in portolan_crds::crds() {
        print!("---\n{}", serde_saphyr::to_string(&crd).unwrap_or_default());
    }
}
