//! How many pods and sessions there are, and for how long.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use portolan_crds::MCPServer;
use portolan_crds::server::RevisionState;
use portolan_tests::cluster::{OTHER_TENANT, TENANT};
use portolan_tests::mcp::{self, Session};
use portolan_tests::puppet::eval;
use portolan_tests::wait::{PATIENCE, until};
use reqwest::StatusCode;
use serde_json::json;

use crate::{Served, puppet_with};

const HOST: &str = "require('os').hostname()";

#[tokio::test]
async fn each_replica_holds_as_many_sessions_as_allowed_and_one_more_is_told_to_come_back() {
    let spec = json!({"replicas": 3, "sessions": {"maxPerReplica": 1}});
    let served = Served::from(&puppet_with("fields-full", &spec)).await;
    let (first, second) = (served.session().await, served.session().await);
    // Whichever pods are tried first, the one with room is found.
    for _ in 0..8 {
        served.session().await.delete().await.expect("ends");
    }
    let third = served.session().await;
    let mut hosts = BTreeSet::new();
    for session in [&first, &second, &third] {
        hosts.insert(eval(session, 1, HOST).await.expect("answers").to_string());
    }
    assert_eq!(hosts.len(), 3, "each on a replica of its own: {hosts:?}");

    let refused = mcp::post(&mcp::http(), &served.url, Some(&served.token), &mcp::initialize()).await.expect("answers");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await.expect("a body").contains("maxPerReplica"));
    eval(&first, 2, "1").await.expect("the others go on");

    first.delete().await.expect("ends");
    until("a place is free again", PATIENCE, || served.try_session()).await;
    served.gone().await;
}

#[tokio::test]
async fn one_caller_holds_as_many_sessions_as_allowed_and_the_rest_are_for_others() {
    let spec = json!({"sessions": {"maxPerReplica": 3, "maxPerCaller": 2}});
    let served = Served::from(&puppet_with("fields-share", &spec)).await;
    let (first, second) = (served.session().await, served.session().await);
    let refused = mcp::post(&mcp::http(), &served.url, Some(&served.token), &mcp::initialize()).await.expect("answers");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await.expect("a body").contains("maxPerCaller"));
    let other = served.cluster.token(OTHER_TENANT, "default").await;
    Session::open(&served.url, Some(&other)).await.expect("there is room for others");
    eval(&first, 1, "1").await.expect("what is open goes on");
    second.delete().await.expect("ends");
    until("a place is free again", PATIENCE, || served.try_session()).await;
    served.gone().await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_ended_with_its_process_and_one_in_use_is_not() {
    let served = Served::from(&puppet_with("fields-idle", &json!({"sessions": {"idleTimeout": "2s"}}))).await;
    let (idle, used) = (served.session().await, served.session().await);
    let pid = eval(&idle, 1, "process.pid").await.expect("answers");
    let is_there = format!("fs.existsSync('/proc/{pid}')");
    assert_eq!(eval(&used, 1, &is_there).await, Ok(json!(true)));
    until("the idle session's process is gone", Duration::from_secs(20), || async {
        if eval(&used, 2, &is_there).await? == json!(false) { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await;
    let over = idle.call(2, "eval", json!({"code": "1"})).await.expect("answers");
    assert_eq!(over.status, StatusCode::NOT_FOUND);
    eval(&used, 3, "1").await.expect("the session in use goes on");
    served.gone().await;
}

#[tokio::test]
async fn a_stateless_session_goes_on_at_another_pod_when_its_pod_is_killed() {
    let spec = json!({"replicas": 2, "sessions": {"type": "Stateless"}});
    let served = Served::from(&puppet_with("fields-stateless", &spec)).await;
    let session = served.session().await;
    let first = eval(&session, 1, HOST).await.expect("answers");
    let kill = DeleteParams::default().grace_period(0);
    let pods = served.cluster.api::<Pod>(TENANT);
    pods.delete(first.as_str().expect("a name"), &kill).await.expect("killed");
    until("another pod answers the same session", PATIENCE, || async {
        match eval(&session, 2, HOST).await {
            Ok(host) if host != first => Ok(()),
            Ok(host) => Err(format!("{host} answers")),
            Err(error) => {
                assert!(!error.starts_with("404"), "no pod is needed for the session to be known: {error}");
                Err(error)
            }
        }
    })
    .await;
    served.gone().await;
}

#[tokio::test]
async fn an_old_revisions_session_is_kept_for_the_drain_timeout_and_then_ended() {
    let name = "fields-drain";
    let spec = json!({"rollout": {"drainTimeout": "5s"}});
    let served = Served::from(&puppet_with(name, &spec)).await;
    let session = served.session().await;
    let servers = served.cluster.api::<MCPServer>(TENANT);
    let edit = json!({"container": {"env": [{"name": "EDITED", "value": "yes"}]}});
    served.cluster.patch_spec(TENANT, name, &edit).await;
    let old = until("the old revision drains", PATIENCE, || async {
        let status = servers.get(name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let draining = status.revisions.iter().find(|revision| revision.state == RevisionState::Draining);
        draining.map(|revision| revision.name.clone()).ok_or_else(|| format!("{:?}", status.revisions))
    })
    .await;
    let draining = Instant::now();
    let kept = until("the old session is ended", Duration::from_secs(30), || async {
        match eval(&session, 1, "process.env.EDITED ?? 'old'").await {
            Ok(told) => {
                assert_eq!(told, "old");
                Err(format!("it still answers {told}"))
            }
            Err(_) => Ok(draining.elapsed()),
        }
    })
    .await;
    assert!(kept > Duration::from_secs(2), "kept for a while: {kept:?}");
    until("a client is told to open a new one", PATIENCE, || async {
        let status = session.call(2, "eval", json!({"code": "1"})).await?.status;
        if status == StatusCode::NOT_FOUND { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    until("the old revision is gone", PATIENCE, || async {
        match served.cluster.api::<Deployment>(TENANT).get_opt(&old).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("its Deployment is still there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    served.gone().await;
}
