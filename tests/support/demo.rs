//! The server of the quickstart as one that a test runs in a cluster: a process of a few megabytes for each session.

use serde_json::{Value, json};

/// The image that it runs in, which `hack/cluster-install` makes.
const IMAGE: &str = "localhost/portolan-test/demo:1";

/// An `MCPServer` that runs `portolan demo-server`.
#[must_use]
pub fn stdio(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"container": {
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "transport": "Stdio",
            "command": ["portolan", "demo-server"],
        }},
    })
}
