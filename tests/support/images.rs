//! Images that the cluster's node has for as long as a test runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::cluster::printed;
use crate::paths;

/// The repository of the bridge's image, as `tests/cluster/values.yaml` has it.
const BRIDGE: &str = "localhost/portolan/portolan-bridge";

/// The container of whatever server a pod runs.
const SERVER: &str = "server";

/// An image of a test's own.
#[derive(Debug)]
pub struct Image {
    /// Its name.
    pub name: String,
    folder: tempfile::TempDir,
}

impl Image {
    /// The bridge under another tag, on the node: what is in it is what `make static` built.
    ///
    /// # Panics
    /// It cannot be made or loaded.
    pub async fn of_bridge(tag: &str) -> Self {
        let image = Self::named(format!("{BRIDGE}:{tag}"));
        let process = ["--entrypoint", "/portolan-bridge", "--user", "65532:65532"];
        image.load_with("portolan-bridge", "portolan-bridge", &process).await;
        image
    }

    /// One of `portolan demo-server`, which is not on the node before [`Self::load`]. No run that ended before its time left
    /// one of its name there.
    ///
    /// # Panics
    /// There is no room for it.
    #[must_use]
    pub fn of_demo(repository: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        Self::named(format!("localhost/portolan-test/{repository}:{}-{}", now.as_nanos(), std::process::id()))
    }

    /// Puts an image of the demo server onto the node.
    ///
    /// # Panics
    /// It cannot be made or loaded.
    pub async fn load(&self) {
        self.load_with("portolan", "usr/bin/portolan", &[]).await;
    }

    /// An `MCPServer` that runs an image of the demo server.
    #[must_use]
    pub fn manifest(&self, namespace: &str, name: &str) -> Value {
        json!({
            "apiVersion": "portolan.dev/v1alpha1",
            "kind": "MCPServer",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"container": {
                "image": self.name, "transport": "Stdio", "command": ["/usr/bin/portolan", "demo-server"],
            }},
        })
    }

    /// Takes it off the node again, where it was put there. The pods that run it go first.
    ///
    /// # Panics
    /// It is not taken off.
    pub async fn remove(&self) {
        let archive = self.archive();
        if archive.exists() {
            let archive = archive.display().to_string();
            printed(paths::repo("tests/kube/unload"), &[&archive]).await.expect("the node has it no more");
        }
    }

    fn named(name: String) -> Self {
        Self { name, folder: tempfile::tempdir().expect("a folder") }
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("image.tar")
    }

    /// Makes it of one of the static binaries, and puts it onto the node.
    async fn load_with(&self, binary: &str, place: &str, process: &[&str]) {
        let (root, archive) = (self.folder.path().join("root"), self.archive());
        let program = root.join(place);
        std::fs::create_dir_all(program.parent().expect("a folder")).expect("a folder");
        std::fs::copy(paths::binary(binary), program).expect("copied");
        let [root, output] = [&root, &archive].map(|path| path.display().to_string());
        let arguments = [&[self.name.as_str(), "--from-dir", &root, "--output", &output][..], process].concat();
        printed(paths::repo("tests/kube/image"), &arguments).await.expect("the archive is written");
        printed(paths::repo("tests/kube/load"), &[&output]).await.expect("the node has it");
    }
}

/// The images of Portolan's own containers in a pod: of all but the server's.
#[must_use]
pub fn in_pod(pod: &Pod) -> BTreeSet<String> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.filter(|container| container.name != SERVER).filter_map(|container| container.image.clone()).collect()
}
