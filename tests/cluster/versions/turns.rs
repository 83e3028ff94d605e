//! Servers that begin late, and those that turn into something else while they serve.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_crds::server::Tools;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::demo;
use portolan_tests::load::{Load, Plan};
use portolan_tests::puppet;
use portolan_tests::sized;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

/// A puppet over HTTP, one process for everyone, whose program has `after` where it had `before`.
fn rewritten(name: &str, before: &str, after: &str) -> Value {
    let mut manifest = puppet::http(TENANT, name, 9000, "/mcp");
    let program = manifest["spec"]["container"]["command"][2].as_str().expect("a program").to_owned();
    assert!(program.contains(before), "{before}");
    manifest["spec"]["container"]["command"][2] = program.replace(before, after).into();
    manifest
}

/// What is called while something happens: a server that has nothing to do with it.
async fn load(cluster: &Cluster, name: &str) -> Load {
    let credentials = vec![Some(cluster.token(TENANT, "default").await)];
    let url = cluster.gateway_url(TENANT, name).await;
    Load::start(Plan { url, credentials, sessions: 4, rate: 20, renewal: Duration::from_secs(1), streams: 0 }).await
}

/// How long a slow server takes until it answers `initialize`.
const START: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_revision_that_takes_half_a_minute_to_start_is_waited_for_and_takes_over_without_a_failed_call() {
    let cluster = Cluster::connect().await;
    let name = "slow-starter";
    deleting(&cluster, &[name], async {
        // It takes connections at once, and answers nothing.
        let late = "const answer = async ({id, method, params}) => {
            await new Promise(done => setTimeout(done, (+process.env.START || 0) - 1000 * process.uptime()));";
        let mut manifest = rewritten(name, "const answer = async ({id, method, params}) => {", late);
        manifest["spec"]["rollout"] = json!({"drainTimeout": "10s"});
        // What the load calls.
        let code = manifest["spec"]["container"]["command"][2].as_str().expect("a program").to_owned();
        let echo = code.replace("{name: 'eval'", "{name: 'echo'").replace(
            "await call(params.arguments.code)",
            "{content: [{type: 'text', text: 'Echo: ' + params.arguments.message}]}",
        );
        manifest["spec"]["container"]["command"][2] = echo.into();
        let first = cluster.serve(&manifest).await;
        let load = load(&cluster, name).await;
        let began = Instant::now();
        let start = json!([{"name": "START", "value": START.as_millis().to_string()}]);
        cluster.patch_spec(TENANT, name, &json!({"container": {"env": start}})).await;
        let takes_over = until("the new revision serves", PATIENCE, || async {
            let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
            let status = server.status.unwrap_or_default();
            let says = |type_: &str, status_: &str| {
                status.conditions.iter().any(|one| one.type_ == type_ && one.status == status_)
            };
            assert!(says("Available", "True"), "the one before serves all the while: {:?}", status.conditions);
            assert!(!says("Stalled", "True"), "nobody gives it up: {:?}", status.conditions);
            let now = cluster.serving_revision(TENANT, name).await;
            if now == first { Err(format!("{:?}", status.conditions)) } else { Ok(began.elapsed()) }
        });
        let took = takes_over.await;
        cluster.ready(TENANT, name).await;
        let tally = load.stop().await;
        println!("a revision that answers after {START:?} takes over after {:.1} s: {tally}", took.as_secs_f64());
        assert!(took >= START, "{took:?}");
        tally.assert_nothing_failed();
    })
    .await;
}

/// The tools of a server as its status has them, and the definitions that are kept.
async fn tools(cluster: &Cluster, name: &str, revision: &str) -> Result<(Tools, Option<String>, Value), String> {
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.map_err(|error| error.to_string())?;
    let tools = server.status.and_then(|status| status.tools).ok_or("no tools")?;
    let kept = cluster.api::<ConfigMap>(TENANT).get(&format!("{revision}-tools")).await.map_err(|e| e.to_string())?;
    let hash = kept.annotations().get("portolan.dev/tools-hash").cloned();
    let text = kept.data.unwrap_or_default().remove("tools.json").ok_or("no definitions")?;
    Ok((tools, hash, serde_json::from_str(&text).map_err(|error| error.to_string())?))
}

#[tokio::test]
async fn tools_that_change_without_an_edit_are_those_of_the_status_and_what_the_next_revision_is_compared_with() {
    let cluster = Cluster::connect().await;
    let name = "turned";
    deleting(&cluster, &[name], async {
        let turns = "fs.existsSync('/tmp/turned') ? 'Obeys' : 'Evaluates JavaScript'";
        let mut manifest = rewritten(name, "'Evaluates JavaScript'", turns);
        manifest["spec"]["healthCheck"] = json!({"interval": "1s", "timeout": "1s"});
        let revision = cluster.serve(&manifest).await;
        let (before, _, _) = tools(&cluster, name, &revision).await.expect("its tools are known");
        let session = sized::session(&cluster, name).await;
        puppet::eval(&session, 1, "fs.writeFileSync('/tmp/turned', '')").await.expect("the puppet is told");
        let now = until("the status has the tools that there are", PATIENCE, || async {
            let (now, hash, kept) = tools(&cluster, name, &revision).await?;
            let is_known = now.hash != before.hash && hash.as_ref() == Some(&now.hash);
            if is_known { Ok(kept) } else { Err(format!("{now:?} {hash:?}")) }
        })
        .await;
        assert_eq!(now[0]["description"], "Obeys");
        // Nobody edited it, and it answers: it is as ready as it was.
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, revision);
        assert_eq!(puppet::eval(&session, 2, "6 * 7").await, Ok(json!(42)));

        // The pod of another revision is as the image is, which is not like what serves.
        let edit = json!({"container": {"env": [{"name": "EDIT", "value": "1"}]}});
        cluster.patch_spec(TENANT, name, &edit).await;
        let told = cluster.condition(TENANT, name, "Ready", "False", "ToolsChanged", PATIENCE).await;
        assert!(told.message.contains("tool eval has another description"), "{}", told.message);
        assert_eq!(cluster.serving_revision(TENANT, name).await, revision);
    })
    .await;
}

/// Calls after which a server hangs.
const CALLS: u64 = 50;
/// Within which that is known: two checks, one every two seconds, and the second that the last of them may take; and one more.
const KNOWN: Duration = Duration::from_secs(2 * 2 + 1 + 1);

#[tokio::test]
async fn a_server_that_hangs_after_so_many_calls_is_not_available_in_time_and_no_other_server_notices() {
    let cluster = Cluster::connect().await;
    let (name, other) = ("hangs-late", "hangs-never");
    deleting(&cluster, &[name, other], async {
        let hangs = format!(
            "let calls = 0; const answer = async ({{id, method, params}}) => {{
               if (method === 'tools/call') calls += 1;
               if (calls > {CALLS}) await new Promise(() => {{}});"
        );
        let mut manifest = rewritten(name, "const answer = async ({id, method, params}) => {", &hangs);
        manifest["spec"]["healthCheck"] = json!({"interval": "2s", "timeout": "1s", "unhealthyThreshold": 2});
        manifest["spec"]["timeouts"] = json!({"request": "2s"});
        let bystander = demo::stdio(TENANT, other);
        tokio::join!(cluster.serve(&manifest), cluster.serve(&bystander));
        let load = load(&cluster, other).await;
        let session = sized::session(&cluster, name).await;
        for id in 0..CALLS {
            assert_eq!(puppet::eval(&session, id, "6 * 7").await, Ok(json!(42)), "call {id}");
        }
        let began = Instant::now();
        let (hung, (fell, took)) = tokio::join!(session.call(CALLS, "eval", json!({"code": "6 * 7"})), async {
            let fell = cluster.condition(TENANT, name, "Available", "False", "ProbeTimeout", PATIENCE).await;
            (fell, began.elapsed())
        });
        let hung = hung.expect("the gateway answers");
        assert_eq!(hung.answer()["result"]["structuredContent"]["error_type"], "RequestTimeout", "{hung:?}");
        assert!(fell.message.contains("tools/list"), "{}", fell.message);
        let tally = load.stop().await;
        println!("hangs after {CALLS} calls, not Available {:.1} s later; beside it: {tally}", took.as_secs_f64());
        assert!(took <= KNOWN, "{took:?}");
        tally.assert_nothing_failed();
        cluster.ready(TENANT, other).await;
    })
    .await;
}
