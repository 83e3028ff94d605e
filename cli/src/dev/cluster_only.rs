//! What a file asks for and only a cluster can do.

use serde_json::Value;

use super::files::Objects;
use super::problem::{Origin, Problem};

/// Fields of a server that say where and with how much it runs, and what is watched all the time.
const SERVER: [&str; 15] = [
    "/spec/container/resources",
    "/spec/container/volumes",
    "/spec/container/volumeMounts",
    "/spec/container/imagePullPolicy",
    "/spec/container/imagePullSecrets",
    "/spec/pod",
    "/spec/replicas",
    "/spec/autoscaling",
    "/spec/canaryChecks/checks",
    "/spec/rollout/canary",
    "/spec/rollout/paused",
    "/spec/rollout/promote",
    "/spec/rollout/abort",
    "/spec/rollout/allowToolChanges",
    "/spec/rollout/revisionHistoryLimit",
];

/// Fields of a gateway that only a cluster can honour.
const GATEWAY: [&str; 2] = ["/spec/replicas", "/spec/authentication/serviceAccounts"];

/// Each field that is written and has no effect here.
pub(super) fn fields(objects: &Objects) -> Vec<Problem> {
    let servers = objects.servers.values().flat_map(|server| written(&server.origin, &server.written, &SERVER));
    let gateway = objects.gateway.iter().flat_map(|(_, gateway)| written(&gateway.origin, &gateway.written, &GATEWAY));
    servers.chain(gateway).collect()
}

fn written(origin: &Origin, value: &Value, pointers: &[&str]) -> Vec<Problem> {
    let has_effect = |pointer: &str, field: &Value| match pointer {
        // One replica is what dev runs, and none is what it runs then, too.
        "/spec/replicas" => field.as_i64().is_some_and(|replicas| replicas <= 1),
        _ => false,
    };
    let problem = |pointer: &&str| {
        let field = value.pointer(pointer).filter(|field| !field.is_null())?;
        let path = pointer.trim_start_matches('/').replace('/', ".");
        let message = match *pointer {
            "/spec/canaryChecks/checks" => "is made here by `portolan canary run`, and by itself only in a cluster",
            "/spec/autoscaling" => "scales nothing here: one process runs, and never sleeps",
            _ => "has no effect here: only a cluster can honour it",
        };
        (!has_effect(pointer, field)).then(|| origin.problem(&path, message))
    };
    pointers.iter().filter_map(problem).collect()
}
