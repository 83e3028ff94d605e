//! A new revision that takes over by steps, under calls all the while: what it gets, and what takes it back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use portolan_crds::MCPServer;
use portolan_crds::server::RevisionState;
use portolan_tests::cluster::{Cluster, TENANT, kubectl, portolan};
use portolan_tests::mcp::Session;
use portolan_tests::puppet;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::load::{Load, call};

/// A puppet of this version whose rollouts go by steps.
fn by_steps(name: &str, steps: &Value, analysis: &Value) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["container"]["env"] = json!([{"name": "VERSION", "value": "1"}]);
    manifest["spec"]["rollout"] = json!({
        "type": "Canary", "drainTimeout": "1m", "canary": {"steps": steps, "analysis": analysis},
    });
    manifest
}

fn version(version: &str) -> Value {
    json!({"container": {"env": [{"name": "VERSION", "value": version}]}})
}

/// Every call of [`version`] `2` throws.
fn bad() -> Value {
    json!({"container": {"env": [{"name": "VERSION", "value": "2"}, {"name": "BAD", "value": "1"}]}})
}

/// Shares of new sessions by the state of their revision.
async fn shares(cluster: &Cluster, name: &str) -> BTreeMap<String, u8> {
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("it is there");
    let revisions = server.status.map(|status| status.revisions).unwrap_or_default();
    revisions.into_iter().map(|revision| (format!("{:?}", revision.state), revision.weight)).collect()
}

/// The revision in that state.
async fn revision(cluster: &Cluster, name: &str, state: RevisionState) -> Option<String> {
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("it is there");
    server.status?.revisions.into_iter().find(|revision| revision.state == state).map(|revision| revision.name)
}

async fn until_share(cluster: &Cluster, name: &str, share: u8) {
    until(&format!("a new revision takes {share} %"), PATIENCE, || async {
        let shares = shares(cluster, name).await;
        if shares.get("Canary") == Some(&share) { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
}

fn steps() -> Value {
    json!([{"setWeight": 20, "pause": "4s"}, {"setWeight": 60, "pause": "4s"}])
}

fn quick() -> Value {
    json!({"interval": "1s", "failureThreshold": 3, "minCalls": 2})
}

#[tokio::test]
async fn a_new_revision_takes_a_growing_share_and_no_call_fails_on_the_way() {
    let cluster = Cluster::connect().await;
    let name = "steps-grow";
    deleting(&cluster, &[name], async {
        let first = cluster.serve(&by_steps(name, &steps(), &quick())).await;
        let load = Load::start(&cluster, name).await;
        cluster.patch_spec(TENANT, name, &version("2")).await;
        let mut began = Vec::new();
        for (share, step) in [(20, "step 1 of 2"), (60, "step 2 of 2")] {
            until_share(&cluster, name, share).await;
            began.push(Instant::now());
            let told = cluster.condition(TENANT, name, "Progressing", "True", "CanaryStep", PATIENCE).await;
            assert!(told.message.contains(step), "{}", told.message);
            assert_eq!(shares(&cluster, name).await.get("Serving"), Some(&(100 - share)));
            assert_eq!(cluster.serving_revision(TENANT, name).await, first);
        }
        cluster.ready(TENANT, name).await;
        began.push(Instant::now());
        let pauses: Vec<_> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| *pause > Duration::from_secs(3)), "each lasts 4 s: {pauses:?}");
        assert_ne!(cluster.serving_revision(TENANT, name).await, first);
        let answers = load.stop().await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["1", "2"], "{answers:?}");
        let events =
            kubectl(&["get", "events", "-n", TENANT, "--field-selector", &of(name, "CanaryStep"), "-o", "yaml"])
                .await
                .expect("events");
        for step in ["step 1 of 2", "step 2 of 2"] {
            assert!(events.contains(step), "{events}");
        }
    })
    .await;
}

fn of(name: &str, reason: &str) -> String {
    format!("involvedObject.name={name},reason={reason}")
}

#[tokio::test]
async fn a_revision_whose_calls_fail_is_taken_back_in_time_and_stays_back_until_it_is_promoted() {
    let cluster = Cluster::connect().await;
    let name = "steps-back";
    deleting(&cluster, &[name], goes_back(&cluster, name)).await;
}

async fn goes_back(cluster: &Cluster, name: &str) {
    let long = json!([{"setWeight": 40, "pause": "10m"}]);
    let analysis = json!({"interval": "2s", "failureThreshold": 3, "minCalls": 5});
    let first = cluster.serve(&by_steps(name, &long, &analysis)).await;
    let load = Load::start(cluster, name).await;
    cluster.patch_spec(TENANT, name, &bad()).await;
    until_share(cluster, name, 40).await;
    let began = Instant::now();
    let second = revision(cluster, name, RevisionState::Canary).await.expect("it takes a share");
    let held = session_of(cluster, name, &second).await;
    let back = cluster.condition(TENANT, name, "Stalled", "True", "RolledBack", PATIENCE).await;
    let took = began.elapsed();
    println!("rolled back {:.1} s after its first share; interval 2 s, failureThreshold 3", took.as_secs_f64());
    assert!(took < Duration::from_secs(20), "what the spec says nothing of would take 30 s");
    for part in ["of its", "calls failed", "maxErrorPermille, 20", "3 comparisons in a row", &first, &second] {
        assert!(back.message.contains(part), "{}", back.message);
    }
    cluster.condition(TENANT, name, "Ready", "False", "RolledBack", PATIENCE).await;
    cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, first);
    assert_eq!(puppet::eval(&held, 2, "6 * 7").await, Ok(json!(42)), "sessions that it has go on");
    until("it gets nothing new", PATIENCE, || async {
        let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
        let mut answers = BTreeMap::new();
        for _ in 0..20 {
            *answers.entry(call(&url, &token).await).or_insert(0) += 1;
        }
        if answers.keys().eq(["1"]) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await;
    held.delete().await.expect("the session ends");
    until("its pods end and why is remembered", PATIENCE, || async {
        let pods = cluster.pods(TENANT, &format!("portolan.dev/revision={second}")).await.len();
        let deployment = cluster.api::<Deployment>(TENANT).get(&second).await.map_err(|error| error.to_string())?;
        let remembered = deployment.metadata.annotations.unwrap_or_default().contains_key("portolan.dev/rolled-back");
        if pods == 0 && remembered { Ok(()) } else { Err(format!("{pods} pods, remembered: {remembered}")) }
    })
    .await;
    let answers = load.stop().await;
    assert!(answers.keys().all(|answer| ["1", "bad"].contains(&answer.as_str())), "{answers:?}");
    let events =
        kubectl(&["get", "events", "-n", TENANT, "--field-selector", &of(name, "RolledBack"), "-o", "name"]).await;
    assert!(events.is_ok_and(|events| !events.trim().is_empty()), "an Event tells it");

    portolan(&["rollout", "promote", name, "-n", TENANT]).await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, second, "someone wanted it so");
    let undone = portolan(&["rollout", "undo", name, "-n", TENANT]).await;
    assert!(undone.contains(&first), "{undone}");
    // Calls of the one that serves fail now, so nothing is to the disadvantage of the one that comes back.
    portolan(&["rollout", "promote", name, "-n", TENANT]).await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, first);
    let history = portolan(&["rollout", "history", name, "-n", TENANT]).await;
    assert!(history.contains(&first) && history.contains(&second), "{history}");
}

/// A session at that revision.
async fn session_of(cluster: &Cluster, name: &str, revision: &str) -> Session {
    let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
    for _ in 0..200 {
        let session = Session::open(&url, Some(&token)).await.expect("a session");
        let host = puppet::eval(&session, 1, "require('os').hostname()").await.expect("its pod's name");
        if host.as_str().expect("text").starts_with(revision) {
            return session;
        }
        session.delete().await.expect("the session ends");
    }
    panic!("none of 200 sessions is at {revision}")
}

#[tokio::test]
async fn a_revision_that_is_slower_than_it_may_be_is_taken_back() {
    let cluster = Cluster::connect().await;
    let name = "steps-slow";
    deleting(&cluster, &[name], async {
        let analysis = json!({"interval": "2s", "failureThreshold": 1, "minCalls": 5, "maxLatencyPercent": 300});
        let first = cluster.serve(&by_steps(name, &json!([{"setWeight": 50, "pause": "10m"}]), &analysis)).await;
        let load = Load::start(&cluster, name).await;
        let slow =
            json!({"container": {"env": [{"name": "VERSION", "value": "2"}, {"name": "SLOW", "value": "1500"}]}});
        cluster.patch_spec(TENANT, name, &slow).await;
        let back = cluster.condition(TENANT, name, "Stalled", "True", "RolledBack", PATIENCE).await;
        for part in ["19 of 20 of its calls took up to", "maxLatencyPercent, 300"] {
            assert!(back.message.contains(part), "{}", back.message);
        }
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
        let answers = load.stop().await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["1", "2"], "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn a_comparison_waits_for_as_many_calls_as_it_takes_and_says_so() {
    let cluster = Cluster::connect().await;
    let name = "steps-few";
    deleting(&cluster, &[name], async {
        let analysis = json!({"interval": "1s", "failureThreshold": 1, "minCalls": 1_000_000});
        cluster.serve(&by_steps(name, &json!([{"setWeight": 50, "pause": "2s"}]), &analysis)).await;
        let load = Load::start(&cluster, name).await;
        cluster.patch_spec(TENANT, name, &bad()).await;
        until("what holds it up is told", PATIENCE, || async {
            let ready = cluster.condition(TENANT, name, "Ready", "False", "CanaryStep", PATIENCE).await.message;
            if ready.contains("calls have ended there") { Ok(()) } else { Err(ready) }
        })
        .await;
        let few = json!({"rollout": {"canary": {"analysis": {"minCalls": 5}}}});
        cluster.patch_spec(TENANT, name, &few).await;
        cluster.condition(TENANT, name, "Ready", "False", "RolledBack", PATIENCE).await;
        load.stop().await;
    })
    .await;
}

#[tokio::test]
async fn as_many_revisions_are_remembered_as_the_spec_says_and_undo_asks_for_the_last_one_again() {
    let cluster = Cluster::connect().await;
    let name = "remembered";
    deleting(&cluster, &[name], async {
        let mut manifest = puppet::stdio(TENANT, name);
        manifest["spec"]["rollout"] = json!({"drainTimeout": "0s", "revisionHistoryLimit": 2});
        let mut served = Vec::new();
        for number in ["1", "2", "3", "4"] {
            manifest["spec"]["container"]["env"] = json!([{"name": "VERSION", "value": number}]);
            served.push(cluster.serve(&manifest).await);
        }
        until("two are remembered beside the one that serves", PATIENCE, || async {
            let history = portolan(&["rollout", "history", name, "-n", TENANT]).await;
            let known: Vec<_> = served.iter().filter(|revision| history.contains(*revision)).collect();
            if known.iter().copied().eq(&served[1..]) { Ok(()) } else { Err(history) }
        })
        .await;
        portolan(&["rollout", "undo", name, "-n", TENANT]).await;
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, served[2]);
        portolan(&["rollout", "undo", name, "-n", TENANT, "--to", &served[1]]).await;
        cluster.ready(TENANT, name).await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, served[1]);
    })
    .await;
}

#[tokio::test]
async fn a_known_answer_that_turns_wrong_takes_a_revision_back() {
    let cluster = Cluster::connect().await;
    let name = "steps-check";
    deleting(&cluster, &[name], async {
        let long = json!([{"setWeight": 50, "pause": "10m"}]);
        let mut manifest = by_steps(name, &long, &json!({"interval": "1m"}));
        let check = "fs.existsSync('/tmp/wrong') ? 'wrong' : 'right'";
        manifest["spec"]["canaryChecks"] = json!({"interval": "1s", "failureThreshold": 1, "checks": [
            {"name": "right", "tool": {"name": "eval", "arguments": {"code": check}}, "expect": {"equals": "\"right\""}},
        ]});
        let first = cluster.serve(&manifest).await;
        cluster.patch_spec(TENANT, name, &version("2")).await;
        until_share(&cluster, name, 50).await;
        let second = revision(&cluster, name, RevisionState::Canary).await.expect("it takes a share");
        let session = session_of(&cluster, name, &second).await;
        puppet::eval(&session, 2, "fs.writeFileSync('/tmp/wrong', '')").await.expect("the puppet is told");
        let back = cluster.condition(TENANT, name, "Ready", "False", "RolledBack", PATIENCE).await;
        assert!(back.message.contains("canary check right at pod"), "{}", back.message);
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
    })
    .await;
}

#[tokio::test]
async fn tools_that_change_while_a_revision_has_a_share_take_it_back() {
    let cluster = Cluster::connect().await;
    let name = "steps-tools";
    deleting(&cluster, &[name], async {
        let mut manifest = by_steps(name, &json!([{"setWeight": 50, "pause": "10m"}]), &quick());
        let program = manifest["spec"]["container"]["command"][2].as_str().expect("a program").to_owned();
        let turns = "fs.existsSync('/tmp/turned') ? 'Obeys' : 'Evaluates JavaScript'";
        manifest["spec"]["container"]["command"][2] = program.replace("'Evaluates JavaScript'", turns).into();
        manifest["spec"]["healthCheck"] = json!({"interval": "1s", "timeout": "1s"});
        let first = cluster.serve(&manifest).await;
        cluster.patch_spec(TENANT, name, &version("2")).await;
        until_share(&cluster, name, 50).await;
        let second = revision(&cluster, name, RevisionState::Canary).await.expect("it takes a share");
        let session = session_of(&cluster, name, &second).await;
        puppet::eval(&session, 2, "fs.writeFileSync('/tmp/turned', '')").await.expect("the puppet is told");
        let back = cluster.condition(TENANT, name, "Ready", "False", "RolledBack", PATIENCE).await;
        assert!(back.message.contains("tool eval has another description"), "{}", back.message);
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
    })
    .await;
}

#[tokio::test]
async fn a_rollout_is_paused_aborted_and_tried_again_by_whoever_owns_the_spec() {
    let cluster = Cluster::connect().await;
    let name = "steps-steered";
    deleting(&cluster, &[name], async {
        let two = json!([{"setWeight": 20, "pause": "3s"}, {"setWeight": 60, "pause": "10m"}]);
        let first = cluster.serve(&by_steps(name, &two, &quick())).await;
        cluster.patch_spec(TENANT, name, &version("2")).await;
        until_share(&cluster, name, 20).await;
        portolan(&["rollout", "pause", name, "-n", TENANT]).await;
        let paused = cluster.condition(TENANT, name, "Ready", "False", "RolloutPaused", PATIENCE).await;
        assert!(paused.message.contains("stays at 20 %"), "{}", paused.message);
        portolan(&["rollout", "resume", name, "-n", TENANT]).await;
        until_share(&cluster, name, 60).await;
        let second = revision(&cluster, name, RevisionState::Canary).await.expect("it takes a share");

        portolan(&["rollout", "abort", name, "-n", TENANT]).await;
        let aborted = cluster.condition(TENANT, name, "Ready", "False", "RolloutAborted", PATIENCE).await;
        assert!(aborted.message.contains(&second), "{}", aborted.message);
        assert_eq!(shares(&cluster, name).await.get("Serving"), Some(&100));
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
        cluster.patch_spec(TENANT, name, &json!({"rollout": {"abort": null}})).await;
        until_share(&cluster, name, 20).await;

        // A second edit during the rollout: the one that had a share is not waited for, and the next begins at the first step.
        cluster.patch_spec(TENANT, name, &version("3")).await;
        until("another revision takes its place", PATIENCE, || async {
            match revision(&cluster, name, RevisionState::Canary).await {
                Some(canary) if canary != second => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(shares(&cluster, name).await.get("Canary"), Some(&20), "not the share of the one before it");
        until("the one that was dropped has no pod any more", PATIENCE, || async {
            let left = cluster.pods(TENANT, &format!("portolan.dev/revision={second}")).await.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await;
        assert_eq!(cluster.serving_revision(TENANT, name).await, first);
        portolan(&["rollout", "promote", name, "-n", TENANT]).await;
        cluster.ready(TENANT, name).await;
        let status = portolan(&["rollout", "status", name, "-n", TENANT, "--watch"]).await;
        assert!(status.contains("Serving   100 %"), "{status}");
    })
    .await;
}
