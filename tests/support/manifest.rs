//! Manifests of servers whose images the suites load onto the node.

use serde_json::{Value, json};

/// An `MCPServer` that runs `container` in `image`, which is not pulled.
#[must_use]
pub fn hosted(namespace: &str, name: &str, image: &str, container: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"container": container},
    });
    manifest["spec"]["container"]["image"] = image.into();
    manifest["spec"]["container"]["imagePullPolicy"] = "Never".into();
    manifest
}
