//! What the tests of the pure steps start from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use portolan_crds::{MCPServer, labels, server::RevisionState};
use portolan_mcp::{
    revision::Era,
    wire::{ProbeReason, ProbeState, ProbeStatus, ServerFound, ToolsFound},
};
use serde_json::json;

use super::{
    build::{DRAINING_SINCE, SERVING_SINCE},
    observed::{Mac, Observed},
    rollout::{MadeBy, Planned},
};
use crate::{
    analysis::Known,
    config::{Config, Images},
};

/// A server named `everything` in `tools`, generation 3.
pub(super) fn server(spec: &str) -> MCPServer {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    serde_json::from_value(json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": "everything", "namespace": "tools", "uid": "u-1", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

/// The least that a stdio server needs.
pub(super) fn stdio() -> MCPServer {
    server("container: {image: 'registry.example/everything:1', transport: Stdio, command: [node, index.js]}")
}

/// Nothing exists.
pub(super) fn nothing() -> Observed {
    Observed {
        contents: BTreeMap::new(),
        claims: BTreeMap::new(),
        mac: Mac([7; 32]),
        deployments: Vec::new(),
        autoscalers: Vec::new(),
        templates: Vec::new(),
        pods: Vec::new(),
        probes: BTreeMap::new(),
        tools: Vec::new(),
        definitions: BTreeMap::new(),
        endpoints: Vec::new(),
        programmed: BTreeMap::new(),
        failing: BTreeMap::new(),
        canaries: None,
        compared: Known::default(),
        replicas: 1,
        now: Timestamp::from_second(1000).unwrap(),
    }
}

pub(super) fn config() -> Config {
    let images = Images {
        portolan: "registry.example/portolan:1".into(),
        bridge: "registry.example/bridge:1".into(),
        pull_policy: Some("IfNotPresent".into()),
        pull_secrets: Vec::new(),
    };
    Config::new("portolan", images)
}

/// A pod of `revision`.
pub(super) fn pod(name: &str, revision: &str, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "tools", "uid": name, "labels": {(labels::REVISION): revision}},
        "status": {
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "containerStatuses": [{
                "name": "server", "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": {"running": {}},
            }],
        },
    }))
    .unwrap()
}

pub(super) fn planned(name: &str, state: RevisionState, replicas: i32) -> Planned {
    Planned {
        name: name.into(),
        generation: 3,
        made_by: MadeBy::default(),
        state,
        weight: if state == RevisionState::Serving { 100 } else { 0 },
        replicas,
        serving_since: None,
        draining_since: None,
        step: None,
        rolled_back: None,
    }
}

/// What a probe finds whose server answers.
pub(super) fn well() -> ProbeStatus {
    let server = ServerFound {
        name: "found".into(),
        version: "1.2".into(),
        protocol_version: "2025-11-25".into(),
        era: Era::Legacy,
        supported_versions: vec!["2025-11-25".into()],
        capabilities: vec!["tools".into()],
    };
    ProbeStatus {
        state: ProbeState::Ready,
        reason: None,
        message: String::new(),
        server: Some(server),
        tools: Some(ToolsFound { count: 2, hash: "sha256:1".into(), definitions: None }),
    }
}

/// What a probe finds whose server does not.
pub(super) fn ill(reason: ProbeReason, message: &str) -> ProbeStatus {
    let state = ProbeState::Failing;
    ProbeStatus { state, reason: Some(reason), message: message.into(), server: None, tools: None }
}

/// A Deployment of `revision` that drains.
pub(super) fn draining_deployment(revision: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": revision, "annotations": {
            (labels::GENERATION): "2",
            (SERVING_SINCE): "1970-01-01T00:00:01Z",
            (DRAINING_SINCE): "1970-01-01T00:16:00Z",
        }},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
    }))
    .unwrap()
}
