//! What the real API server and kubectl make of the definitions: the cases that the crate `portolan-crds` decides
//! without a cluster, defaults, columns, names and scale.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use std::fs;
use std::future::Future;

use kube::api::{Patch, PatchParams};
use portolan_crds::admission::admit;
use portolan_crds::{MCPGateway, MCPServer, MCPToolset};
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::paths::repo;
use portolan_tests::tidy;
use serde_json::{Value, json};

/// One object, and what must be said of it.
struct Case {
    name: String,
    text: String,
    object: Value,
    /// Fragments of the refusal; none when the object is accepted.
    refused: Vec<String>,
}

/// The case files, of which the crate's own tests say how they are written.
fn cases() -> Vec<Case> {
    let mut cases: Vec<_> =
        fs::read_dir(repo("crds/tests/cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 100, "only {} cases were found", cases.len());
    cases
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let refused =
                text.lines().filter_map(|line| line.strip_prefix("# rejected: ")).map(str::to_owned).collect();
            let object = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            Case { name, text, object, refused }
        })
        .collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"))
}

/// Creates what a YAML text says, as a dry run and with unknown fields refused. The API server reads the text itself.
async fn create(cluster: &Cluster, kind: &str, text: &str) -> Result<Value, String> {
    let plural = format!("{}s", kind.to_lowercase());
    let path = format!("/apis/portolan.dev/v1alpha1/namespaces/{TENANT}/{plural}?dryRun=All&fieldValidation=Strict");
    let request = http::Request::post(path).header("Content-Type", "application/yaml").body(text.into()).unwrap();
    match cluster.client.request(request).await {
        Ok(created) => Ok(created),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => Err(status.message),
        Err(error) => panic!("the API server did not decide: {error}"),
    }
}

async fn decide(cluster: &Cluster, case: &Case) -> Result<Value, String> {
    create(cluster, case.object["kind"].as_str().unwrap(), &case.text).await
}

#[tokio::test]
async fn a_field_that_breaks_a_rule_is_rejected_with_a_message_that_says_what_to_write() {
    let cluster = Cluster::connect().await;
    let mut wrong = Vec::new();
    for case in cases().into_iter().filter(|case| !case.refused.is_empty()) {
        match decide(&cluster, &case).await {
            Ok(_) => wrong.push(format!("{}: accepted", case.name)),
            Err(said) => wrong.extend(
                case.refused
                    .iter()
                    .filter(|fragment| !said.contains(fragment.as_str()))
                    .map(|fragment| format!("{}: {fragment:?} is not in: {said}", case.name)),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_keeps_every_rule_is_accepted() {
    let cluster = Cluster::connect().await;
    let mut wrong = Vec::new();
    for case in cases().into_iter().filter(|case| case.refused.is_empty()) {
        if let Err(said) = decide(&cluster, &case).await {
            wrong.push(format!("{}: {said}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_api_server_fills_in_the_defaults_that_a_file_gets() {
    let cluster = Cluster::connect().await;
    let mut wrong = Vec::new();
    for case in cases().into_iter().filter(|case| case.refused.is_empty()) {
        let created = decide(&cluster, &case).await.unwrap();
        let (created, file) = match case.object["kind"].as_str().unwrap() {
            "MCPServer" => (
                serde_json::from_value(created).and_then(|object: MCPServer| serde_json::to_value(object.spec)),
                serde_json::to_value(admit::<MCPServer>(&case.object).unwrap().spec),
            ),
            "MCPToolset" => (
                serde_json::from_value(created).and_then(|object: MCPToolset| serde_json::to_value(object.spec)),
                serde_json::to_value(admit::<MCPToolset>(&case.object).unwrap().spec),
            ),
            _ => (
                serde_json::from_value(created).and_then(|object: MCPGateway| serde_json::to_value(object.spec)),
                serde_json::to_value(admit::<MCPGateway>(&case.object).unwrap().spec),
            ),
        };
        let (created, file) = (created.unwrap(), file.unwrap());
        if created != file {
            wrong.push(format!("{}: the API server {created}, a file {file}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_minimal_server_gets_its_defaults() {
    let cluster = Cluster::connect().await;
    let created = decide(&cluster, &case("server-minimal-stdio")).await.unwrap();
    let defaults = json!({
        "replicas": 1,
        "container": {"resources": {}},
        "sessions": {"type": "Stateful"},
        "healthCheck": {"interval": "10s", "timeout": "3s", "healthyThreshold": 1, "unhealthyThreshold": 3},
        "timeouts": {"request": "30s"},
        "limits": {"maxParallelRequests": 200, "maxPendingRequests": 100},
        "rollout": {
            "type": "BlueGreen", "paused": false, "allowToolChanges": false, "revisionHistoryLimit": 5, "drainTimeout": "10m",
        },
        "pod": {},
    });
    let mut expected = case("server-minimal-stdio").object["spec"].clone();
    merge(&mut expected, &defaults);
    assert_eq!(created["spec"], expected);
}

#[tokio::test]
async fn a_minimal_gateway_gets_its_defaults() {
    let cluster = Cluster::connect().await;
    let created = decide(&cluster, &case("gateway-anonymous-spelled-out")).await.unwrap();
    let expected = json!({
        "replicas": 2,
        "authentication": {"anonymous": {}},
        "servers": {},
        "http": {"maxBodyBytes": 4_194_304},
    });
    assert_eq!(created["spec"], expected);
}

/// Adds fields to an object, and to the objects within it.
fn merge(object: &mut Value, fields: &Value) {
    let Some(fields) = fields.as_object() else { return *object = fields.clone() };
    for (name, field) in fields {
        let slot = &mut object[name];
        if slot.is_null() { *slot = field.clone() } else { merge(slot, field) }
    }
}

#[tokio::test]
async fn a_status_that_comes_with_a_new_object_is_left_out() {
    let cluster = Cluster::connect().await;
    let text = format!("{}\nstatus: {{replicas: 7}}\n", case("server-minimal-stdio").text);
    assert_eq!(create(&cluster, "MCPServer", &text).await.unwrap().get("status"), None);
}

#[tokio::test]
async fn kubectl_refuses_an_unknown_field_without_being_asked_to() {
    let path = repo("crds/tests/cases/server-unknown-field.yaml");
    let said = kubectl(&["create", "--dry-run=server", "--filename", path.to_str().unwrap()]).await.unwrap_err();
    assert!(said.contains("strict decoding error: unknown field \"spec."), "{said}");
}

/// The manifest that the chart's notes tell to apply.
async fn manifest_of_the_notes() -> String {
    let chart = repo("charts/portolan");
    let output = tokio::process::Command::new("helm")
        .args(["install", "portolan"])
        .arg(chart)
        .args(["--namespace", "portolan-system", "--dry-run=client"])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("<<YAML\n").unwrap_or_else(|| panic!("{text}{:?}", output.stderr));
    rest.split_once("\nYAML\n").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_server_that_the_charts_notes_show_is_accepted() {
    let cluster = Cluster::connect().await;
    let created = create(&cluster, "MCPServer", &manifest_of_the_notes().await).await.unwrap();
    assert_eq!(created["metadata"]["name"], "demo");
}

/// Runs `body` in a namespace that no operator serves, and deletes that whatever happens.
async fn in_a_namespace<Fut: Future<Output = ()>>(body: impl FnOnce(Cluster, String) -> Fut) {
    let cluster = Cluster::connect().await;
    tidy::in_a_namespace(&cluster, &json!({}), |namespace| body(cluster.clone(), namespace)).await;
}

/// A server and a gateway of the name `shown`; the server with a status as the operator writes it.
async fn show(cluster: &Cluster, namespace: &str) {
    let metadata = json!({"name": "shown", "namespace": namespace});
    let (api_version, authentication) = ("portolan.dev/v1alpha1", json!({"anonymous": {}}));
    let server = json!({"apiVersion": api_version, "kind": "MCPServer", "metadata": metadata,
        "spec": {"container": {"image": "a", "transport": "Stdio", "command": ["a"]}}});
    let gateway = json!({"apiVersion": api_version, "kind": "MCPGateway", "metadata": metadata,
        "spec": {"authentication": authentication}});
    cluster.apply::<MCPServer>(&server).await.unwrap();
    cluster.apply::<MCPGateway>(&gateway).await.unwrap();
    let condition = json!({"type": "Ready", "status": "True", "reason": "Serving", "message": "two tools",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {
        "conditions": [condition], "tools": {"count": 2, "hash": "h"}, "replicas": 3, "readyReplicas": 1,
        "endpoints": [{"gateway": "a/b", "url": "http://gateway/shown/mcp"}], "selector": "portolan.dev/server=shown",
        "server": {"name": "s", "version": "1", "protocolVersion": "2025-11-25", "era": "Legacy"},
    }});
    cluster
        .api::<MCPServer>(namespace)
        .patch_status("shown", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

#[tokio::test]
async fn kubectl_shows_the_columns_of_a_server() {
    in_a_namespace(|cluster, namespace| async move {
        show(&cluster, &namespace).await;
        let shown = kubectl(&["get", "mcps", "--namespace", &namespace]).await.unwrap();
        let [head, row] = rows(&shown);
        assert_eq!(head, ["NAME", "READY", "TRANSPORT", "TOOLS", "REPLICAS", "URL", "AGE"]);
        assert_eq!(row[..6], ["shown", "True", "Stdio", "2", "1", "http://gateway/shown/mcp"]);

        let wide = kubectl(&["get", "mcps", "--namespace", &namespace, "--output", "wide"]).await.unwrap();
        let [head, row] = rows(&wide);
        assert_eq!(head[7..], ["STATUS", "PROTOCOL"]);
        assert_eq!(row[7..], ["two", "tools", "2025-11-25"]);
    })
    .await;
}

#[tokio::test]
async fn kubectl_shows_the_columns_of_a_gateway() {
    in_a_namespace(|cluster, namespace| async move {
        show(&cluster, &namespace).await;
        let status = json!({"status": {"servers": 4, "replicas": 2, "readyReplicas": 1, "url": "http://gateway"}});
        let gateways = cluster.api::<MCPGateway>(&namespace);
        gateways.patch_status("shown", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let shown = kubectl(&["get", "mcpgw", "--namespace", &namespace]).await.unwrap();
        let [head, row] = rows(&shown);
        assert_eq!(head, ["NAME", "READY", "SERVERS", "REPLICAS", "URL", "AGE"]);
        // Nothing is known of Ready yet, and kubectl shows an empty cell.
        assert_eq!(row[..4], ["shown", "4", "1", "http://gateway"]);
    })
    .await;
}

/// Header and only row of a table.
fn rows(table: &str) -> [Vec<&str>; 2] {
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    rows.try_into().unwrap_or_else(|_| panic!("not a header and a row: {table}"))
}

#[tokio::test]
async fn kubectl_knows_short_names_and_the_category() {
    in_a_namespace(|cluster, namespace| async move {
        show(&cluster, &namespace).await;
        let (server, gateway) = ("mcpserver.portolan.dev/shown", "mcpgateway.portolan.dev/shown");
        for (asked, expected) in [("mcps", vec![server]), ("mcpgw", vec![gateway]), ("portolan", vec![gateway, server])]
        {
            let shown = kubectl(&["get", asked, "--namespace", &namespace, "--output", "name"]).await.unwrap();
            let mut found: Vec<_> = shown.lines().collect();
            found.sort_unstable();
            assert_eq!(found, expected, "kubectl get {asked}");
        }
    })
    .await;
}

#[tokio::test]
async fn kubectl_scales_a_server_within_its_bounds() {
    in_a_namespace(|cluster, namespace| async move {
        show(&cluster, &namespace).await;
        kubectl(&["scale", "mcps/shown", "--replicas=3", "--namespace", &namespace]).await.unwrap();
        let servers = cluster.api::<MCPServer>(&namespace);
        assert_eq!(servers.get("shown").await.unwrap().spec.replicas, 3);

        let scale = servers.get_scale("shown").await.unwrap();
        assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(3));
        let status = scale.status.unwrap();
        assert_eq!((status.replicas, status.selector.as_deref()), (3, Some("portolan.dev/server=shown")));

        let said = kubectl(&["scale", "mcps/shown", "--replicas=101", "--namespace", &namespace]).await.unwrap_err();
        assert!(said.contains("spec.replicas"), "{said}");
        assert_eq!(servers.get("shown").await.unwrap().spec.replicas, 3);
    })
    .await;
}
