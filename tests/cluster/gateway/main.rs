//! Gateways on a real cluster: who is let in, sessions on any replica, what never reaches a server.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod api_keys;
mod metrics;
mod programmed;

use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, OTHER_TENANT, TENANT, kubectl};
use portolan_tests::mcp::{self, Events, Reply, Session};
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::PATIENCE;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::timeout;

#[tokio::test]
async fn nobody_is_let_in_without_a_credential_that_is_meant_for_the_gateway() {
    let (cluster, url, token) = Cluster::serving("closed").await;
    let http = mcp::http();
    let foreign = kubectl(&["create", "token", "default", "--namespace", TENANT])
        .await
        .expect("a token of the API server's audience");
    let mut forged = token.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    for credential in [None, Some("garbage"), Some("ptl_garbage"), Some(foreign.trim()), Some(forged.as_str())] {
        let refused = mcp::post(&http, &url, credential, &mcp::initialize()).await.expect("answers");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{credential:?}");
        assert!(refused.headers().contains_key("www-authenticate"));
    }
    let unknown = url.replace("/closed/", "/no-such-server/");
    let refused = mcp::post(&http, &unknown, None, &mcp::initialize()).await.expect("answers");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "a stranger cannot tell which servers exist");
    let not_found = mcp::post(&http, &unknown, Some(&token), &mcp::initialize()).await.expect("answers");
    assert_eq!(not_found.status(), StatusCode::NOT_FOUND);
    cluster.delete::<MCPServer>(TENANT, "closed").await;
}

#[tokio::test]
async fn a_session_of_one_account_is_unknown_to_another() {
    let (cluster, url, token) = Cluster::serving("private").await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    let other = cluster.token(OTHER_TENANT, "default").await;
    let stolen = mcp::http()
        .post(&url)
        .bearer_auth(other)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-session-id", session.id())
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        .send()
        .await
        .expect("answers");
    assert_eq!(stolen.status(), StatusCode::NOT_FOUND);
    cluster.delete::<MCPServer>(TENANT, "private").await;
}

#[tokio::test]
async fn two_replicas_serve_one_session_and_an_answer_may_take_the_other_way() {
    let (cluster, _, token) = Cluster::serving("shared").await;
    let urls = cluster.replica_urls(TENANT, "shared").await;
    let [a, b] = urls.as_slice() else { panic!("two replicas: {urls:?}") };
    let on_a = Session::open(a, Some(&token)).await.expect("a session on A");
    let on_b = on_a.at(b);
    let mut stream = Events::of(on_b.listen().await.expect("a stream on B"));

    let call = tokio::spawn({
        let on_a = on_a.clone();
        async move { on_a.call(5, "trigger-sampling-request", json!({"prompt": "hello", "maxTokens": 10})).await }
    });
    let asked = timeout(PATIENCE, stream.until(|message| message["method"] == "sampling/createMessage"));
    let asked = asked.await.expect("the server asks").expect("the stream is open");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {
        "role": "assistant", "model": "none", "content": {"type": "text", "text": "from the other replica"}}});
    let taken = on_a.send(&answer).await.expect("answers");
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let reply = call.await.expect("the task ends").expect("the call is answered");
    assert!(reply.answer().to_string().contains("from the other replica"), "{:?}", reply.answer());
    assert!(on_b.delete().await.expect("answers").status().is_success());
    let after =
        Reply::read(on_a.send(&json!({"jsonrpc": "2.0", "id": 6, "method": "ping"})).await.expect("answers")).await;
    assert_eq!(after.status, StatusCode::NOT_FOUND, "ended on B is ended on A");
    cluster.delete::<MCPServer>(TENANT, "shared").await;
}

#[tokio::test]
async fn a_host_or_origin_that_is_not_allowed_is_refused() {
    let (cluster, url, token) = Cluster::serving("hosts").await;
    let http = mcp::http();
    let send = |header: &'static str, value: &'static str| {
        http.post(&url)
            .bearer_auth(&token)
            .header("accept", "application/json, text/event-stream")
            .header(header, value)
            .json(&mcp::initialize())
            .send()
    };
    let host = send("host", "evil.example").await.expect("answers");
    assert_eq!(host.status(), StatusCode::MISDIRECTED_REQUEST);
    let origin = send("origin", "https://evil.example").await.expect("answers");
    assert_eq!(origin.status(), StatusCode::FORBIDDEN);
    cluster.delete::<MCPServer>(TENANT, "hosts").await;
}

#[tokio::test]
async fn a_bridge_answers_nobody_without_the_servers_key_and_other_pods_do_not_even_reach_it() {
    let (cluster, _, _) = Cluster::serving("guarded").await;
    let pod = cluster.pods(TENANT, "portolan.dev/server=guarded").await.remove(0);
    let ip = pod.status.and_then(|status| status.pod_ip).expect("an address");
    let http = mcp::http();
    let data = mcp::post(&http, &format!("http://{ip}:8700/mcp"), None, &mcp::initialize())
        .await
        .expect("the node reaches every pod");
    assert_eq!(data.status(), StatusCode::UNAUTHORIZED);
    let admin = http.get(format!("http://{ip}:8701/v1/status")).send().await.expect("answers");
    assert_eq!(admin.status(), StatusCode::UNAUTHORIZED);

    cluster
        .apply::<MCPServer>(&server("everything", Place::Container).manifest(TENANT, "neighbour"))
        .await
        .expect("accepted");
    cluster.ready(TENANT, "neighbour").await;
    let neighbour = cluster.pods(TENANT, "portolan.dev/server=neighbour").await.remove(0).name_any();
    for port in [8700, 8701] {
        let probe = format!(
            "fetch('http://{ip}:{port}/',{{signal:AbortSignal.timeout(2000)}}).then(r=>console.log('reached',r.status),e=>console.log('blocked'))"
        );
        let seen =
            kubectl(&["exec", "--namespace", TENANT, &neighbour, "--container", "server", "--", "node", "-e", &probe])
                .await
                .expect("exec");
        assert_eq!(seen.trim(), "blocked", "{port}");
    }
    cluster.delete::<MCPServer>(TENANT, "neighbour").await;
    cluster.delete::<MCPServer>(TENANT, "guarded").await;
}
