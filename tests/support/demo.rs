//! The server of the quickstart as one that a test runs in a cluster: a process of a few megabytes for each session.

use serde_json::{Value, json};

use crate::manifest::hosted;

/// The image that it runs in, which `hack/cluster-install` makes.
const IMAGE: &str = "localhost/portolan-test/demo:1";

/// An `MCPServer` that runs `portolan demo-server`.
#[must_use]
pub fn stdio(namespace: &str, name: &str) -> Value {
    let container = json!({"transport": "Stdio", "command": ["portolan", "demo-server"]});
    hosted(namespace, name, IMAGE, &container)
}
