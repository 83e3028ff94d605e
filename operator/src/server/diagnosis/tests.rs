use serde_json::{Value, json};

use super::*;
use crate::server::fixtures::ill;

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "server", "image": "registry.example/everything:1"}]},
        "status": status,
    }))
    .unwrap()
}

fn server(state: &Value) -> Pod {
    pod(&json!({"containerStatuses": [{
        "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": state["state"], "lastState": state["lastState"],
    }]}))
}

fn assert_says(diagnosis: &Diagnosis, reason: &str, words: &[&str]) {
    assert_eq!(diagnosis.reason, reason, "{diagnosis:?}");
    for word in words {
        assert!(diagnosis.message.contains(word), "{word:?} is missing: {diagnosis:?}");
    }
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_with_the_registrys_answer() {
    let waiting =
        |reason: &str, message: &str| server(&json!({"state": {"waiting": {"reason": reason, "message": message}}}));
    let first = diagnose(&waiting("ErrImagePull", "not found"), None);
    let later = diagnose(&waiting("ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: not found"), None);
    assert_says(
        &first,
        "ImagePullFailed",
        &["registry.example/everything:1", "not found", "kubectl describe pod -n ns p"],
    );
    assert_eq!(first, later, "the kubelet's back-off is no news");
    for reason in ["ErrImageNeverPull", "InvalidImageName"] {
        assert_eq!(diagnose(&waiting(reason, ""), None).reason, "ImagePullFailed");
    }
}

#[test]
fn a_pod_that_no_node_takes_says_what_the_scheduler_says() {
    let pod = pod(&json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]}));
    assert_says(&diagnose(&pod, None), "PodNotScheduled", &["0/3 nodes are available"]);
}

#[test]
fn what_the_bridge_found_is_the_reason() {
    let running = server(&json!({"state": {"running": {}}}));
    for reason in [
        ProbeReason::ServerExited,
        ProbeReason::SpawnFailed,
        ProbeReason::HandshakeTimeout,
        ProbeReason::NotMcp,
        ProbeReason::UnsupportedProtocol,
        ProbeReason::ToolsListFailed,
        ProbeReason::ProbeTimeout,
        ProbeReason::Unreachable,
        ProbeReason::AddressNotAllowed,
        ProbeReason::TlsFailed,
    ] {
        let diagnosis = diagnose(&running, Some(&ill(reason, "exited with code 3; its last line: boom")));
        assert_says(&diagnosis, reason.as_str(), &["code 3", "boom", "kubectl logs -n ns p -c server"]);
    }
}

#[test]
fn an_http_servers_exit_comes_with_code_and_last_line() {
    let terminated = json!({"exitCode": 3, "reason": "Error", "message": "one\ntwo: boom\n\n"});
    let crashed = server(&json!({"state": {"terminated": terminated}}));
    assert_says(&diagnose(&crashed, None), "ServerExited", &["code 3", "two: boom"]);
}

#[test]
fn a_server_that_is_started_again_is_judged_by_how_it_ended() {
    let terminated = json!({"exitCode": 1, "reason": "Error", "message": "boom"});
    let backing_off = server(&json!({
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": terminated},
    }));
    let running = server(&json!({"state": {"running": {}}, "lastState": {"terminated": terminated}}));
    let unreachable = ill(ProbeReason::Unreachable, "connection refused");
    let first = diagnose(&backing_off, Some(&unreachable));
    assert_says(&first, "ServerExited", &["code 1", "boom"]);
    assert_eq!(first, diagnose(&running, Some(&unreachable)));
    assert_eq!(first, diagnose(&server(&json!({"state": {"terminated": terminated}})), None), "each crash is no news");
    let other = ill(ProbeReason::HandshakeTimeout, "no answer");
    assert_eq!(diagnose(&running, Some(&other)).reason, "HandshakeTimeout");
}

#[test]
fn a_server_killed_for_memory_says_which_field_to_raise() {
    let killed = server(&json!({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}));
    assert_says(&diagnose(&killed, None), "ServerExited", &["spec.container.resources.limits.memory"]);
}

#[test]
fn a_command_that_is_not_in_the_image_is_no_exit_of_the_server() {
    let message = "exec: \"nope\": executable file not found in $PATH";
    let start =
        server(&json!({"state": {"terminated": {"exitCode": 128, "reason": "StartError", "message": message}}}));
    assert_says(&diagnose(&start, None), "SpawnFailed", &["nope"]);
    let waiting = server(&json!({"state": {"waiting": {"reason": "RunContainerError", "message": message}}}));
    assert_says(&diagnose(&waiting, None), "SpawnFailed", &["nope"]);
}

#[test]
fn a_container_that_cannot_be_made_says_what_the_kubelet_says() {
    let waiting =
        json!({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}}});
    assert_says(&diagnose(&server(&waiting), None), "ContainerConfigError", &["secret \"x\" not found"]);
}

#[test]
fn why_the_bridge_ended_is_read_from_its_termination_message() {
    let message = json!({"reason": "Failed", "message": "the key file is empty", "exits": []}).to_string();
    let ended = server(&json!({"state": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}}));
    assert_says(&diagnose(&ended, None), "ServerExited", &["the key file is empty"]);
}

#[test]
fn a_pod_with_a_cause_is_named_before_one_that_only_starts() {
    let starting = server(&json!({"state": {"running": {}}}));
    let mut failing = starting.clone();
    failing.metadata.name = Some("q".into());
    let not_mcp = ill(ProbeReason::NotMcp, "garbage");
    let pods = [starting, failing];
    let worst = worst(pods.iter().zip([None, Some(&not_mcp)]));
    assert_says(&worst.unwrap(), "NotMCP", &["pod q", "garbage"]);
}
