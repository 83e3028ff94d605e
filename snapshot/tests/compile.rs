//! What comes of inputs: the snapshot as an operator is told of it, and what one bad object does not do to others.

#![allow(clippy::expect_used, reason = "a panic is the report")]

use k8s_openapi::ByteString;
use portolan_crds::MCPToolset;
use portolan_mcp::token::{Binding, Claims, SessionKey};
use portolan_policy::identity::Identity;
use portolan_snapshot::{
    Compiled, Inputs, Report, Snapshot, Unusable, compile,
    compile::{GatewayProblem, ServerProblem},
    inputs::{Unreadable, secret_key},
    report::{BadLine, Kind},
    snapshot::{Holder, Pod},
};

const INPUTS: &str = r"
gateway:
  apiVersion: portolan.dev/v1alpha1
  kind: MCPGateway
  metadata: {namespace: portolan, name: default, uid: uid-gateway, generation: 4}
  spec:
    authentication: {apiKeys: [{name: ci, secretRef: {name: keys}}], serviceAccounts: {audiences: [portolan]}}
    servers: {namespaceSelector: {matchLabels: {team: a}}}
    http: {allowedHosts: [mcp.example.com], maxBodyBytes: 2048}
servers:
- apiVersion: portolan.dev/v1alpha1
  kind: MCPServer
  metadata: {namespace: default, name: everything, uid: uid-1, generation: 2}
  spec: {container: {image: x, transport: Stdio, command: [x]}, timeouts: {request: 5s}, limits: {maxParallelRequests: 7}}
  status:
    revisions:
    - {name: everything-aaaaaaaa, state: Draining, weight: 0, generation: 1}
    - {name: everything-bbbbbbbb, state: Serving, weight: 100, generation: 2}
- apiVersion: portolan.dev/v1alpha1
  kind: MCPServer
  metadata: {namespace: default, name: idle, uid: uid-2, generation: 1}
  spec: {container: {image: x, transport: Stdio, command: [x]}}
- apiVersion: portolan.dev/v1alpha1
  kind: MCPServer
  metadata: {namespace: elsewhere, name: everything, uid: uid-3, generation: 1}
  spec: {container: {image: x, transport: Stdio, command: [x]}}
namespaces: {default: {team: a}, elsewhere: {team: b}}
slices:
- metadata: {namespace: default, name: old, labels: {portolan.dev/server: everything, portolan.dev/revision: everything-aaaaaaaa}}
  addressType: IPv4
  ports: [{name: data, port: 8700}]
  endpoints:
  - {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: old-1, uid: pod-1}}
- metadata: {namespace: default, name: new-v6, labels: {portolan.dev/server: everything, portolan.dev/revision: everything-bbbbbbbb}}
  addressType: IPv6
  ports: [{name: admin, port: 8701}, {name: data, port: 8700}]
  endpoints: [{addresses: ['fd00::2'], targetRef: {kind: Pod, name: new-1, uid: pod-2}}]
- metadata: {namespace: default, name: new-v4, labels: {portolan.dev/server: everything, portolan.dev/revision: everything-bbbbbbbb}}
  addressType: IPv4
  ports: [{name: data, port: 8700}]
  endpoints:
  - {addresses: [10.0.0.2], targetRef: {kind: Pod, name: new-1, uid: pod-2}}
  - {addresses: [10.0.0.3], conditions: {ready: false}, targetRef: {kind: Pod, name: new-2, uid: pod-3}}
  - {addresses: [10.0.0.4]}
- metadata: {namespace: default, name: foreign}
  addressType: IPv4
  ports: [{name: data, port: 1}]
  endpoints: [{addresses: [10.0.0.9], targetRef: {kind: Pod, name: x, uid: pod-9}}]
secret: {}
";

fn inputs() -> Inputs {
    let mut inputs: Inputs = serde_saphyr::from_str(INPUTS).expect("inputs");
    let keys = [
        secret_key::session(0),
        secret_key::STREAM.into(),
        secret_key::server("default", "everything"),
        secret_key::server("default", "idle"),
    ];
    inputs.secret = keys.into_iter().map(|key| (key, ByteString(vec![1; 32]))).collect();
    let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    inputs.secret.insert(secret_key::api_key("ci", "alice.smith"), ByteString(hash.into()));
    inputs
}

fn good(inputs: &Inputs, previous: Option<&Snapshot>) -> Snapshot {
    let Compiled { snapshot, diagnostics } = compile(inputs, previous).expect("usable");
    assert_eq!(diagnostics, Default::default());
    snapshot
}

#[test]
fn the_snapshot_says_what_the_objects_say() {
    let Compiled { snapshot, diagnostics } = compile(&inputs(), None).expect("usable");
    insta::assert_yaml_snapshot!(Report::whole(&snapshot, &diagnostics));
    let route = &snapshot.routes["default/everything"];
    let mut pods: Vec<&Pod> = route.pods.values().collect();
    pods.sort_by_key(|pod| &pod.uid);
    insta::assert_debug_snapshot!(pods);
    assert_eq!((route.settings.request_timeout.as_secs(), route.settings.max_parallel_requests), (5, 7));
    assert_eq!(route.settings.max_pending_requests, 100, "the default");
    assert_eq!(snapshot.http.max_body_bytes, 2048);
    assert_eq!(snapshot.authentication.api_keys.identify("abc").map(Identity::subject), Some("alice.smith"));
    assert_eq!(snapshot.authentication.api_keys.identify("abc").map(Identity::issuer), Some("apikeys/ci"));
    assert_eq!(&*snapshot.authentication.audiences, ["portolan"]);
    assert!(!snapshot.authentication.anonymous);
}

#[test]
fn the_gateway_answers_to_its_service_in_the_clusters_own_domain_and_in_no_other() {
    let answers = |inputs: &Inputs, host: &str| {
        let uri = format!("http://{host}/default/everything/mcp").parse().expect("a target");
        let headers = [(http::header::HOST, host.parse().expect("a host"))].into_iter().collect();
        good(inputs, None).http.rules.check(&uri, &headers).is_ok()
    };
    let mut inputs = inputs();
    let service = "portolan-gateway-default.portolan.svc";
    for (domain, other) in [("cluster.local", "corp.example"), ("corp.example", "cluster.local")] {
        inputs.cluster_domain = domain.parse().expect("a domain");
        assert!(answers(&inputs, &format!("{service}.{domain}")), "{domain}");
        assert!(!answers(&inputs, &format!("{service}.{other}")), "{other} where the cluster has {domain}");
    }
    assert!(answers(&inputs, service));
}

#[test]
fn a_server_whose_key_is_missing_keeps_its_last_good_version_and_others_move_on() {
    let first = good(&inputs(), None);
    let mut next = inputs();
    next.secret.remove(&secret_key::server("default", "everything"));
    next.servers[0].metadata.generation = Some(3);
    next.servers[1].metadata.generation = Some(2);
    next.slices.remove(0);
    let Compiled { snapshot, diagnostics } = compile(&next, Some(&first)).expect("usable");
    let generation = |name: &str| snapshot.routes[name].settings.version.generation;
    assert_eq!((generation("default/everything"), generation("default/idle")), (2, 2));
    assert!(!snapshot.routes["default/everything"].pods.contains_key("pod-1"), "where its pods are is never old");
    assert_eq!(diagnostics.servers.len(), 1);
    assert!(matches!(diagnostics.servers.values().next(), Some(ServerProblem::NoKey(_))));
    // Nothing to keep: no route, and a reason.
    let Compiled { snapshot, diagnostics } = compile(&next, None).expect("usable");
    assert!(!snapshot.routes.contains_key("default/everything"));
    assert_eq!(diagnostics.servers.len(), 1);
    // Another object of that name is not an earlier version of it.
    next.servers[0].metadata.uid = Some("uid-new".into());
    let Compiled { snapshot, .. } = compile(&next, Some(&first)).expect("usable");
    assert!(!snapshot.routes.contains_key("default/everything"));
}

#[test]
fn a_session_on_a_pod_that_is_not_known_is_waited_for_while_it_is_young_and_gone_afterwards() {
    let mut later = inputs();
    later.slices.retain(|slice| slice.metadata.name.as_deref() != Some("old"));
    let snapshot = good(&later, Some(&good(&inputs(), None)));
    let holder = |pod: &str, now| {
        let claims = Claims {
            session: SessionKey::generate().expect("random"),
            revision: "everything-bbbbbbbb".into(),
            pod: Some(pod.into()),
            issued: 100,
            expires: 1_000,
        };
        snapshot.routes["default/everything"].holder(&claims, now)
    };
    assert!(matches!(holder("pod-2", 100), Holder::Pod(pod) if &*pod.uid == "pod-2"));
    assert_eq!(holder("pod-of-another-replicas-news", 109), Holder::Unheard);
    assert_eq!(holder("pod-of-another-replicas-news", 110), Holder::Gone);
    assert_eq!(holder("pod-1", 100), Holder::Gone, "it was here and is gone");
}

#[test]
fn a_server_that_is_being_deleted_is_served_no_more_whatever_holds_it_back() {
    let mut next = inputs();
    let first = good(&next, None);
    assert!(first.routes.contains_key("default/everything"));
    next.servers[0].metadata.deletion_timestamp = serde_json::from_str(r#""2026-01-01T00:00:00Z""#).expect("a time");
    let second = good(&next, Some(&first));
    assert!(!second.routes.contains_key("default/everything"));
    assert!(second.routes.contains_key("default/idle"));
}

#[test]
fn a_server_that_cannot_be_read_keeps_its_last_good_version() {
    let first = good(&inputs(), None);
    let mut next = inputs();
    next.servers.remove(0);
    next.unreadable = vec![Unreadable {
        namespace: "default".into(),
        name: "everything".into(),
        uid: Some("uid-1".into()),
        labels: [("expose".to_owned(), "yes".to_owned())].into(),
        message: "odd".into(),
    }];
    let Compiled { snapshot, diagnostics } = compile(&next, Some(&first)).expect("usable");
    let route = &snapshot.routes["default/everything"];
    assert_eq!((route.settings.version.generation, route.pods.len()), (2, 3));
    let report = Report::whole(&snapshot, &diagnostics);
    assert!(report.servers["default/everything"].problem.as_ref().is_some_and(|problem| problem.contains("odd")));
    assert!(report.servers["default/everything"].loaded.is_some());
    let compile = |next: &Inputs| compile(next, Some(&first)).expect("usable");
    // Selectors hold for it as for every other.
    next.gateway.spec.servers.selector = serde_saphyr::from_str("{matchLabels: {expose: 'yes'}}").ok();
    assert!(compile(&next).snapshot.routes.contains_key("default/everything"));
    next.gateway.spec.servers.selector = serde_saphyr::from_str("{matchLabels: {expose: 'no'}}").ok();
    let Compiled { snapshot, diagnostics } = compile(&next);
    assert!(!snapshot.routes.contains_key("default/everything"), "what is selected no more is served no more");
    assert!(diagnostics.servers.is_empty());
    // Another object of that name was never good.
    next.gateway.spec.servers.selector = None;
    next.unreadable[0].uid = Some("uid-new".into());
    let Compiled { snapshot, diagnostics } = compile(&next);
    assert!(!snapshot.routes.contains_key("default/everything"));
    assert_eq!(diagnostics.servers.len(), 1);
}

#[test]
fn bad_entries_of_the_gateway_let_nobody_in_and_are_named() {
    let mut next = inputs();
    next.secret.insert(secret_key::api_key("ci", "bob"), ByteString(b"the key itself".to_vec()));
    next.gateway.spec.http.allowed_hosts.push("*".into());
    let Compiled { snapshot, diagnostics } = compile(&next, None).expect("usable");
    assert_eq!(snapshot.authentication.api_keys.len(), 1);
    let [GatewayProblem::BadApiKey { entry, .. }, GatewayProblem::Http(_)] = &*diagnostics.gateway else {
        panic!("{:?}", diagnostics.gateway)
    };
    assert_eq!(entry, "bob");
    assert!(!diagnostics.gateway[0].to_string().contains("the key itself"));
}

#[test]
fn an_unreadable_selector_selects_nothing() {
    let mut next = inputs();
    next.gateway.spec.servers.selector = serde_saphyr::from_str("{matchExpressions: [{key: a, operator: Like}]}").ok();
    let Compiled { snapshot, diagnostics } = compile(&next, None).expect("usable");
    assert!(snapshot.routes.is_empty());
    assert!(matches!(&*diagnostics.gateway, [GatewayProblem::Selector(_)]));
}

#[test]
fn session_keys_rotate_in_their_order_and_are_kept_when_the_secret_is_gone() {
    let binding = Binding { principal: &[1; 32], route: "default/everything" };
    let claims = Claims {
        session: SessionKey::generate().expect("random"),
        revision: "everything-bbbbbbbb".into(),
        pod: None,
        issued: 0,
        expires: 10,
    };
    let old = good(&inputs(), None);
    let token = old.keyring.seal(&claims, binding).expect("seals");
    let mut next = inputs();
    next.secret.insert(secret_key::session(1), ByteString(vec![1; 32]));
    next.secret.insert(secret_key::session(0), ByteString(vec![2; 32]));
    let rotated = good(&next, Some(&old));
    assert!(rotated.keyring.open(&token, binding, 0).is_ok());
    let fresh = rotated.keyring.seal(&claims, binding).expect("seals");
    assert!(old.keyring.open(&fresh, binding, 0).is_err(), "the first key seals");
    next.secret.clear();
    let Compiled { snapshot, diagnostics } = compile(&next, Some(&rotated)).expect("usable");
    assert!(snapshot.keyring.open(&fresh, binding, 0).is_ok());
    assert!(snapshot.authentication.api_keys.is_empty(), "keys that are gone let nobody in");
    assert!(diagnostics.gateway.contains(&GatewayProblem::SessionKeys(Unusable)));
    assert_eq!(compile(&next, None).err(), Some(Unusable));
}

#[test]
fn a_reader_of_changes_knows_what_a_reader_of_everything_knows() {
    let first = good(&inputs(), None);
    let mut next = inputs();
    next.servers.remove(1);
    next.servers[0].metadata.generation = Some(9);
    let second = good(&next, Some(&first));
    let (one, two) = (Report::whole(&first, &Default::default()), Report::whole(&second, &Default::default()));
    let change = two.since(&one);
    assert_eq!(
        (change.kind, change.servers.len(), &*change.removed),
        (Kind::Change, 1, &["default/idle".to_owned()][..])
    );
    assert_eq!(change.gateway, None);
    let mut state = None;
    for line in [one, change, two.heartbeat()] {
        let line = serde_json::to_string(&line).expect("writes");
        Report::apply(&mut state, serde_json::from_str(&line).expect("reads")).expect("follows");
    }
    assert_eq!(state, Some(two.clone()));
    assert_eq!(Report::apply(&mut None, two.heartbeat()), Err(BadLine::NoWholeBefore));
    let later = Report { contract: 2, ..two };
    assert_eq!(Report::apply(&mut None, later), Err(BadLine::UnknownContract(2)));
}

#[test]
fn sealed_inputs_are_the_same_inputs() {
    let text = serde_json::to_string(&inputs()).expect("writes");
    let read: Inputs = serde_json::from_str(&text).expect("reads");
    let (one, two) = (good(&inputs(), None), good(&read, None));
    assert_eq!(Report::whole(&one, &Default::default()), Report::whole(&two, &Default::default()));
    assert_eq!(read.secret, inputs().secret);
}

fn toolset(name: &str, servers: &str) -> MCPToolset {
    let metadata = format!("{{namespace: default, name: {name}, uid: uid-{name}, generation: 1}}");
    serde_saphyr::from_str(&format!("metadata: {metadata}\nspec: {{servers: {servers}}}")).expect("a toolset")
}

fn toolset_problems(inputs: &Inputs, previous: Option<&Snapshot>) -> (Snapshot, Vec<String>) {
    let Compiled { snapshot, diagnostics } = compile(inputs, previous).expect("usable");
    let problems = diagnostics.toolsets.values().flatten().map(ToString::to_string).collect();
    (snapshot, problems)
}

#[test]
fn a_toolset_is_its_servers_and_one_that_is_not_served_is_named_and_takes_nothing_from_the_others() {
    let mut inputs = inputs();
    inputs.toolsets = vec![toolset("mine", "[{name: everything, tools: [{name: a, as: b}]}]")];
    let (snapshot, problems) = toolset_problems(&inputs, None);
    assert_eq!(problems, [] as [String; 0]);
    let tool = snapshot.toolsets["default/mine"].selection.tool("b").map(|owned| (owned.member.route(), owned.own));
    assert_eq!(tool, Some(("default/everything".to_owned(), "a")));
    inputs.toolsets = vec![toolset("mine", "[{name: everything}, {name: absent}]")];
    let (snapshot, problems) = toolset_problems(&inputs, None);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("\"absent\", which is not served here; name an MCPServer"), "{problems:?}");
    assert!(snapshot.toolsets["default/mine"].selection.has("default/everything"));
}

#[test]
fn a_toolset_in_which_two_tools_have_one_name_or_that_cannot_be_read_keeps_its_last_good_version() {
    let mut inputs = inputs();
    let good = toolset("mine", "[{name: everything}]");
    let bad =
        toolset("mine", "[{name: everything, tools: [{name: a, as: x}]}, {name: idle, tools: [{name: b, as: x}]}]");
    inputs.toolsets = vec![bad.clone()];
    let (never, problems) = toolset_problems(&inputs, None);
    assert!(never.toolsets.is_empty());
    assert_eq!(problems, ["everything/a and idle/b are both shown as \"x\"; write another `as` for one of them"]);
    inputs.toolsets = vec![good];
    let (last, _) = toolset_problems(&inputs, None);
    inputs.toolsets = vec![bad];
    let (kept, _) = toolset_problems(&inputs, Some(&last));
    assert_eq!(kept.toolsets["default/mine"], last.toolsets["default/mine"]);
    inputs.toolsets[0].metadata.uid = Some("another".into());
    assert!(
        toolset_problems(&inputs, Some(&last)).0.toolsets.is_empty(),
        "another object of that name is no version of it"
    );
    inputs.toolsets.clear();
    let unreadable = |uid: &str| Unreadable {
        namespace: "default".into(),
        name: "mine".into(),
        uid: Some(uid.into()),
        labels: Default::default(),
        message: "spec.servers: invalid type".into(),
    };
    inputs.unreadable_toolsets = vec![unreadable("uid-mine")];
    let (kept, problems) = toolset_problems(&inputs, Some(&last));
    assert_eq!(kept.toolsets["default/mine"], last.toolsets["default/mine"]);
    assert!(problems[0].contains("spec.servers: invalid type"), "{problems:?}");
    inputs.unreadable_toolsets.clear();
    assert!(toolset_problems(&inputs, Some(&last)).0.toolsets.is_empty(), "one that is deleted is gone");
}
