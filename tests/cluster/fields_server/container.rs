//! What the process is given: program, arguments, environment, port and path, CPU and memory.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::puppet;
use portolan_tests::thirdparty::{Place, server};
use serde_json::{Value, json};

use crate::{Served, content, puppet_with, with};

#[tokio::test]
async fn variables_come_from_values_secrets_and_config_maps_and_absent_optional_ones_do_not_stop_the_server() {
    let cluster = Cluster::connect().await;
    let (secret, config) = ("fields-env-secret", "fields-env-config");
    let secrets = content("Secret", secret, &json!({"TOKEN": "s3cret", "BOTH": "from the secret"}));
    cluster.apply::<Secret>(&secrets).await.expect("made");
    let settings = content("ConfigMap", config, &json!({"LEVEL": "debug", "BOTH": "from the map"}));
    cluster.apply::<ConfigMap>(&settings).await.expect("made");
    let absent = |key: &str| json!({"name": "fields-absent", "key": key, "optional": true});
    let manifest = with(
        server("everything", Place::Container).manifest(TENANT, "fields-env"),
        &json!({"container": {
            "env": [
                {"name": "PLAIN", "value": "as written"},
                {"name": "ONE_SECRET", "valueFrom": {"secretKeyRef": {"name": secret, "key": "TOKEN"}}},
                {"name": "ONE_SETTING", "valueFrom": {"configMapKeyRef": {"name": config, "key": "LEVEL"}}},
                {"name": "NO_SECRET", "valueFrom": {"secretKeyRef": absent("x")}},
                {"name": "NO_SETTING", "valueFrom": {"configMapKeyRef": absent("x")}},
                {"name": "M_LEVEL", "value": "env wins"},
            ],
            "envFrom": [
                {"prefix": "M_", "configMapRef": {"name": config}},
                {"prefix": "S_", "secretRef": {"name": secret}},
                {"configMapRef": {"name": config}},
                {"secretRef": {"name": secret}},
                {"secretRef": {"name": "fields-absent", "optional": true}},
                {"configMapRef": {"name": "fields-absent", "optional": true}},
            ],
        }}),
    );
    let served = Served::from(&manifest).await;
    let reply = served.session().await.call(1, "get-env", json!({})).await.expect("answers");
    let text = reply.answer()["result"]["content"][0]["text"].as_str().expect("text").to_owned();
    let env: Value = serde_json::from_str(&text).expect("get-env answers with JSON");
    for (name, value) in [
        ("PLAIN", json!("as written")),
        ("ONE_SECRET", json!("s3cret")),
        ("ONE_SETTING", json!("debug")),
        ("NO_SECRET", Value::Null),
        ("NO_SETTING", Value::Null),
        ("M_LEVEL", json!("env wins")),
        ("M_BOTH", json!("from the map")),
        ("S_TOKEN", json!("s3cret")),
        ("BOTH", json!("from the secret")),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    served.gone().await;
    cluster.delete::<Secret>(TENANT, secret).await;
    cluster.delete::<ConfigMap>(TENANT, config).await;
}

#[tokio::test]
async fn the_process_is_command_then_args() {
    let manifest = puppet_with("fields-args", &json!({"container": {"args": ["one", "two words"]}}));
    let served = Served::from(&manifest).await;
    assert_eq!(served.eval("process.argv.slice(1)").await, json!(["one", "two words"]));
    served.gone().await;
}

#[tokio::test]
async fn an_http_server_is_asked_on_its_port_and_path() {
    let served = Served::from(&with(puppet::http(TENANT, "fields-path", 4004, "/tools/rpc"), &json!({}))).await;
    assert_eq!(served.eval("process.argv.slice(1)").await, json!(["4004", "/tools/rpc"]));
    served.gone().await;
}

#[tokio::test]
async fn requests_and_limits_are_the_cgroups_of_the_container() {
    let resources = json!({
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "750m", "memory": "192Mi"},
    });
    let served = Served::from(&puppet_with("fields-resources", &json!({"container": {"resources": resources}}))).await;
    // Version 1 has a folder for each controller, version 2 one for all.
    let seen = served
        .eval(
            "const read = path => { try { return fs.readFileSync('/sys/fs/cgroup/' + path, 'utf8').trim(); } catch { return null; } }; \
             ({memory: read('memory/memory.limit_in_bytes') ?? read('memory.max'), \
               quota: read('cpu/cpu.cfs_quota_us') ?? read('cpu.max')?.split(' ')[0], \
               shares: read('cpu/cpu.shares'), weight: read('cpu.weight')})",
        )
        .await;
    assert_eq!(seen["memory"], (192 * 1024 * 1024).to_string(), "{seen}");
    assert_eq!(seen["quota"], "75000", "{seen}");
    // 100m of 1024 shares; version 2 maps 2…262144 shares to 1…10000.
    assert!(seen["shares"] == "102" || seen["weight"] == "4", "{seen}");
    served.gone().await;
}

#[tokio::test]
async fn a_request_that_no_node_has_is_not_scheduled() {
    let cluster = Cluster::connect().await;
    let name = "fields-huge";
    let manifest = puppet_with(name, &json!({"container": {"resources": {"requests": {"memory": "900Ti"}}}}));
    cluster.apply::<portolan_crds::MCPServer>(&manifest).await.expect("accepted");
    let ready =
        cluster.condition(TENANT, name, "Ready", "False", "PodNotScheduled", portolan_tests::wait::PATIENCE).await;
    assert!(ready.message.contains("Insufficient memory"), "{}", ready.message);
    cluster.delete::<portolan_crds::MCPServer>(TENANT, name).await;
}
