//! Images that the cluster's node has for as long as a test runs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::printed;
use crate::paths;

/// The repository of the bridge's image, as `tests/cluster/values.yaml` has it.
const BRIDGE: &str = "localhost/portolan/portolan-bridge";

/// The container of whatever server a pod runs.
const SERVER: &str = "server";

/// An image on the node.
#[derive(Debug)]
pub struct Image {
    archive: PathBuf,
    _folder: tempfile::TempDir,
}

impl Image {
    /// The bridge under another tag: what is in it is what `make static` built.
    ///
    /// # Panics
    /// It cannot be made or loaded.
    pub async fn of_bridge(tag: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a folder");
        std::fs::copy(paths::binary("portolan-bridge"), root.join("portolan-bridge")).expect("copied");
        let (name, archive) = (format!("{BRIDGE}:{tag}"), folder.path().join("image.tar"));
        let [root, output] = [&root, &archive].map(|path| path.display().to_string());
        let made_of = [&name, "--from-dir", &root, "--entrypoint", "/portolan-bridge", "--user", "65532:65532"];
        let arguments = [&made_of[..], &["--output", &output]].concat();
        printed(paths::repo("tests/kube/image"), &arguments).await.expect("the archive is written");
        printed(paths::repo("tests/kube/load"), &[&output]).await.expect("the node has it");
        Self { archive, _folder: folder }
    }

    /// Takes it off the node again.
    ///
    /// # Panics
    /// It is not taken off.
    pub async fn remove(self) {
        let archive = self.archive.display().to_string();
        printed(paths::repo("tests/kube/unload"), &[&archive]).await.expect("the node has it no more");
    }
}

/// The images of Portolan's own containers in a pod: of all but the server's.
#[must_use]
pub fn in_pod(pod: &Pod) -> BTreeSet<String> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.filter(|container| container.name != SERVER).filter_map(|container| container.image.clone()).collect()
}
