//! Sessions through edits and through the end of a process: what goes on, and what fails at once.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use portolan_crds::MCPServer;
use portolan_crds::server::RevisionState;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::{Events, Session};
use portolan_tests::puppet::{self, eval};
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{echo, everything};

#[tokio::test]
async fn an_edit_of_a_server_with_live_sessions_ends_no_session_and_fails_no_call() {
    let cluster = Cluster::connect().await;
    let name = "live-edit";
    deleting(&cluster, &[name], async {
        let before = cluster.serve(&everything(name)).await;
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
                    echo(&session, calls, "through the edit")
                        .await
                        .unwrap_or_else(|error| panic!("call {calls}: {error}"));
                }
                calls
            }
        });
        let mut edited = everything(name);
        edited["spec"]["container"]["env"] = json!([{"name": "EDITED", "value": "yes"}]);
        let after = cluster.serve(&edited).await;
        assert_ne!(before, after);

        let fresh = Session::open(&url, Some(&token)).await.expect("a session on the new revision");
        let environment = fresh.call(1, "get-env", json!({})).await.expect("answers");
        assert!(environment.answer().to_string().contains("EDITED"), "new sessions go to the new revision");
        let old = session.call(1_000_000, "get-env", json!({})).await.expect("answers");
        assert!(!old.answer().to_string().contains("EDITED"), "the old session stays where it was");
        stop.send(()).expect("the caller still calls");
        assert!(caller.await.expect("no call failed") > 0);

        session.delete().await.expect("the old session ends");
        cluster.gone::<Deployment>(TENANT, &before, PATIENCE).await;
        echo(&fresh, 2, "after").await.expect("the new session goes on");
    })
    .await;
}

#[tokio::test]
async fn a_call_in_flight_across_a_cut_over_is_answered_by_the_pod_that_it_went_to() {
    let cluster = Cluster::connect().await;
    let name = "in-flight";
    deleting(&cluster, &[name], async {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["timeouts"] = json!({"request": "3m"});
    let before = cluster.serve(&manifest).await;
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, name).await;
    let (caller, beside) = (
        Session::open(&url, Some(&token)).await.expect("a session"),
        Session::open(&url, Some(&token)).await.expect("another one in the same pod"),
    );
    let call = tokio::spawn(async move {
        let code = "fs.writeFileSync('/tmp/begun', ''); new Promise(done => { const look = setInterval(() => { \
                    if (fs.existsSync('/tmp/end')) { clearInterval(look); done('from ' + (process.env.EDITED ?? 'the old one')); } }, 50); })";
        eval(&caller, 1, code).await
    });
    until("the server works on the call", PATIENCE, || async {
        let has_begun = eval(&beside, 1, "fs.existsSync('/tmp/begun')").await?;
        if has_begun == true { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;

    manifest["spec"]["container"]["env"] = json!([{"name": "EDITED", "value": "the new one"}]);
    let after = cluster.serve(&manifest).await;
    assert_ne!(before, after);
    until("the old revision's pod was told to end", PATIENCE, || async {
        let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
        let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
        let drains = revisions.iter().any(|old| old.name == before && old.state == RevisionState::Draining);
        let pods = ListParams::default().labels(&format!("portolan.dev/revision={before}"));
        let pods = cluster.api::<Pod>(TENANT).list(&pods).await.map_err(|error| error.to_string())?;
        let is_told = pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
        if drains && is_told { Ok(()) } else { Err(format!("{revisions:?}, told: {is_told}")) }
    })
    .await;
    let fresh = Session::open(&url, Some(&token)).await.expect("a session on the new revision");
    assert_eq!(eval(&fresh, 1, "process.env.EDITED").await, Ok(json!("the new one")));
    assert!(!call.is_finished(), "the call is still in flight");

    eval(&beside, 2, "fs.writeFileSync('/tmp/end', '')").await.expect("the pod's other session goes on, too");
    assert_eq!(call.await.expect("the task ends"), Ok(json!("from the old one")));
    })
    .await;
}

#[tokio::test]
async fn a_server_process_killed_during_a_call_fails_that_call_at_once_and_no_other_session() {
    let cluster = Cluster::connect().await;
    let name = "killed";
    deleting(&cluster, &[name], async {
        let revision = cluster.serve(&everything(name)).await;
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, name).await;
        let victim = Session::open(&url, Some(&token)).await.expect("a session");
        let bystander = Session::open(&url, Some(&token)).await.expect("another session");
        let pod = cluster.pods(TENANT, &format!("portolan.dev/revision={revision}")).await.remove(0).name_any();

        let environment = victim.call(1, "get-env", json!({})).await.expect("answers");
        let environment = environment.answer()["result"]["content"][0]["text"].as_str().expect("text").to_owned();
        let environment: Value = serde_json::from_str(&environment).expect("JSON");
        let mark = environment["PORTOLAN_SESSION"].as_str().expect("each process carries the mark of its session");
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"_meta": {"progressToken": "p"},
        "name": "trigger-long-running-operation", "arguments": {"duration": 25, "steps": 50}}});
        let mut stream = Events::of(victim.send(&call).await.expect("the call is taken"));
        stream
            .until(|message| message["method"] == "notifications/progress")
            .await
            .expect("the server works on the call");
        let kill = format!(
            "const fs = require('fs'); fs.readdirSync('/proc').filter(Number).forEach(pid => {{ try {{ \
         const command = fs.readFileSync(`/proc/${{pid}}/cmdline`, 'utf8'); \
         const marked = fs.readFileSync(`/proc/${{pid}}/environ`, 'utf8').includes('PORTOLAN_SESSION={mark}'); \
         if (marked && command.startsWith('node')) process.kill(pid, 'SIGKILL'); }} catch {{}} }})"
        );
        kubectl(&["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &kill])
            .await
            .expect("killed");
        let answer = &stream.until(|message| message["id"] == 7).await.expect("the call is answered")["result"];
        assert_eq!(answer["isError"], true, "{answer}");
        assert_eq!(answer["structuredContent"]["error_type"], "ServerExited");
        assert_eq!(answer["structuredContent"]["retryable"], true);
        echo(&bystander, 1, "alive").await.expect("another session is untouched");
        let gone = victim.call(8, "echo", json!({"message": "x"})).await.expect("answered");
        assert_eq!(gone.status, reqwest::StatusCode::NOT_FOUND, "the client is told to open a new session");
    })
    .await;
}
