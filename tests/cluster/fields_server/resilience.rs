//! Checks, timeouts and limits.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use portolan_tests::cluster::{PLATFORM, TENANT, kubectl};
use portolan_tests::mcp::{self, Reply};
use portolan_tests::puppet::{LATE, LISTED};
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::wait::{PATIENCE, until};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::{Served, puppet_with, with};

/// A pod that the kubelet does not call ready.
struct Unready {
    name: String,
    since: Timestamp,
}

impl Served {
    async fn unready_pod(&self) -> Unready {
        until("the kubelet has noticed", PATIENCE, || async {
            let pod = self.pod().await;
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").ok_or("no condition")?;
            let name = pod.metadata.name.expect("a name");
            match ready.last_transition_time.filter(|_| ready.status == "False") {
                Some(since) => Ok(Unready { name, since: since.0 }),
                None => Err("it is ready".to_owned()),
            }
        })
        .await
    }

    /// Runs JavaScript beside the server; `show` prints what it gives.
    async fn beside(&self, code: &str) -> Value {
        let pod = self.pod().await.metadata.name.expect("a name");
        let code = format!(
            "const fs = require('fs'); const pause = ms => new Promise(done => setTimeout(done, ms)); \
             const listed = () => fs.readFileSync('{LISTED}', 'utf8').trim().split('\\n').map(line => line.split(' ').map(Number)); \
             (async () => {{ {code} }})().then(seen => console.log(JSON.stringify(seen)))"
        );
        let said = kubectl(&["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &code])
            .await
            .expect("exec");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Makes the server that late, waits until the bridge thinks otherwise of it, and says how many checks that took: those
    /// that began before it did.
    async fn checks_until(&self, ready: bool, late: u64) -> Value {
        self.beside(&format!(
            "fs.writeFileSync('{LATE}', '{late}'); const before = Date.now(); \
             while ((await fetch('http://127.0.0.1:8701/readyz')).ok !== {ready}) {{ \
               if (Date.now() - before > 60000) return 'not within a minute'; \
               await pause(10); \
             }} \
             const after = Date.now(); \
             return listed().filter(([at, late]) => before <= at && at < after && late === {late}).length;"
        ))
        .await
    }
}

#[tokio::test]
async fn a_server_is_checked_at_intervals_falls_after_failures_in_a_row_and_returns_after_successes_in_a_row() {
    // Each of them apart from its default, so that none can be the default's doing.
    let check = json!({"interval": "3s", "timeout": "2s", "unhealthyThreshold": 2, "healthyThreshold": 2});
    let served = Served::from(&puppet_with("fields-check", &json!({"healthCheck": check}))).await;
    let gaps = served
        .beside("while (listed().length < 3) await pause(50); const times = listed().map(([at]) => at).slice(-3); return times.slice(1).map((at, i) => at - times[i]);")
        .await;
    for gap in gaps.as_array().expect("a list") {
        let gap = gap.as_u64().expect("a time");
        assert!((2900..9900).contains(&gap), "a check every three seconds: {gaps}");
    }
    assert_eq!(served.checks_until(false, 2500).await, 2, "an answer later than two seconds is too late, twice");
    let fell = served.cluster.condition(TENANT, &served.name, "Available", "False", "ProbeTimeout", PATIENCE).await;
    let pod = served.unready_pod().await;
    for part in [pod.name.as_str(), "tools/list", "2000 ms"] {
        assert!(fell.message.contains(part), "{fell:?}");
    }
    assert!(fell.last_transition_time.0 < pod.since, "its probe is heard, not the kubelet: {fell:?} {}", pod.since);
    let refused = until("no gateway sends a session there", PATIENCE, || async {
        let opened = mcp::post(&mcp::http(), &served.url, Some(&served.token), &mcp::initialize()).await;
        let opened = opened.map_err(|error| error.to_string())?;
        if opened.status() == StatusCode::OK { Err("one did".to_owned()) } else { Ok(opened) }
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));

    assert_eq!(served.checks_until(true, 0).await, 2, "two good answers");
    served.cluster.ready(TENANT, &served.name).await;
    served.session().await;
    served.gone().await;
}

#[tokio::test]
async fn a_request_without_an_answer_in_time_is_a_result_that_says_so() {
    let manifest = server("everything", Place::Container).manifest(TENANT, "fields-timeout");
    let served = Served::from(&with(manifest, &json!({"timeouts": {"request": "1s"}}))).await;
    let session = served.session().await;
    let started = Instant::now();
    let long = json!({"duration": 20, "steps": 1});
    let reply = session.call(1, "trigger-long-running-operation", long).await.expect("answers");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let result = &reply.answer()["result"];
    assert_eq!(result["isError"], true, "{:?}", reply.answer());
    assert_eq!(result["structuredContent"]["error_type"], "RequestTimeout");
    let quick = session.call(2, "echo", json!({"message": "x"})).await.expect("answers");
    assert_eq!(quick.answer()["result"]["content"][0]["text"], "Echo: x", "the session goes on");
    served.gone().await;
}

#[tokio::test]
async fn beyond_the_requests_under_way_and_those_that_wait_callers_are_told_to_come_back() {
    let limits = json!({"maxParallelRequests": 1, "maxPendingRequests": 1});
    let served = Served::from(&puppet_with("fields-limits", &json!({"limits": limits}))).await;
    let (http, url) = one_replica(&served).await;
    let opened = mcp::post(&http, &url, Some(&served.token), &mcp::initialize()).await.expect("answers");
    let session = opened.headers()["mcp-session-id"].clone();
    let slow = async |id: u64| {
        let code = json!({"code": "new Promise(done => setTimeout(() => done('done'), 2000))"});
        let call =
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "eval", "arguments": code}});
        let request = http.post(&url).bearer_auth(&served.token).header("mcp-session-id", session.clone());
        let request = request.header("accept", "application/json, text/event-stream");
        Reply::read(request.json(&call).send().await.expect("answers")).await
    };
    let started = Instant::now();
    let replies = futures::future::join_all([slow(1), slow(2), slow(3)]).await;
    let took = started.elapsed();
    let (done, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == StatusCode::OK);
    for reply in &done {
        assert_eq!(reply.answer()["result"]["content"][0]["text"], "\"done\"");
    }
    assert_eq!(refused.len(), 1, "one under way, one that waits, one too many");
    assert_eq!(refused[0].status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused[0].headers.contains_key("retry-after"));
    assert!(took >= Duration::from_secs(4), "the second waited for the first: {took:?}");
    served.gone().await;
}

#[tokio::test]
async fn a_server_that_answers_its_checks_and_hangs_in_its_tools_is_not_available_until_a_call_is_answered() {
    let served = Served::from(&puppet_with("fields-calls", &json!({"timeouts": {"request": "500ms"}}))).await;
    let (http, url) = one_replica(&served).await;
    let other = served.cluster.token(PLATFORM, "default").await;
    let mut callers = Vec::new();
    for token in [&served.token, &other] {
        let opened = mcp::post(&http, &url, Some(token), &mcp::initialize()).await.expect("answers");
        callers.push((token, opened.headers()["mcp-session-id"].clone()));
    }
    let eval = async |caller: usize, id: usize, code: &str| {
        let (token, session) = &callers[caller];
        let params = json!({"name": "eval", "arguments": {"code": code}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let request = http.post(&url).bearer_auth(token).header("mcp-session-id", session);
        let request = request.header("accept", "application/json, text/event-stream");
        Reply::read(request.json(&call).send().await.expect("answers")).await.answer().clone()
    };
    for (id, caller) in [0, 1, 0, 1, 0].into_iter().enumerate() {
        let answer = eval(caller, id, "new Promise(() => {})").await;
        assert_eq!(answer["result"]["structuredContent"]["error_type"], "RequestTimeout", "{answer}");
    }
    let fell = served.cluster.condition(TENANT, &served.name, "Available", "False", "CallsFail", PATIENCE).await;
    let pod = served.pod().await.metadata.name.expect("a name");
    for part in [pod.as_str(), "checks are answered", "RequestTimeout", "replica portolan-gateway-default-"] {
        assert!(fell.message.contains(part), "{fell:?}");
    }
    served.cluster.condition(TENANT, &served.name, "Ready", "False", "CallsFail", PATIENCE).await;
    assert_eq!(eval(1, 9, "40 + 2").await["result"]["content"][0]["text"], "42", "the only pod is still called");
    served.cluster.ready(TENANT, &served.name).await;
    served.gone().await;
}

/// A client that reaches one pod of the default gateway under its Service's name, and the server's URL there.
async fn one_replica(served: &Served) -> (Client, String) {
    let host = format!("portolan-gateway-default.{PLATFORM}");
    let pods = served.cluster.pods(PLATFORM, "portolan.dev/gateway=default").await;
    let address = pods.into_iter().find_map(|pod| pod.status?.pod_ip).expect("a pod with an address");
    let address: IpAddr = address.parse().expect("an address");
    let http = Client::builder()
        .timeout(Duration::from_secs(60))
        .resolve(&host, SocketAddr::new(address, 8080))
        .build()
        .expect("a client");
    (http, format!("http://{host}:8080/{TENANT}/{}/mcp", served.name))
}
