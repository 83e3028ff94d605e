//! The generated CRDs and the defaults of the types.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

use std::{fs, path::Path, process::Command, time::Duration};

use kube::CustomResourceExt;
use portolan_crds::{
    API_VERSION, CATEGORY, GROUP, MCPGateway, MCPServer, MCPToolset, VERSION,
    server::{Limits, SessionType, Sessions, Transport},
};
use serde_json::Value;

fn generated() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("generated")
}

fn crdgen(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

/// Calls `see` for a schema and every schema below it.
fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), see);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            walk(&schema[below], &format!("{path}[]"), see);
        }
    }
}

fn schema_of<K: CustomResourceExt>() -> Value {
    let version = K::crd().spec.versions.remove(0);
    serde_json::to_value(version.schema.unwrap().open_api_v3_schema).unwrap()
}

#[test]
fn the_committed_yaml_matches_the_types() {
    let (code, said) = crdgen(&["--check", generated().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn drift_is_refused_with_the_command_that_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(crdgen(&["--out", path]).0, Some(0));
    assert_eq!(crdgen(&["--check", path]).0, Some(0));

    let file = directory.path().join("mcpgateways.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "# edited\n").unwrap();
    let (code, said) = crdgen(&["--check", path]);
    assert_eq!(code, Some(1));
    assert!(said.contains("mcpgateways.yaml differs from the types") && said.contains("--out"), "{said}");

    fs::remove_file(&file).unwrap();
    assert_eq!(crdgen(&["--check", path]).0, Some(1));
    assert_eq!(crdgen(&["--chek", path]).0, Some(2));
}

#[test]
fn printed_crds_are_the_committed_ones() {
    let committed = ["mcpservers.yaml", "mcpgateways.yaml", "mcptoolsets.yaml"]
        .map(|file| fs::read_to_string(generated().join(file)).unwrap());
    assert_eq!(crdgen(&[]), (Some(0), committed.map(|yaml| format!("---\n{yaml}")).concat()));
}

#[test]
fn names_in_the_crds_are_the_constants() {
    for (_, crd) in portolan_crds::crds() {
        assert_eq!(crd.spec.group, GROUP);
        assert_eq!(crd.spec.versions[0].name, VERSION);
        assert_eq!(format!("{GROUP}/{VERSION}"), API_VERSION);
        assert_eq!(crd.spec.names.categories, Some(vec![CATEGORY.to_owned()]));
        assert_eq!(crd.spec.scope, "Namespaced");
    }
    assert_eq!(MCPServer::crd_name(), "mcpservers.portolan.dev");
    assert_eq!(MCPGateway::crd_name(), "mcpgateways.portolan.dev");
    assert_eq!(MCPServer::shortnames(), ["mcps"]);
    assert_eq!(MCPGateway::shortnames(), ["mcpgw"]);
    assert_eq!(MCPToolset::crd_name(), "mcptoolsets.portolan.dev");
    assert_eq!(MCPToolset::shortnames(), ["mcpts"]);
}

#[test]
fn kubectl_scale_and_columns_read_fields_that_exist() {
    for (_, crd) in portolan_crds::crds() {
        let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
        let scale = &version["subresources"]["scale"];
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let paths = columns
            .iter()
            .map(|column| &column["jsonPath"])
            .chain(["specReplicasPath", "statusReplicasPath", "labelSelectorPath"].map(|path| &scale[path]))
            // What has no replicas has no scale.
            .filter(|path| !(scale.is_null() && path.is_null()));
        for path in paths.map(|path| path.as_str().unwrap()).filter(|path| !path.starts_with(".metadata")) {
            // A filter holds dots of its own: what follows it is a field of the items. Of a choice each must lead there.
            let plain = path.replace(r#"[?(@.type=="Ready")]"#, "[0]");
            for plain in ["container", "remote"].map(|one| plain.replace("['container','remote']", &format!(".{one}")))
            {
                let mut schema = &version["schema"]["openAPIV3Schema"];
                for name in plain.split('.').skip(1) {
                    let (name, indexed) = name.strip_suffix("[0]").map_or((name, false), |name| (name, true));
                    schema = &schema["properties"][name];
                    if indexed {
                        schema = &schema["items"];
                    }
                }
                assert!(schema["type"].is_string(), "{}: {plain} leads nowhere", crd.spec.names.kind);
            }
        }
    }
}

#[test]
fn lists_of_named_objects_merge_by_name() {
    let mut maps = Vec::new();
    for (kind, schema) in [
        ("server", schema_of::<MCPServer>()),
        ("gateway", schema_of::<MCPGateway>()),
        ("toolset", schema_of::<MCPToolset>()),
    ] {
        walk(&schema, kind, &mut |path, schema| {
            if schema["x-kubernetes-list-type"] == "map" {
                maps.push(format!("{path} {}", schema["x-kubernetes-list-map-keys"][0].as_str().unwrap()));
            }
        });
    }
    maps.sort();
    assert_eq!(
        maps,
        [
            "gateway.spec.authentication.apiKeys name",
            "gateway.status.conditions type",
            "server.spec.autoscaling.metrics type",
            "server.spec.canaryChecks.checks name",
            "server.spec.container.env name",
            "server.spec.container.imagePullSecrets name",
            "server.spec.container.volumeMounts mountPath",
            "server.spec.container.volumes name",
            "server.status.conditions type",
            "server.status.endpoints gateway",
            "server.status.revisions name",
            "toolset.spec.servers name",
            "toolset.spec.servers[].tools name",
        ]
    );
}

#[test]
fn the_schema_holds_nothing_that_the_api_server_warns_of_or_keeps_null() {
    for schema in [schema_of::<MCPServer>(), schema_of::<MCPGateway>(), schema_of::<MCPToolset>()] {
        walk(&schema, "", &mut |path, schema| {
            if let Some(format) = schema["format"].as_str() {
                assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
            }
            assert!(schema["nullable"] != true || path == ".status", "{path} keeps nulls");
        });
    }
}

#[test]
fn a_server_of_three_fields_gets_every_default() {
    let server: MCPServer = serde_saphyr::from_str(
        "apiVersion: portolan.dev/v1alpha1\nkind: MCPServer\nmetadata: {name: a}\nspec:\n  container: {image: a, transport: Stdio, command: [a]}\n",
    )
    .unwrap();
    let spec = server.spec;
    assert_eq!(spec.container.unwrap().transport, Transport::Stdio);
    assert_eq!(spec.replicas, 1);
    assert_eq!(spec.sessions, Sessions::default());
    assert_eq!(spec.sessions.type_, SessionType::Stateful);
    assert_eq!(spec.sessions.idle_timeout().as_std(), Duration::from_secs(30 * 60));
    assert_eq!(spec.sessions.max_per_replica(), 64);
    assert_eq!(spec.health_check.interval.as_std(), Duration::from_secs(10));
    assert_eq!(spec.health_check.timeout.as_std(), Duration::from_secs(3));
    assert_eq!((spec.health_check.unhealthy_threshold, spec.health_check.healthy_threshold), (3, 1));
    assert_eq!(spec.timeouts.request.as_std(), Duration::from_secs(30));
    assert_eq!(spec.limits, Limits { max_parallel_requests: 200, max_pending_requests: 100 });
    assert_eq!(spec.rollout.drain_timeout.as_std(), Duration::from_secs(600));
    assert_eq!(spec.pod, portolan_crds::server::Pod::default());
}

#[test]
fn a_gateway_of_one_field_gets_every_default_and_none_that_admits_anyone() {
    let gateway: MCPGateway = serde_saphyr::from_str(
        "apiVersion: portolan.dev/v1alpha1\nkind: MCPGateway\nmetadata: {name: a}\nspec:\n  replicas: 2\n",
    )
    .unwrap();
    assert_eq!(gateway.spec.replicas, 2);
    assert!(!gateway.spec.authentication.admits_someone());
    assert_eq!(gateway.spec.http.max_body_bytes, 4_194_304);
    assert!(gateway.spec.http.allowed_hosts.is_empty() && gateway.spec.http.allowed_origins.is_empty());
}
