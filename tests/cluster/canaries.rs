//! Known answers: what a server is asked before it serves and from then on, and what comes of a wrong answer.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::collections::BTreeSet;
use std::time::Duration;

use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, OPERATOR, PLATFORM, TENANT, kubectl};
use portolan_tests::mcp;
use portolan_tests::sized;
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{paths, puppet};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Answers with the nonce, or with something else where `/tmp/wrong` is there; writes down when it was asked, and for what.
const NONCE: &str = "(fs.appendFileSync('/tmp/asked', `${Date.now()} {{nonce}} ${fs.existsSync('/tmp/wrong')}\\n`), \
                     fs.existsSync('/tmp/wrong') ? 'wrong' : '{{nonce}}')";
const FALSIFY: &str = "fs.writeFileSync('/tmp/wrong', '')";
const RECTIFY: &str = "fs.unlinkSync('/tmp/wrong')";
/// The lines that were written down, each taken apart.
const ASKED: &str = "fs.readFileSync('/tmp/asked', 'utf8').trim().split('\\n').map(line => line.split(' '))";

/// A puppet with checks.
fn checked(name: &str, checks: &Value) -> Value {
    let mut manifest = puppet::stdio(TENANT, name);
    manifest["spec"]["canaryChecks"] = checks.clone();
    manifest
}

/// A check that evaluates `code`; the puppet answers with JSON.
fn check(name: &str, code: &str, expect: &Value) -> Value {
    json!({"name": name, "tool": {"name": "eval", "arguments": {"code": code}}, "expect": expect})
}

#[tokio::test]
async fn a_server_that_begins_to_answer_wrongly_is_not_ready_says_what_it_answered_and_serves_on() {
    let cluster = Cluster::connect().await;
    let name = "canary-turns";
    deleting(&cluster, &[name], turns(&cluster, name)).await;
}

async fn turns(cluster: &Cluster, name: &str) {
    let checks = json!({"interval": "1s", "failureThreshold": 3, "checks": [
        check("nonce", NONCE, &json!({"equals": "\"{{nonce}}\""})),
    ]});
    cluster.serve(&checked(name, &checks)).await;
    let session = sized::session(cluster, name).await;
    puppet::eval(&session, 1, FALSIFY).await.expect("the puppet is told");
    let fell = cluster.condition(TENANT, name, "Available", "False", "CanaryFailed", PATIENCE).await;
    let [pod] = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await.try_into().expect("one pod");
    let pod = pod.metadata.name.expect("a name");
    let said = format!(
        r#"canary check nonce at pod {pod}: expected the text "\"{{{{nonce}}}}\"", got "\"wrong\""; calls still go there"#
    );
    assert_eq!(fell.message, said);
    cluster.condition(TENANT, name, "Ready", "False", "CanaryFailed", PATIENCE).await;
    let asked = puppet::eval(&session, 2, ASKED).await.expect("calls are answered all the while");
    let asked: Vec<(u64, String, bool)> = asked
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| {
            let [at, nonce, wrong] = [0, 1, 2].map(|index| line[index].as_str().expect("a word").to_owned());
            (at.parse().expect("a time"), nonce, wrong == "true")
        })
        .collect();
    let nonces: BTreeSet<_> = asked.iter().map(|(_, nonce, _)| nonce).collect();
    assert_eq!(nonces.len(), asked.len(), "each question is a new one: {asked:?}");
    assert!(asked.iter().filter(|(.., wrong)| *wrong).count() >= 3, "three in a row before it is said: {asked:?}");
    let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap >= 950), "a round every second: {gaps:?}");

    until("the operator counts it", PATIENCE, || async {
        let text = metrics(cluster).await?;
        let series =
            format!(r#"portolan_operator_canary_failing_pods{{check="nonce",namespace="{TENANT}",server="{name}"}} 1"#);
        if text.lines().any(|line| line == series) { Ok(()) } else { Err(text) }
    })
    .await;
    until("an Event tells it", PATIENCE, || async {
        let selector = format!("involvedObject.name={name},reason=CanaryFailed");
        let events = kubectl(&["get", "events", "-n", TENANT, "--field-selector", &selector, "-o", "name"]).await?;
        if events.trim().is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;

    puppet::eval(&session, 3, RECTIFY).await.expect("the puppet is told");
    cluster.ready(TENANT, name).await;
}

/// What the leading operator counts.
async fn metrics(cluster: &Cluster) -> Result<String, String> {
    let operators = cluster.pods(PLATFORM, OPERATOR).await;
    let ip = operators.into_iter().find_map(|pod| pod.status?.pod_ip).ok_or("no operator")?;
    let answer =
        mcp::http().get(format!("http://{ip}:8082/metrics")).send().await.map_err(|error| error.to_string())?;
    answer.text().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_revision_that_answers_wrongly_takes_no_call_and_the_next_edit_takes_its_place() {
    let cluster = Cluster::connect().await;
    let name = "canary-guards";
    deleting(&cluster, &[name], guards(&cluster, name)).await;
}

async fn guards(cluster: &Cluster, name: &str) {
    let checks =
        json!({"interval": "1s", "checks": [check("answer", "process.env.ANSWER", &json!({"contains": ["42"]}))]});
    let mut manifest = checked(name, &checks);
    let answering = |value: &str| json!({"container": {"env": [{"name": "ANSWER", "value": value}]}});
    manifest["spec"]["container"]["env"] = json!([{"name": "ANSWER", "value": "42"}]);
    let first = cluster.serve(&manifest).await;
    let (stop, stopped) = oneshot::channel();
    let load = tokio::spawn(answers(cluster.clone(), name.to_owned(), stopped));

    cluster.patch_spec(TENANT, name, &answering("41")).await;
    let stalled = cluster.condition(TENANT, name, "Stalled", "True", "CanaryFailed", PATIENCE).await;
    for part in ["canary check answer at pod", r#"got "\"41\"""#, &format!("revision {first} serves meanwhile")] {
        assert!(stalled.message.contains(part), "{}", stalled.message);
    }
    cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, first);

    cluster.patch_spec(TENANT, name, &answering("42 again")).await;
    cluster.ready(TENANT, name).await;
    assert_ne!(cluster.serving_revision(TENANT, name).await, first);
    // Back to the one before, while it still has a session and drains.
    let held = sized::session(cluster, name).await;
    cluster.patch_spec(TENANT, name, &answering("42")).await;
    cluster.ready(TENANT, name).await;
    assert_eq!(cluster.serving_revision(TENANT, name).await, first);
    cluster.patch_spec(TENANT, name, &answering("42 again")).await;
    cluster.ready(TENANT, name).await;
    held.delete().await.expect("the session ends");
    stop.send(()).expect("the load goes on");
    let answers = load.await.expect("the load ends");
    assert_eq!(
        answers,
        BTreeSet::from(["42".to_owned(), "42 again".to_owned()]),
        "no call reached the one that is wrong"
    );
}

/// What sessions are told that are opened one after the other, until stopped.
async fn answers(cluster: Cluster, name: String, mut stop: oneshot::Receiver<()>) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    loop {
        let session = sized::session(&cluster, &name).await;
        let answer = puppet::eval(&session, 1, "process.env.ANSWER").await.expect("an answer");
        session.delete().await.expect("the session ends");
        answers.insert(answer.as_str().expect("text").to_owned());
        if stop.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
            return answers;
        }
    }
}

#[tokio::test]
async fn every_expectation_is_met_by_what_it_expects_and_by_nothing_else() {
    let cluster = Cluster::connect().await;
    let name = "canary-expects";
    deleting(&cluster, &[name], expects(&cluster, name)).await;
}

async fn expects(cluster: &Cluster, name: &str) {
    const OBJECT: &str = "({rows: [{price: 42}]})";
    let resource = json!({"name": "r", "resource": {"uri": "canary://cow/{{nonce}}"}, "expect": {"equals": "read canary://cow/{{nonce}}"}});
    let wrong_resource =
        json!({"name": "r", "resource": {"uri": "canary://cow/{{nonce}}"}, "expect": {"equals": "{{nonce}}"}});
    let late = "new Promise(done => setTimeout(() => done('late'), 800))";
    let pairs = [
        (
            check("c", "'a cow'", &json!({"contains": ["a", "cow"]})),
            check("c", "'a cow'", &json!({"contains": ["a", "ox"]})),
            r#"a text with "ox""#,
        ),
        (check("e", "7", &json!({"equals": "7"})), check("e", "7", &json!({"equals": "8"})), r#"the text "8""#),
        (
            check("x", "77", &json!({"regex": "^7+$"})),
            check("x", "77", &json!({"regex": "^7$"})),
            "a text that matches ^7$",
        ),
        (
            check("j", OBJECT, &json!({"jsonPath": [{"path": "$.rows[0].price", "equals": 42}]})),
            check("j", OBJECT, &json!({"jsonPath": [{"path": "$.rows[0].price", "equals": 43}]})),
            "expected 43 at $.rows[0].price, got 42",
        ),
        (
            check("l", "'{{nonce}}'", &json!({"cel": "text.contains(nonce)"})),
            check("l", "'x'", &json!({"cel": "text == 'y'"})),
            "text == 'y' to be true",
        ),
        (
            check("t", late, &json!({"contains": ["late"], "maxLatency": "20s"})),
            check("t", late, &json!({"contains": ["late"], "maxLatency": "200ms"})),
            "an answer within 200ms, got none",
        ),
        (resource, wrong_resource, r#"the text "{{nonce}}""#),
        (
            check("s", "1", &json!({"equals": "1"})),
            check("s", "throw 1", &json!({"equals": "1"})),
            "expected no error, got the error",
        ),
    ];
    let right: Vec<_> = pairs.iter().map(|(right, ..)| right).collect();
    cluster.serve(&checked(name, &json!({"interval": "1s", "checks": right}))).await;
    for (right, wrong, said) in &pairs {
        cluster.patch_spec(TENANT, name, &json!({"canaryChecks": {"checks": [wrong]}})).await;
        let fell = cluster.condition(TENANT, name, "Ready", "False", "CanaryFailed", PATIENCE).await;
        assert!(fell.message.contains(said), "{}: {said}", fell.message);
        cluster.patch_spec(TENANT, name, &json!({"canaryChecks": {"checks": [right]}})).await;
        cluster.ready(TENANT, name).await;
    }
}

#[tokio::test]
async fn a_check_that_cannot_be_made_stalls_with_its_field_and_the_server_serves_on() {
    let cluster = Cluster::connect().await;
    let name = "canary-impossible";
    deleting(&cluster, &[name], impossible(&cluster, name)).await;
}

async fn impossible(cluster: &Cluster, name: &str) {
    let good = check("a", "1", &json!({"equals": "1"}));
    cluster.serve(&checked(name, &json!({"interval": "1s", "checks": [good]}))).await;
    let unknown = json!({"name": "b", "tool": {"name": "evil"}, "expect": {"equals": "1"}});
    for (bad, reason, said) in [
        (
            check("b", "1", &json!({"regex": "("})),
            "Invalid",
            "spec.canaryChecks.checks[1].expect.regex: not a regular expression",
        ),
        (
            check("b", "1", &json!({"cel": "answer == 1"})),
            "Invalid",
            "spec.canaryChecks.checks[1].expect.cel: there is no answer",
        ),
        (
            check("b", "1", &json!({"jsonPath": [{"path": "$..a", "equals": 1}]})),
            "Invalid",
            "spec.canaryChecks.checks[1].expect.jsonPath[0].path: a path that may lead to many values",
        ),
        (
            check("b", "1", &json!({"contains": ["{{nonce}}"]})),
            "Invalid",
            "spec.canaryChecks.checks[1].expect: {{nonce}} is expected and nothing brings it to the server",
        ),
        (unknown, "UnknownTool", "spec.canaryChecks.checks[1].tool.name: expected a tool evil, got only eval"),
    ] {
        cluster.patch_spec(TENANT, name, &json!({"canaryChecks": {"checks": [good, bad]}})).await;
        let stalled = cluster.condition(TENANT, name, "Stalled", "True", reason, PATIENCE).await;
        assert!(stalled.message.starts_with(said), "{}", stalled.message);
        cluster.condition(TENANT, name, "Ready", "False", reason, PATIENCE).await;
        let session = sized::session(cluster, name).await;
        assert_eq!(puppet::eval(&session, 1, "1 + 1").await, Ok(json!(2)), "it serves on");
    }
    cluster.patch_spec(TENANT, name, &json!({"canaryChecks": null})).await;
    cluster.ready(TENANT, name).await;
    let server = cluster.api::<MCPServer>(TENANT).get(name).await.expect("it is there");
    assert!(server.spec.canary_checks.is_none());
    until("the operator counts nothing of it any more", Duration::from_secs(10), || async {
        let text = metrics(cluster).await?;
        if text.contains(&format!("server=\"{name}\"")) { Err("it does".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_asks_is_told_from_one_that_makes_things_up_by_the_gateways_own_logs() {
    let cluster = Cluster::connect().await;
    let name = "canary-agents";
    deleting(&cluster, &[name], agents(&cluster, name)).await;
}

async fn agents(cluster: &Cluster, name: &str) {
    let there = json!({"name": "there", "resource": {"uri": "canary://saint-anthony/{{nonce}}"}, "expect": {"contains": ["{{nonce}}", "cow"]}});
    cluster.serve(&checked(name, &json!({"document": "SaintAnthony", "checks": [there]}))).await;
    let (url, token) = (cluster.gateway_url(TENANT, name).await, cluster.token(TENANT, "default").await);
    let portolan = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(paths::binary("portolan"));
        command.args(words).env("PORTOLAN_TOKEN", &token).stdin(std::process::Stdio::null());
        command.output().await.expect("it runs")
    };
    let run = portolan(&["canary", "run", name, "-n", TENANT, "--url", &url]).await;
    assert!(run.status.success() && String::from_utf8_lossy(&run.stdout).contains("passed"), "{run:?}");

    let agent = ["canary", "agent", "--server", name, "-n", TENANT, "--url", &url, "-o", "json", "--"];
    let python = paths::repo("target/thirdparty/python/clients/bin/python").display().to_string();
    let reader = paths::repo("tests/local/agents/reader.py").display().to_string();
    let dreamer = paths::repo("tests/local/agents/dreamer.py").display().to_string();
    for (command, code, verdict, calls) in [
        (vec![python.as_str(), &reader, "{question}", "{url}"], 0, "read", 1),
        (vec!["env", "AGENT_FORGETS=1", &python, &reader, "{question}"], 2, "askedInVain", 1),
        (vec![&python, &dreamer], 2, "madeUp", 0),
    ] {
        let output = portolan(&[&agent[..], &command].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&told["verdict"], &told["calls"]), (&json!(verdict), &json!(calls)), "{told}");
    }
}
