//! Volumes, read and written by a server of files.

use std::os::unix::fs::PermissionsExt;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::Session;
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{Served, apply_global, content, delete_global, with};

/// server-filesystem that may use those folders.
fn filesystem(name: &str, folders: &[&str], volumes: &Value, mounts: &Value) -> Value {
    with(
        server("filesystem", Place::Container).manifest(TENANT, name),
        &json!({"container": {"args": folders, "volumes": volumes, "volumeMounts": mounts}}),
    )
}

/// What a tool of files says, or its error.
async fn ask(session: &Session, tool: &str, arguments: Value) -> Result<String, String> {
    let reply = session.call(1, tool, arguments).await.expect("the server answers");
    let result = &reply.answer()["result"];
    let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    if result["isError"] == true { Err(text) } else { Ok(text) }
}

async fn read(session: &Session, path: &str) -> String {
    ask(session, "read_text_file", json!({"path": path})).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn write(session: &Session, path: &str, content: &str) -> Result<String, String> {
    ask(session, "write_file", json!({"path": path, "content": content})).await
}

async fn list(session: &Session, path: &str) -> String {
    ask(session, "list_directory", json!({"path": path})).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test]
async fn keys_of_config_maps_and_secrets_are_files_and_absent_optional_ones_are_empty_folders() {
    let cluster = Cluster::connect().await;
    let name = "fields-files";
    let map = content("ConfigMap", name, &json!({"app": "from the map", "other": "x"}));
    cluster.apply::<ConfigMap>(&map).await.expect("made");
    let secret = content("Secret", name, &json!({"password": "from the secret", "other": "x"}));
    cluster.apply::<Secret>(&secret).await.expect("made");
    let volumes = json!([
        {"name": "all", "configMap": {"name": name}},
        {"name": "some", "configMap": {"name": name, "items": [{"key": "app", "path": "conf/app.txt"}]}},
        {"name": "all-secret", "secret": {"secretName": name}},
        {"name": "some-secret", "secret": {"secretName": name, "items": [{"key": "password", "path": "deep/word"}]}},
        {"name": "no-map", "configMap": {"name": "fields-absent", "optional": true}},
        {"name": "no-secret", "secret": {"secretName": "fields-absent", "optional": true}},
    ]);
    let names = ["all", "some", "all-secret", "some-secret", "no-map", "no-secret"];
    let mounts: Vec<_> = names.iter().map(|name| json!({"name": name, "mountPath": format!("/mnt/{name}")})).collect();
    let served = Served::from(&filesystem(name, &["/mnt"], &volumes, &json!(mounts))).await;
    let session = served.session().await;
    assert_eq!(read(&session, "/mnt/all/app").await, "from the map");
    assert_eq!(read(&session, "/mnt/some/conf/app.txt").await, "from the map");
    assert!(!list(&session, "/mnt/some").await.contains("other"), "only the items");
    assert_eq!(read(&session, "/mnt/all-secret/password").await, "from the secret");
    assert_eq!(read(&session, "/mnt/some-secret/deep/word").await, "from the secret");
    assert!(!list(&session, "/mnt/some-secret").await.contains("other"), "only the items");
    for folder in ["/mnt/no-map", "/mnt/no-secret"] {
        // The kubelet's own entries start with two dots.
        let files: Vec<_> =
            list(&session, folder).await.lines().filter(|line| !line.contains(" ..")).map(str::to_owned).collect();
        assert!(files.concat().is_empty(), "{folder} is empty: {files:?}");
    }
    served.gone().await;
    cluster.delete::<Secret>(TENANT, name).await;
    cluster.delete::<ConfigMap>(TENANT, name).await;
}

#[tokio::test]
async fn an_empty_dir_in_memory_holds_what_its_size_limit_allows() {
    let volumes = json!([{"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let mounts = json!([{"name": "cache", "mountPath": "/cache"}]);
    let served = Served::from(&filesystem("fields-memory", &["/cache"], &volumes, &mounts)).await;
    let session = served.session().await;
    write(&session, "/cache/half", &"x".repeat(512 * 1024)).await.expect("half fits");
    let full = write(&session, "/cache/more", &"x".repeat(1024 * 1024)).await.expect_err("more does not");
    assert!(full.contains("ENOSPC"), "{full}");
    served.gone().await;
}

/// A volume on the node and a claim that is bound to it, both of that name.
async fn claim(cluster: &Cluster, name: &str, folder: &str, mode: &str) {
    // One that a broken run left behind leads to another folder.
    unclaim(cluster, name).await;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Mi"}, "accessModes": [mode], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": folder}, "claimRef": {"namespace": TENANT, "name": name}}});
    apply_global::<PersistentVolume>(cluster, &volume).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {"accessModes": [mode], "storageClassName": "", "volumeName": name,
            "resources": {"requests": {"storage": "1Mi"}}}});
    cluster.apply::<PersistentVolumeClaim>(&claim).await.expect("made");
}

async fn unclaim(cluster: &Cluster, name: &str) {
    cluster.delete::<PersistentVolumeClaim>(TENANT, name).await;
    delete_global::<PersistentVolume>(cluster, name).await;
}

/// The note is read there, and nothing can be written.
async fn is_sealed(session: &Session, folder: &str) {
    assert_eq!(read(session, &format!("{folder}/note.txt")).await, "kept");
    let refused = write(session, &format!("{folder}/new.txt"), "x").await.expect_err("read only");
    assert!(refused.contains("EROFS"), "{folder}: {refused}");
}

#[tokio::test]
async fn a_claim_outlives_the_pod_and_sub_path_and_read_only_narrow_it() {
    let cluster = Cluster::connect().await;
    let name = "fields-claim";
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().to_owned(), folder.path().join("inner")] {
        std::fs::create_dir_all(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("opened");
    }
    claim(&cluster, name, &folder.path().display().to_string(), "ReadWriteMany").await;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    let mounts = json!([
        {"name": "data", "mountPath": "/mnt/data"},
        {"name": "data", "mountPath": "/mnt/inner", "subPath": "inner"},
        {"name": "data", "mountPath": "/mnt/looked-at", "readOnly": true},
    ]);
    let served = Served::from(&filesystem(name, &["/mnt"], &volumes, &mounts)).await;
    let session = served.session().await;
    write(&session, "/mnt/data/note.txt", "kept").await.expect("the claim can be written");
    write(&session, "/mnt/inner/deep.txt", "deeper").await.expect("the folder in it, too");
    assert_eq!(read(&session, "/mnt/data/inner/deep.txt").await, "deeper");
    is_sealed(&session, "/mnt/looked-at").await;
    served.gone().await;

    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name, "readOnly": true}}]);
    let mounts = json!([{"name": "data", "mountPath": "/mnt/sealed"}]);
    let reader = Served::from(&filesystem("fields-sealed", &["/mnt"], &volumes, &mounts)).await;
    is_sealed(&reader.session().await, "/mnt/sealed").await;
    reader.gone().await;
    unclaim(&cluster, name).await;
}

#[tokio::test]
async fn a_claim_that_only_one_node_may_mount_stalls_the_server() {
    let cluster = Cluster::connect().await;
    let name = "fields-once";
    claim(&cluster, name, "/nonexistent", "ReadWriteOnce").await;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    cluster.apply::<MCPServer>(&filesystem(name, &["/data"], &volumes, &mounts)).await.expect("accepted");
    let stalled = cluster.condition(TENANT, name, "Stalled", "True", "ClaimNotShareable", PATIENCE).await;
    for word in [name, "ReadWriteMany"] {
        assert!(stalled.message.contains(word), "{}", stalled.message);
    }
    cluster.delete::<MCPServer>(TENANT, name).await;
    unclaim(&cluster, name).await;
}

#[tokio::test]
async fn with_recreate_a_claim_of_one_node_passes_from_one_revision_to_the_next_and_both_never_run_at_once() {
    let cluster = Cluster::connect().await;
    let name = "fields-recreate";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("opened");
    claim(&cluster, name, &folder.path().display().to_string(), "ReadWriteOnce").await;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    let mounts = json!([{"name": "data", "mountPath": "/mnt/data"}]);
    let mut manifest = filesystem(name, &["/mnt"], &volumes, &mounts);
    manifest["spec"]["rollout"] = json!({"type": "Recreate", "drainTimeout": "3s"});
    let served = Served::from(&manifest).await;
    let session = served.session().await;
    write(&session, "/mnt/data/note.txt", "kept").await.expect("the claim can be written");

    let edit = json!({"container": {"env": [{"name": "EDITED", "value": "yes"}]}});
    let old = served.pod().await.metadata.name.expect("a name");
    cluster.patch_spec(TENANT, name, &edit).await;
    let waits = cluster.condition(TENANT, name, "Ready", "False", "Draining", PATIENCE).await;
    assert!(waits.message.contains("has ended") && waits.message.contains("Recreate"), "{}", waits.message);
    until("another pod runs", PATIENCE, || async {
        let own = ListParams::default().labels(&format!("portolan.dev/server={name}"));
        let pods = cluster.api::<Pod>(TENANT).list(&own).await.map_err(|error| error.to_string())?;
        // Those that are told to end too, until they have.
        let runs =
            |pod: &Pod| !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let names: Vec<_> = pods.items.into_iter().filter(runs).filter_map(|pod| pod.metadata.name).collect();
        assert!(names.len() <= 1, "never two at once: {names:?}");
        match names.first() {
            Some(name) if *name != old => Ok(()),
            _ => Err(format!("{names:?}")),
        }
    })
    .await;
    cluster.ready(TENANT, name).await;
    assert_eq!(read(&served.session().await, "/mnt/data/note.txt").await, "kept");
    served.gone().await;
    unclaim(&cluster, name).await;
}
