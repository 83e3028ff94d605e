//! What the operator keeps true: children as declared, sessions through an edit, silence when nothing changed.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

fn everything(name: &str) -> Value {
    server("everything", Place::Container).manifest(TENANT, name)
}

async fn serving_revision(cluster: &Cluster, name: &str) -> String {
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("the server is there");
    let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
    let serving = revisions.iter().find(|revision| revision.weight == 100);
    serving.unwrap_or_else(|| panic!("{name} has a serving revision: {revisions:?}")).name.clone()
}

async fn applied(cluster: &Cluster, name: &str) -> String {
    cluster.apply::<MCPServer>(&everything(name)).await.expect("the manifest is accepted");
    cluster.ready(TENANT, name).await;
    serving_revision(cluster, name).await
}

async fn echo(session: &Session, id: u64, message: &str) -> Result<(), String> {
    let reply = session.call(id, "echo", json!({"message": message})).await?;
    let text = reply.messages.last().map(|answer| answer["result"]["content"][0]["text"].clone()).unwrap_or_default();
    if text == format!("Echo: {message}") { Ok(()) } else { Err(format!("{} {:?}", reply.status, reply.messages)) }
}

#[tokio::test]
async fn a_child_that_is_edited_or_deleted_by_hand_is_restored_within_seconds() {
    let cluster = Cluster::connect().await;
    let name = "drift";
    let revision = applied(&cluster, name).await;
    let deployments = cluster.api::<Deployment>(TENANT);
    let services = cluster.api::<Service>(TENANT);
    let policies = cluster.api::<NetworkPolicy>(TENANT);

    let intruder = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "server", "env": [{"name": "INTRUDER", "value": "1"}]},
        {"name": "miner", "image": "localhost/portolan-test/everything:1"},
    ]}}}});
    deployments.patch(&revision, &PatchParams::default(), &Patch::Strategic(intruder)).await.expect("a hand edits");
    until("the intruders are gone", Duration::from_secs(10), || async {
        let deployment = deployments.get(&revision).await.map_err(|error| error.to_string())?;
        let text = serde_json::to_string(&deployment.spec).unwrap_or_default();
        if text.contains("INTRUDER") || text.contains("miner") { Err(text) } else { Ok(()) }
    })
    .await;

    services.delete(&revision, &DeleteParams::default()).await.expect("a hand deletes");
    policies.delete(&format!("{name}-mcp"), &DeleteParams::default()).await.expect("a hand deletes");
    until("Service and NetworkPolicy are back", Duration::from_secs(10), || async {
        services.get(&revision).await.map_err(|error| error.to_string())?;
        policies.get(&format!("{name}-mcp")).await.map_err(|error| error.to_string())?;
        Ok(())
    })
    .await;
    cluster.ready(TENANT, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn a_foreign_object_of_a_childs_name_is_never_overwritten_and_its_owner_is_named() {
    let cluster = Cluster::connect().await;
    let name = "foreign";
    let account = format!("{name}-mcp");
    let theirs = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": account, "namespace": TENANT, "annotations": {"team": "billing"}}});
    cluster.apply::<ServiceAccount>(&theirs).await.expect("someone else made it first");

    cluster.apply::<MCPServer>(&everything(name)).await.expect("the manifest is accepted");
    let stalled = cluster.condition(TENANT, name, "Stalled", "True", "ForeignObject", PATIENCE).await;
    assert!(stalled.message.contains(&account), "{}", stalled.message);
    assert!(stalled.message.contains("portolan-tests"), "the owner is named: {}", stalled.message);
    let kept = cluster.api::<ServiceAccount>(TENANT).get(&account).await.expect("it is still there");
    assert_eq!(kept.annotations().get("team").map(String::as_str), Some("billing"));
    assert!(kept.owner_references().is_empty());

    cluster.delete::<ServiceAccount>(TENANT, &account).await;
    cluster.ready(TENANT, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn an_edit_of_a_server_with_live_sessions_ends_no_session_and_fails_no_call() {
    let cluster = Cluster::connect().await;
    let name = "live-edit";
    let before = applied(&cluster, name).await;
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, name).await;
    let session = Session::open(&url, Some(&token)).await.expect("a session on the first revision");

    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let caller = tokio::spawn({
        let session = session.clone();
        async move {
            let mut calls = 0;
            while stopped.try_recv().is_err() {
                calls += 1;
                echo(&session, calls, "through the edit").await.unwrap_or_else(|error| panic!("call {calls}: {error}"));
            }
            calls
        }
    });
    let mut edited = everything(name);
    edited["spec"]["container"]["env"] = json!([{"name": "EDITED", "value": "yes"}]);
    cluster.apply::<MCPServer>(&edited).await.expect("the edit is accepted");
    cluster.ready(TENANT, name).await;
    let after = serving_revision(&cluster, name).await;
    assert_ne!(before, after);

    let fresh = Session::open(&url, Some(&token)).await.expect("a session on the new revision");
    let environment = fresh.call(1, "get-env", json!({})).await.expect("answers");
    assert!(environment.answer().to_string().contains("EDITED"), "new sessions go to the new revision");
    let old = session.call(1_000_000, "get-env", json!({})).await.expect("answers");
    assert!(!old.answer().to_string().contains("EDITED"), "the old session stays where it was");
    stop.send(()).expect("the caller still calls");
    assert!(caller.await.expect("no call failed") > 0);

    session.delete().await.expect("the old session ends");
    until("the old revision is gone once its last session ended", PATIENCE, || async {
        match cluster.api::<Deployment>(TENANT).get_opt(&before).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("its Deployment is still there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    echo(&fresh, 2, "after").await.expect("the new session goes on");
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn changed_content_of_a_config_map_makes_a_revision() {
    let cluster = Cluster::connect().await;
    let name = "content";
    let settings = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": TENANT}, "data": {"SETTING": value}});
    cluster.apply::<ConfigMap>(&settings("one")).await.expect("made");
    let mut manifest = everything(name);
    manifest["spec"]["container"]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    cluster.apply::<MCPServer>(&manifest).await.expect("accepted");
    cluster.ready(TENANT, name).await;
    let before = serving_revision(&cluster, name).await;

    cluster.apply::<ConfigMap>(&settings("two")).await.expect("changed");
    until("a revision with the new content serves", PATIENCE, || async {
        let now = serving_revision(&cluster, name).await;
        if now == before { Err(format!("{now} still serves")) } else { Ok(()) }
    })
    .await;
    let token = cluster.token(TENANT, "default").await;
    let session = Session::open(&cluster.gateway_url(TENANT, name).await, Some(&token)).await.expect("a session");
    let environment = session.call(1, "get-env", json!({})).await.expect("answers");
    assert!(environment.answer().to_string().contains("two"));
    cluster.delete::<MCPServer>(TENANT, name).await;
    cluster.delete::<ConfigMap>(TENANT, "settings").await;
}

#[tokio::test]
async fn scaling_changes_the_pods_and_not_the_revision() {
    let cluster = Cluster::connect().await;
    let name = "scaled";
    let before = applied(&cluster, name).await;
    kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "2"])
        .await
        .expect("the scale subresource takes it");
    until("two pods are ready", PATIENCE, || async {
        let status = cluster
            .api::<MCPServer>(TENANT)
            .get(name)
            .await
            .map_err(|error| error.to_string())?
            .status
            .unwrap_or_default();
        if status.ready_replicas == 2 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(serving_revision(&cluster, name).await, before);

    kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "0"])
        .await
        .expect("zero is a number of pods");
    cluster.condition(TENANT, name, "Available", "False", "ScaledToZero", PATIENCE).await;
    kubectl(&["scale", "--namespace", TENANT, "mcps", name, "--replicas", "1"]).await.expect("and back");
    cluster.ready(TENANT, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn a_deleted_server_leaves_nothing_behind() {
    let cluster = Cluster::connect().await;
    let name = "gone";
    applied(&cluster, name).await;
    cluster.delete::<MCPServer>(TENANT, name).await;
    let left = "deployments,services,configmaps,secrets,networkpolicies,serviceaccounts,pods";
    until("every child is gone", PATIENCE, || async {
        let names = kubectl(&[
            "get",
            left,
            "--namespace",
            TENANT,
            "--selector",
            "portolan.dev/server=gone",
            "--output",
            "name",
        ])
        .await?;
        if names.trim().is_empty() { Ok(()) } else { Err(names) }
    })
    .await;
}

#[tokio::test]
async fn a_server_process_killed_during_a_call_fails_that_call_at_once_and_no_other_session() {
    let cluster = Cluster::connect().await;
    let name = "killed";
    let revision = applied(&cluster, name).await;
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, name).await;
    let victim = Session::open(&url, Some(&token)).await.expect("a session");
    let bystander = Session::open(&url, Some(&token)).await.expect("another session");
    let pod = cluster.pods(TENANT, &format!("portolan.dev/revision={revision}")).await.remove(0).name_any();

    let environment = victim.call(1, "get-env", json!({})).await.expect("answers");
    let environment = environment.answer()["result"]["content"][0]["text"].as_str().expect("text").to_owned();
    let environment: Value = serde_json::from_str(&environment).expect("JSON");
    let mark = environment["PORTOLAN_SESSION"].as_str().expect("each process carries the mark of its session");
    let call = tokio::spawn({
        let victim = victim.clone();
        async move { victim.call(7, "trigger-long-running-operation", json!({"duration": 25, "steps": 5})).await }
    });
    let kill = format!(
        "const fs = require('fs'); fs.readdirSync('/proc').filter(Number).forEach(pid => {{ try {{ \
         const command = fs.readFileSync(`/proc/${{pid}}/cmdline`, 'utf8'); \
         const marked = fs.readFileSync(`/proc/${{pid}}/environ`, 'utf8').includes('PORTOLAN_SESSION={mark}'); \
         if (marked && command.startsWith('node')) process.kill(pid, 'SIGKILL'); }} catch {{}} }})"
    );
    kubectl(&["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &kill])
        .await
        .expect("killed");
    let reply = call.await.expect("the task ends").expect("the call is answered");
    let answer = &reply.answer()["result"];
    assert_eq!(answer["isError"], true, "{answer}");
    assert_eq!(answer["structuredContent"]["error_type"], "ServerExited");
    assert_eq!(answer["structuredContent"]["retryable"], true);
    echo(&bystander, 1, "alive").await.expect("another session is untouched");
    let gone = victim.call(8, "echo", json!({"message": "x"})).await.expect("answered");
    assert_eq!(gone.status, reqwest::StatusCode::NOT_FOUND, "the client is told to open a new session");
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn unchanged_servers_cost_no_write() {
    let cluster = Cluster::connect().await;
    let names = ["quiet-a", "quiet-b"];
    for name in names {
        applied(&cluster, name).await;
    }
    let versions = || async {
        let selector = ListParams::default().labels("portolan.dev/server in (quiet-a, quiet-b)");
        let mut seen = Vec::new();
        for deployment in cluster.api::<Deployment>(TENANT).list(&selector).await.expect("listed") {
            seen.push((deployment.name_any(), deployment.metadata.generation));
        }
        for name in names {
            let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there");
            seen.push((server.name_any(), server.resource_version().and_then(|version| version.parse().ok())));
        }
        seen
    };
    let audit = std::env::var("PORTOLAN_AUDIT_LOG").expect("run this suite by tests/kube/run");
    let settled = until("the servers settle", PATIENCE, || async {
        let before = (versions().await, operator_writes(&audit));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = (versions().await, operator_writes(&audit));
        if before == after { Ok(after) } else { Err(format!("{before:?} became {after:?}")) }
    })
    .await;
    // Touching an unrelated label makes the operator look again: it must look and write nothing.
    for name in names {
        kubectl(&["label", "--namespace", TENANT, "--overwrite", "mcps", name, "looked-at=yes"])
            .await
            .expect("labelled");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(operator_writes(&audit), settled.1, "the operator wrote");
    for name in names {
        cluster.delete::<MCPServer>(TENANT, name).await;
    }
}

/// Writes of the operator's account so far, its Lease aside, as the API server recorded them.
fn operator_writes(audit: &str) -> usize {
    let log = std::fs::read_to_string(audit).expect("the audit log is there");
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["user"]["username"].as_str().is_some_and(|user| user.ends_with(":portolan-operator")))
        .filter(|event| event["objectRef"]["resource"] != "leases" && event["objectRef"]["resource"] != "events")
        .filter(|event| {
            matches!(event["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        })
        .filter(|event| {
            let name = event["objectRef"]["name"].as_str().unwrap_or_default();
            name.starts_with("quiet-")
        })
        .count()
}

#[tokio::test]
async fn a_pod_of_a_server_is_restricted_and_has_no_token() {
    let cluster = Cluster::connect().await;
    let name = "restricted";
    let revision = applied(&cluster, name).await;
    let pod: Pod = cluster.pods(TENANT, &format!("portolan.dev/revision={revision}")).await.remove(0);
    let spec = serde_json::to_value(pod.spec).expect("JSON");
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    for container in spec["containers"].as_array().into_iter().chain(spec["initContainers"].as_array()).flatten() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{container}");
    }
    // The API server itself judges: a namespace that enforces `restricted` takes this pod.
    let mut copy = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy"}, "spec": spec});
    copy["spec"]["nodeName"] = Value::Null;
    kubectl(&["create", "namespace", "judge"]).await.expect("made");
    kubectl(&["label", "namespace", "judge", "pod-security.kubernetes.io/enforce=restricted"]).await.expect("labelled");
    let manifest = tempfile::NamedTempFile::new().expect("a file");
    copy["metadata"]["namespace"] = "judge".into();
    copy["spec"]["serviceAccountName"] = "default".into();
    copy["spec"]["serviceAccount"] = Value::Null;
    std::fs::write(manifest.path(), copy.to_string()).expect("written");
    until("the judge's account is there", PATIENCE, || async {
        kubectl(&["get", "serviceaccount", "default", "--namespace", "judge"]).await
    })
    .await;
    let verdict = kubectl(&["create", "--dry-run=server", "--filename", &manifest.path().display().to_string()]).await;
    kubectl(&["delete", "namespace", "judge"]).await.expect("deleted");
    verdict.expect("the pod is restricted");
    cluster.delete::<MCPServer>(TENANT, name).await;
}
