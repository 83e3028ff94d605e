use portolan_crds::MCPServer;

use crate::{
    apply::Owner,
    server::{
        build, fixtures,
        observed::{Content, Mac, Observed},
        references::Kind,
        validate,
    },
};

fn name_in(server: &MCPServer, observed: &Observed) -> String {
    let validated = validate::validate(server, "everything", observed);
    let owner = Owner::of(server).unwrap();
    let wanted = build::wanted(&validated, observed, build::Before::default(), &owner, &fixtures::config()).unwrap();
    build::build(&wanted, &validated, observed, None, &owner, &fixtures::config()).unwrap().desired.unwrap()
}

fn name(spec: &str) -> String {
    name_in(&fixtures::server(spec), &fixtures::nothing())
}

fn with_secret(digest: u8) -> Observed {
    let content = Content { keys: ["token".into()].into(), digest: [digest; 32] };
    Observed { contents: [((Kind::Secret, "api".into()), Some(content))].into(), ..fixtures::nothing() }
}

#[test]
fn a_revision_has_the_same_name_in_every_process_and_for_ever() {
    // Changing this value rolls every server of every installation: do it knowingly.
    assert_eq!(name_in(&fixtures::stdio(), &fixtures::nothing()), "everything-85677ce9");
}

#[test]
fn the_order_in_which_maps_were_written_makes_no_revision() {
    let one = name("{container: {image: i, transport: Stdio, command: [x]}, pod: {nodeSelector: {a: b, c: d}}}");
    let other = name("{pod: {nodeSelector: {c: d, a: b}}, container: {command: [x], transport: Stdio, image: i}}");
    assert_eq!(one, other);
}

#[test]
fn scaling_and_limits_make_no_revision_and_everything_that_reaches_the_pod_does() {
    let container = "container: {image: i, transport: Stdio, command: [x]}";
    let plain = name(&format!("{{{container}}}"));
    for same in ["replicas: 5", "limits: {maxParallelRequests: 3}"] {
        assert_eq!(name(&format!("{{{container}, {same}}}")), plain, "{same}");
    }
    for other in [
        "sessions: {maxPerReplica: 3}",
        "sessions: {maxPerCaller: 3}",
        "healthCheck: {interval: 9s}",
        "timeouts: {request: 9s}",
        "rollout: {drainTimeout: 9s}",
        "pod: {runAsUser: 9}",
    ] {
        assert_ne!(name(&format!("{{{container}, {other}}}")), plain, "{other}");
    }
    assert_ne!(name("{container: {image: j, transport: Stdio, command: [x]}}"), plain);
}

#[test]
fn a_change_of_a_secrets_content_makes_a_revision_and_changing_it_back_finds_the_first() {
    let server =
        fixtures::server("container: {image: i, transport: Stdio, command: [x], envFrom: [{secretRef: {name: api}}]}");
    let (first, second) = (name_in(&server, &with_secret(1)), name_in(&server, &with_secret(2)));
    assert_ne!(first, second);
    assert_eq!(name_in(&server, &with_secret(1)), first);
}

#[test]
fn a_pull_secret_that_is_rotated_makes_no_revision() {
    let server =
        fixtures::server("container: {image: i, transport: Stdio, command: [x], imagePullSecrets: [{name: api}]}");
    assert_eq!(name_in(&server, &with_secret(1)), name_in(&server, &with_secret(2)));
}

#[test]
fn a_new_mac_key_makes_a_revision() {
    let other = Observed { mac: Mac([8; 32]), ..fixtures::nothing() };
    assert_ne!(name_in(&fixtures::stdio(), &other), name_in(&fixtures::stdio(), &fixtures::nothing()));
}
