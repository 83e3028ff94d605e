//! A server that has no pods while nobody calls: what is answered in its stead, and what waits for a pod.

use http::Method;
use portolan_snapshot::{Report, report::Callers};
use serde_json::{Value, json};

use crate::admin::{line, signed};
use crate::aggregate::{ALL, legacy, missing, names, open};
use crate::bridge::Bridge;
use crate::checks;
use crate::client::{Answer, Client, Streaming, call, initialize, soon, until};
use crate::modern::{self, request, saying};
use crate::offers::{Offers, is_shared};
use crate::world::{Gateway, MAC_KEY, Objects, ROUTE, STREAM_KEY};

const REPORTED: &str = "default/everything";

/// One server that sleeps while nobody calls.
struct World {
    bridge: Bridge,
    objects: Objects,
    gateway: Gateway,
}

impl World {
    /// It has a pod, and the gateway has heard what it has.
    async fn start() -> Self {
        Self::start_as(&json!({}), json!({})).await
    }

    async fn start_as(autoscaling: &Value, limits: Value) -> Self {
        let bridge = Bridge::start("uid-1", MAC_KEY).await;
        bridge.keep_sessions();
        bridge.offer(offers());
        let mut objects = Objects::new(&[&bridge]);
        objects.servers.truncate(1);
        objects.server["autoscaling"] = with(to_zero(), autoscaling);
        objects.server["limits"] = limits;
        let gateway = Gateway::start(&objects).await;
        let shared = || bridge.seen().iter().filter(|seen| is_shared(&seen.headers)).count();
        until("it has said what it has, though nobody asked", async || shared() == 4).await;
        Self { bridge, objects, gateway }
    }

    async fn load(&self) {
        self.gateway.load(self.objects.inputs()).await;
    }

    async fn fall_asleep(&mut self) {
        self.objects.pods.clear();
        self.load().await;
    }

    async fn wake(&mut self) {
        let awake = Objects::new(&[&self.bridge]);
        self.objects.pods = awake.pods;
        self.load().await;
    }

    /// A client with a session.
    async fn session(&self) -> Client {
        let session = self.gateway.client().initialize().await;
        self.gateway.client().session(&session)
    }

    async fn reports(&self) -> Reports {
        let stream = signed(&self.gateway).open(Method::GET, "/v1/stream", "").await;
        Reports { stream, read: 0, state: None }
    }
}

/// What the operator is told.
struct Reports {
    stream: Streaming,
    read: usize,
    state: Option<Report>,
}

impl Reports {
    /// Waits until it is told that somebody waits for a pod.
    async fn until_waited_for(&mut self) -> Callers {
        loop {
            Report::apply(&mut self.state, line(&mut self.stream, self.read).await).expect("a report");
            self.read += 1;
            let server = &self.state.as_ref().expect("whole").servers[REPORTED];
            if server.is_waited_for() {
                return server.callers.expect("counted");
            }
        }
    }
}

fn to_zero() -> Value {
    json!({"minReplicas": 0, "maxReplicas": 2, "metrics": [{"type": "InFlight", "target": 10}]})
}

fn with(mut value: Value, more: &Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    value.as_object_mut().expect("an object").extend(more);
    value
}

const TOOL: &str = r#"{"x-n":1.50,"name":"echo","inputSchema":{ "x-big":12345678901234567890 },"title":"\u00e9"}"#;

fn offers() -> Offers {
    Offers {
        tools: Some(vec![TOOL.into()]),
        resources: Some(vec![r#"{"uri":"a:b","name":"one"}"#.into()]),
        templates: Some(vec![r#"{"uriTemplate":"a:{n}","name":"some"}"#.into()]),
        ..Offers::default()
    }
}

/// Asks in either era.
async fn in_both(client: &Client, method: &str) -> [Answer; 2] {
    let with_session = client.post(ROUTE, legacy(method, &json!({}))).await;
    [with_session, saying(client.clone(), method, None).post(ROUTE, request(method, json!({}))).await]
}

#[tokio::test]
async fn while_a_server_sleeps_what_it_had_is_answered_in_its_stead_as_it_wrote_it() {
    let mut world = World::start().await;
    world.fall_asleep().await;
    let asked = world.bridge.seen().len();
    let client = world.session().await;
    for (method, list, name, expected) in [
        ("tools/list", "tools", "name", "echo"),
        ("resources/list", "resources", "uri", "a:b"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", "a:{n}"),
    ] {
        for answer in in_both(&client, method).await {
            assert_eq!(names(&answer, list, name), [expected], "{answer:?}");
            assert_eq!(missing(&answer), [] as [Value; 0], "what it had is what it has");
            assert!(list != "tools" || answer.text().contains(TOOL), "{}", answer.text());
        }
    }
    let ping = client.post(ROUTE, legacy("ping", &json!({}))).await;
    assert_eq!((ping.status, &ping.json()["result"]), (200, &json!({})));
    let discovered = saying(client.clone(), "server/discover", None);
    let discovered = discovered.post(ROUTE, request("server/discover", json!({}))).await.json();
    assert_eq!(discovered["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "t");
    let params =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let opened = world.gateway.client().post(ROUTE, legacy("initialize", &params)).await.json();
    assert_eq!(opened["result"]["serverInfo"], json!({"name": "t", "version": "1"}), "it answers for itself");
    assert_eq!(opened["result"]["protocolVersion"], "2025-06-18");
    assert!(opened["result"]["capabilities"]["tools"].is_object() && opened["result"]["instructions"].is_null());
    assert_eq!(world.bridge.seen().len(), asked, "nobody asked for a pod");
    let subscribed = client.post(ROUTE, legacy("resources/subscribe", &json!({"uri": "a:b"}))).await;
    assert_eq!(subscribed.json()["error"]["code"], -32601, "{subscribed:?}");
}

#[tokio::test]
async fn a_call_waits_for_a_pod_which_the_operator_is_told_at_once_and_is_served_there() {
    let mut world = World::start().await;
    world.fall_asleep().await;
    let mut reports = world.reports().await;
    let client = world.session().await;
    let calls = {
        let (client, sessionless) = (client.clone(), world.gateway.client());
        let all = open(&world.gateway.client()).await;
        [
            tokio::spawn(async move { client.call("echo", json!({"x": 1})).await }),
            tokio::spawn(async move { modern::call(sessionless, "echo", json!({"arguments": {"x": 1}})).await }),
            tokio::spawn(async move {
                let params = json!({"name": "default__everything__echo", "arguments": {"x": 1}});
                all.post(ALL, legacy("tools/call", &params)).await
            }),
        ]
    };
    assert!(reports.until_waited_for().await.under_way > 0);
    until("all of them wait", async || world.gateway.metric("portolan_gateway_requests_entered").await >= 3.0).await;
    assert_eq!(world.bridge.count("tools/call"), 0);
    world.wake().await;
    for call in calls {
        let answer = soon(call).await.expect("no panic");
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"x": 1})));
    }
    assert_eq!(world.bridge.count("initialize"), 2, "one session at its own endpoint, one at that of all servers");
}

#[tokio::test]
async fn a_session_goes_on_after_its_server_slept() {
    let mut world = World::start().await;
    let client = world.session().await;
    assert_eq!(client.call("echo", json!({"x": 1})).await.status, 200);
    world.fall_asleep().await;
    let other = Bridge::start("uid-2", MAC_KEY).await;
    other.keep_sessions();
    other.offer(offers());
    let mut reports = world.reports().await;
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.call("echo", json!({"x": 2})).await }
    });
    reports.until_waited_for().await;
    world.objects.pods = Objects::new(&[&other]).pods;
    world.load().await;
    let answer = soon(waits).await.expect("no panic");
    assert_eq!(answer.json()["result"], json!({"x": 2}), "{answer:?}");
    assert_eq!((other.count("initialize"), other.sessions()), (1, 1), "its session there is another");
    assert_eq!(client.send(Method::DELETE, ROUTE, "").await.status, 204);
    assert_eq!(other.sessions(), 0);
}

#[tokio::test]
async fn a_pod_that_goes_away_answers_for_the_sessions_that_it_has_and_nobody_waits() {
    let mut world = World::start().await;
    let client = world.session().await;
    assert_eq!(client.call("echo", json!({"x": 1})).await.status, 200);
    world.objects.pods[0].3 = false;
    world.load().await;
    assert_eq!(soon(client.call("echo", json!({"x": 2}))).await.json()["result"], json!({"x": 2}));
    assert_eq!(world.bridge.count("initialize"), 1);
}

#[tokio::test]
async fn a_call_that_no_pod_takes_in_time_is_told_so_and_no_more_wait_than_may() {
    let limits = json!({"maxParallelRequests": 1, "maxPendingRequests": 1});
    let mut world = World::start_as(&json!({"activationTimeout": "1500ms"}), limits).await;
    world.fall_asleep().await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let client = world.gateway.client();
            tokio::spawn(async move { modern::call(client, "echo", json!({})).await })
        })
        .collect();
    let mut told = Vec::new();
    for call in calls {
        let answer = soon(call).await.expect("no panic");
        let error = answer.json()["error"].clone();
        told.push((answer.status, error["data"]["error_type"].as_str().expect("a kind").to_owned()));
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    told.sort();
    let late = (503, "NotReady".to_owned());
    assert_eq!(told, [late.clone(), late, (503, "Overloaded".to_owned())]);
    assert_eq!(world.gateway.metric(r#"portolan_gateway_bound_hits_total{bound="Asleep"}"#).await, 1.0);
}

#[tokio::test]
async fn a_replica_that_never_heard_what_a_server_has_wakes_it_to_be_told() {
    let mut world = World::start().await;
    world.fall_asleep().await;
    let replica = Gateway::start(&world.objects).await;
    let client = replica.client();
    let waits = tokio::spawn(async move { client.initialize().await });
    let mut stream = signed(&replica).open(Method::GET, "/v1/stream", "").await;
    let mut state = None;
    for number in 0.. {
        Report::apply(&mut state, line(&mut stream, number).await).expect("a report");
        if state.as_ref().expect("whole").servers[REPORTED].is_waited_for() {
            break;
        }
    }
    world.wake().await;
    replica.load(world.objects.inputs()).await;
    let session = soon(waits).await.expect("no panic");
    let answer = replica.client().session(&session).post(ROUTE, legacy("tools/list", &json!({}))).await;
    assert_eq!(names(&answer, "tools", "name"), ["echo"]);
}

#[tokio::test]
async fn a_session_that_was_opened_before_a_server_might_sleep_goes_on() {
    let mut world = World::start().await;
    let to_zero = world.objects.server["autoscaling"].take();
    world.load().await;
    let before = world.session().await;
    world.objects.server["autoscaling"] = to_zero;
    world.load().await;
    assert_eq!(before.call("echo", json!({"x": 1})).await.status, 200);
    let after = world.session().await;
    assert_eq!(after.call("echo", json!({"x": 1})).await.status, 200);
    world.fall_asleep().await;
    until("its pod is known to be gone", async || before.call("echo", json!({})).await.status == 404).await;
}

#[tokio::test]
async fn what_the_operator_checks_is_nobodys_call() {
    let world = World::start().await;
    let check = checks::signed(world.gateway.admin(), "POST", checks::OF_FIRST, STREAM_KEY);
    let opened = check.post(checks::OF_FIRST, initialize()).await;
    let check = check.session(opened.header("mcp-session-id").expect("a session"));
    assert_eq!(check.post(checks::OF_FIRST, call("echo", json!({}))).await.status, 200);
    let callers = async || {
        let mut stream = signed(&world.gateway).open(Method::GET, "/v1/stream", "").await;
        line(&mut stream, 0).await.servers[REPORTED].callers.expect("counted")
    };
    assert_eq!(callers().await, Callers::default());
    assert_eq!(world.session().await.call("echo", json!({})).await.status, 200);
    until("the call has ended", async || callers().await == Callers { begun: 1, under_way: 0 }).await;
}
