use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use portolan_crds::{MCPServer, server::RevisionState};

use super::{rollout::Planned, *};
use crate::server::{fixtures, observed::Definitions, validate};

const HTTP: &str = "
container:
  image: registry.example/http:2
  transport: StreamableHTTP
  port: 3000
  path: /rpc
  command: [serve]
  args: [--verbose]
  env:
  - {name: EMPTY, value: ''}
  - {name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}
  envFrom: [{configMapRef: {name: settings, optional: true}, prefix: APP_}]
  resources: {limits: {memory: 128Mi}}
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: shared}}
  - {name: scratch, emptyDir: {}}
  volumeMounts:
  - {name: data, mountPath: /data, readOnly: true, subPath: sub}
  - {name: scratch, mountPath: /tmp}
  imagePullPolicy: Always
  imagePullSecrets: [{name: registry}]
sessions: {idleTimeout: 5m, maxPerReplica: 8}
healthCheck: {interval: 20s, timeout: 4s, unhealthyThreshold: 5, healthyThreshold: 2}
timeouts: {request: 1m}
rollout: {drainTimeout: 90s}
pod:
  labels: {team: a}
  annotations: {note: b}
  nodeSelector: {disk: ssd}
  tolerations: [{key: gpu, operator: Exists}]
  priorityClassName: high
  runtimeClassName: gvisor
  runAsUser: 1000
  runAsGroup: 1001
  fsGroup: 1002
  supplementalGroups: [1003]
";

const REMOTE: &str = "
remote:
  url: https://mcp.example.com/mcp
  transport: SSE
  tls:
    caCertificateRef: {configMapKeyRef: {name: trust, key: ca.crt}}
    clientCertificateRef: {name: client}
  backendAuth: {type: Header, header: {name: X-API-Key, secretKeyRef: {name: api, key: key}}}
replicas: 2
sessions: {maxPerReplica: 8}
pod: {labels: {team: a}, runAsUser: 1000}
";

fn template_of(parts: &Parts<'_>) -> PodTemplateSpec {
    pod::template(parts).expect("the spec says where")
}

fn with<T>(server: &MCPServer, look: impl FnOnce(&Parts<'_>) -> T) -> T {
    let validated = validate::validate(server, "everything", &fixtures::nothing());
    let owner = Owner::of(server).unwrap();
    look(&Parts::new(&validated, &owner, &fixtures::config()))
}

fn pod_spec(server: &MCPServer) -> PodSpec {
    with(server, |parts| template_of(parts).spec.unwrap())
}

fn deployment(server: &MCPServer) -> Deployment {
    let planned = fixtures::planned("everything-01234567", RevisionState::Pending, server.spec.replicas);
    with(server, |parts| deployment::of(parts, &planned, &template_of(parts), None))
}

fn stdio(more: &str) -> MCPServer {
    fixtures::server(&format!("{{container: {{image: i, transport: Stdio, command: [node, x.js], args: [-v]}}{more}}}"))
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

#[test]
fn a_stdio_server_runs_behind_the_bridge() {
    insta::assert_yaml_snapshot!(deployment(&fixtures::stdio()));
}

#[test]
fn an_http_server_runs_beside_the_bridge() {
    insta::assert_yaml_snapshot!(deployment(&fixtures::server(HTTP)));
}

#[test]
fn an_sse_server_runs_beside_a_bridge_that_is_told_so() {
    let http = pod_spec(&fixtures::server(HTTP));
    let mut sse = pod_spec(&fixtures::server(&HTTP.replace("StreamableHTTP", "SSE").replace("  path: /rpc\n", "")));
    let command = sse.containers[1].command.as_mut().unwrap();
    assert_eq!(command[..4], ["/portolan-bridge", "sse", "--upstream", "http://127.0.0.1:3000/sse"]);
    command[1] = "http".into();
    command[3] = "http://127.0.0.1:3000/rpc".into();
    assert_eq!(sse, http, "in nothing else do they differ");
}

#[test]
fn a_remote_server_has_relays_with_what_they_are_given_as_files_and_one_way_out() {
    let remote = fixtures::server(REMOTE);
    insta::assert_yaml_snapshot!((
        deployment(&remote),
        with(&remote, |parts| network_policy::network_policy(parts, &[]).spec)
    ));
}

#[test]
fn a_relay_without_certificates_and_credential_is_given_none() {
    let spec = pod_spec(&fixtures::server("remote: {url: 'http://mcp.example.com'}"));
    assert_eq!(spec.volumes.unwrap().len(), 1);
    let args = spec.containers[0].args.clone().unwrap();
    assert_eq!(args[..5], ["relay", "--url", "http://mcp.example.com", "--transport", "streamable-http"]);
    assert!(!args.iter().any(|arg| arg.contains("file") && arg != "--mac-key-file"), "{args:?}");
}

#[test]
fn only_the_host_that_the_platform_allowed_is_allowed_to_its_relay_and_leads_into_the_cluster() {
    let validated_args = |url: &str| {
        let remote = fixtures::server(&format!("remote: {{url: '{url}'}}"));
        let validated = validate::validate(&remote, "everything", &fixtures::nothing());
        let owner = Owner::of(&remote).unwrap();
        let allowed_private_hosts = vec!["other.svc".into(), "MCP.tools.svc".into()];
        let config = Config { allowed_private_hosts, ..fixtures::config() };
        let parts = Parts::new(&validated, &owner, &config);
        let args = template_of(&parts).spec.unwrap().containers[0].args.clone().unwrap();
        let egress = network_policy::network_policy(&parts, &[]).spec.unwrap().egress.unwrap();
        let allowed: Vec<_> =
            args.windows(2).filter(|pair| pair[0] == "--allow-private-host").map(|pair| pair[1].clone()).collect();
        (allowed, egress.len())
    };
    assert_eq!(validated_args("http://mcp.tools.svc:8080/mcp"), (vec!["mcp.tools.svc".to_owned()], 3));
    assert_eq!(validated_args("http://mcp.tools.svc.example/mcp"), (Vec::new(), 2));
}

#[test]
fn pods_that_ran_the_server_themselves_may_go_out_for_as_long_as_they_drain() {
    let (hosted, remote) = (deployment(&fixtures::stdio()), deployment(&fixtures::server(REMOTE)));
    let types = |live: &[Deployment]| {
        let spec = with(&fixtures::server(REMOTE), |parts| network_policy::network_policy(parts, live).spec.unwrap());
        spec.policy_types.unwrap()
    };
    assert_eq!(types(&[remote.clone(), hosted]), ["Ingress"]);
    assert_eq!(types(&[remote]), ["Ingress", "Egress"]);
}

#[test]
fn what_surrounds_the_pods() {
    let objects = with(&fixtures::stdio(), |parts| {
        (
            service::service(parts, "everything-01234567"),
            service_account::service_account(parts),
            network_policy::network_policy(parts, &[]),
        )
    });
    insta::assert_yaml_snapshot!(objects);
}

#[test]
fn every_container_meets_the_restricted_standard_whatever_the_spec_says() {
    for server in [stdio(""), fixtures::server(HTTP), fixtures::server(REMOTE)] {
        let spec = pod_spec(&server);
        let pod = spec.security_context.clone().unwrap();
        assert_eq!(pod.run_as_non_root, Some(true));
        assert_eq!(pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert!([pod.run_as_user, pod.run_as_group, pod.fs_group].iter().all(|id| id.is_some_and(|id| id > 0)));
        assert_eq!((spec.automount_service_account_token, spec.enable_service_links), (Some(false), Some(false)));
        let mut names = BTreeSet::new();
        for container in all_containers(&spec) {
            assert!(names.insert(&container.name), "two containers are named {}", container.name);
            let context = container.security_context.clone().unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".into()]));
            assert_eq!((context.read_only_root_filesystem, context.run_as_non_root), (Some(true), Some(true)));
        }
    }
}

#[test]
fn labels_that_the_operator_depends_on_win() {
    let mut server = stdio("");
    server.spec.pod.labels.insert(labels::SERVER.into(), "another".into());
    let labels = with(&server, |parts| template_of(parts).metadata.unwrap().labels.unwrap());
    assert_eq!(labels[labels::SERVER], "everything");
}

#[test]
fn tmp_and_home_are_writable_unless_the_user_mounts_there() {
    let mounts = |server: &MCPServer| -> Vec<(String, String)> {
        let container = pod_spec(server).containers.swap_remove(0);
        container.volume_mounts.unwrap().into_iter().map(|mount| (mount.mount_path, mount.name)).collect()
    };
    let own = mounts(&stdio(""));
    assert!(own.contains(&("/tmp".into(), "portolan-tmp".into())), "{own:?}");
    assert!(own.contains(&("/home/mcp".into(), "portolan-home".into())), "{own:?}");
    let users = mounts(&fixtures::server(HTTP));
    assert_eq!(users.iter().filter(|(path, _)| path == "/tmp").count(), 1, "{users:?}");
    assert!(users.contains(&("/tmp".into(), "scratch".into())), "{users:?}");
}

#[test]
fn home_is_the_users_when_the_user_sets_it() {
    let homes = |server: &MCPServer| -> Vec<Option<String>> {
        let container = pod_spec(server).containers.swap_remove(0);
        container.env.unwrap().into_iter().filter(|env| env.name == "HOME").map(|env| env.value).collect()
    };
    assert_eq!(homes(&stdio("")), [Some("/home/mcp".into())]);
    let server = "container: {image: i, transport: Stdio, command: [x], env: [{name: HOME, value: /data}]}";
    assert_eq!(homes(&fixtures::server(server)), [Some("/data".into())]);
}

#[test]
fn a_pod_outlives_its_drain_timeout_by_fifteen_seconds() {
    for (drain, seconds) in [("10m", 615), ("0s", 15), ("1500ms", 17)] {
        let spec = pod_spec(&stdio(&format!(", rollout: {{drainTimeout: {drain}}}")));
        assert_eq!(spec.termination_grace_period_seconds, Some(seconds), "{drain}");
    }
}

#[test]
fn an_older_revision_whose_template_was_lost_is_written_only_when_its_state_changes() {
    let serving = Planned {
        serving_since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        ..fixtures::planned("r", RevisionState::Serving, 1)
    };
    let (old, new) = (stdio(", pod: {labels: {v: old}}"), stdio(", pod: {labels: {v: new}}"));
    let live = with(&old, |parts| deployment::of(parts, &serving, &template_of(parts), None));
    assert_eq!(with(&new, |parts| deployment::untouched(parts, &serving, &live)), None);
    let draining = Planned { draining_since: serving.serving_since, state: RevisionState::Draining, ..serving };
    let kept = with(&new, |parts| deployment::untouched(parts, &draining, &live)).unwrap();
    assert_eq!(kept.spec, live.spec);
    assert_eq!(annotation(&kept, DRAINING_SINCE), Some("2026-01-01T00:00:00Z"));
}

#[test]
fn an_older_revision_that_someone_edits_gets_back_the_template_that_it_was_made_with() {
    let (old, new) = (stdio(", pod: {labels: {v: old}}"), stdio(", pod: {labels: {v: new}}"));
    let serving = fixtures::planned("everything-0old", RevisionState::Serving, 1);
    let template = with(&old, template_of);
    let made = with(&old, |parts| deployment::of(parts, &serving, &template, None));
    let mut edited = made.clone();
    edited.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("intruder".into());
    let observed = Observed {
        deployments: vec![edited],
        templates: vec![with(&old, |parts| template::controller_revision(parts, &serving, &template, None).unwrap())],
        ..fixtures::nothing()
    };
    let mut resources = Resources::new(Owner::of(&new).unwrap());
    with(&new, |parts| add_revision(&mut resources, parts, &observed, &serving, None).unwrap());
    let mut alone = Resources::new(Owner::of(&new).unwrap());
    alone.add(&made).unwrap();
    let deployment = |resources: &Resources<Prepared>| resources.prepared::<Deployment>(&serving.name).unwrap();
    assert_eq!(deployment(&resources), deployment(&alone));
}

#[test]
fn a_kept_template_that_was_deleted_is_made_again_from_a_deployment_that_nobody_edited() {
    let (old, new) = (stdio(", pod: {labels: {v: old}}"), stdio(", pod: {labels: {v: new}}"));
    let serving = fixtures::planned("everything-0old", RevisionState::Serving, 1);
    let template = with(&old, template_of);
    let made = with(&old, |parts| deployment::of(parts, &serving, &template, None));
    let kept = |manager: &str, field: &str| {
        let mut live = made.clone();
        let entry = |manager: &str, field: &str| {
            let fields = serde_json::json!({"f:spec": {field: {}}});
            serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": fields})
        };
        let entries = serde_json::json!([entry("portolan-operator", "f:template"), entry(manager, field)]);
        live.metadata.managed_fields = serde_json::from_value(entries).unwrap();
        let observed = Observed { deployments: vec![live], ..fixtures::nothing() };
        let mut resources = Resources::new(Owner::of(&new).unwrap());
        with(&new, |parts| add_revision(&mut resources, parts, &observed, &serving, None).unwrap());
        resources.prepared::<ControllerRevision>(&serving.name)
    };
    let again = template::kept(&kept("kubectl-scale", "f:replicas").unwrap()).unwrap();
    assert_eq!(again, made.spec.as_ref().unwrap().template);
    assert_eq!(kept("kubectl-edit", "f:template"), None);
}

#[test]
fn definitions_are_stored_plain_while_small_and_compressed_when_large() {
    let build = |json: String| {
        let definitions = Definitions { hash: "sha256:1".into(), json };
        with(&stdio(""), |parts| tools::config_map(parts, "everything-01234567", &definitions).unwrap())
    };
    let small = build("[]".into());
    assert_eq!(small.metadata.name.as_deref(), Some("everything-01234567-tools"));
    assert_eq!(small.data.as_ref().unwrap()["tools.json"], "[]");
    let large = build(format!("[{:?}]", "x".repeat(2_000_000)));
    let compressed = &large.binary_data.as_ref().unwrap()["tools.json"].0;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(compressed.as_slice()), &mut text).unwrap();
    assert_eq!(text.len(), 2_000_004);
    for config_map in [small, large] {
        assert_eq!(tools::stored_hash(&config_map), Some("sha256:1"));
        let mut edited = config_map;
        edited.data = Some([("tools.json".to_owned(), "[1]".to_owned())].into());
        assert_eq!(tools::stored_hash(&edited), None, "an edit by hand is noticed");
    }
}

#[test]
fn a_revision_that_served_is_remembered_with_its_spec_and_as_many_that_are_gone_as_are_asked_for() {
    let kept = |name: &str, since: Option<&str>| -> ControllerRevision {
        let annotations = since.map(|since| BTreeMap::from([(labels::SERVED_SINCE.to_owned(), since.to_owned())]));
        let metadata = ObjectMeta { name: Some(name.into()), annotations, ..ObjectMeta::default() };
        ControllerRevision { metadata, ..ControllerRevision::default() }
    };
    let templates = [
        kept("first", Some("2026-01-01T00:00:00Z")),
        kept("second", Some("2026-01-02T00:00:00.5Z")),
        kept("third", Some("2026-01-03T00:00:00Z")),
        kept("serving", Some("2026-01-04T00:00:00Z")),
        kept("never", None),
    ];
    let plan = Plan { revisions: vec![fixtures::planned("serving", RevisionState::Serving, 1)], delete: Vec::new() };
    assert_eq!(template::history(&templates, &plan, 2), ["third", "second"]);
    assert_eq!(template::history(&templates, &plan, 0), [""; 0]);

    let server = fixtures::stdio();
    let observed = fixtures::nothing();
    let validated = validate::validate(&server, "everything", &observed);
    let (owner, config) = (Owner::of(&server).unwrap(), fixtures::config());
    let parts = Parts::new(&validated, &owner, &config);
    let planned = Planned {
        serving_since: Some(jiff::Timestamp::UNIX_EPOCH),
        ..fixtures::planned("everything-1", RevisionState::Serving, 1)
    };
    let made = template::controller_revision(&parts, &planned, &template_of(&parts), None).unwrap();
    let pending = fixtures::planned("everything-1", RevisionState::Pending, 1);
    let again = template::controller_revision(&parts, &pending, &template_of(&parts), Some(&made)).unwrap();
    assert_eq!(again.metadata.annotations, made.metadata.annotations, "it comes up again");
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations[labels::SERVED_SINCE], "1970-01-01T00:00:00Z");
    let spec: serde_json::Value = serde_json::from_str(&annotations[labels::SPEC]).unwrap();
    assert_eq!(spec["container"]["image"], "registry.example/everything:1");
    assert!(spec.get("replicas").is_none() && spec.get("rollout").is_none(), "{spec}");
}

#[test]
fn of_a_server_that_sleeps_a_revision_runs_until_it_serves_and_the_one_that_serves_meanwhile() {
    let scaled = |more: &str| {
        let autoscaling = format!("{{{more}maxReplicas: 2, metrics: [{{type: InFlight, target: 1}}]}}");
        fixtures::server(&format!("{{container: {{image: i, transport: Stdio}}, autoscaling: {autoscaling}}}"))
    };
    let replicas = |server: &MCPServer, existing: &[Deployment]| {
        let observed = Observed { replicas: 0, deployments: existing.to_vec(), ..fixtures::nothing() };
        let validated = validate::validate(server, "everything", &observed);
        let remembered = existing.first().and_then(|first| first.metadata.name.as_deref());
        let (owner, config) = (Owner::of(server).unwrap(), fixtures::config());
        let wanted =
            wanted(&validated, &observed, Before { serving: remembered, is_settled: false }, &owner, &config).unwrap();
        let built = super::build(&wanted, &validated, &observed, remembered, &owner, &config).unwrap();
        let of = |revision: &Planned| (Some(&revision.name) == built.desired.as_ref(), revision.replicas);
        (built.plan.revisions.iter().map(of).collect::<BTreeSet<_>>(), built.desired.unwrap())
    };
    let sleeps = scaled("minReplicas: 0, ");
    let (first, name) = replicas(&sleeps, &[]);
    assert_eq!(first, [(true, 1)].into());
    let serving = |name: &str| -> Deployment {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "annotations": {(SERVING_SINCE): "1970-01-01T00:00:01Z"}},
            "spec": {"replicas": 0, "selector": {}, "template": {}},
        }))
        .unwrap()
    };
    assert_eq!(replicas(&sleeps, &[serving(&name)]).0, [(true, 0)].into(), "it sleeps");
    assert_eq!(replicas(&sleeps, &[serving("everything-older")]).0, [(true, 1), (false, 1)].into());
}
