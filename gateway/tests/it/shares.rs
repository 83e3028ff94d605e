//! Two revisions between which new sessions and calls are shared out, and what the operator is told of how calls go at each.

use http::Method;
use portolan_snapshot::{Report, report::Traffic};
use serde_json::{Value, json};

use crate::admin::{line, signed};
use crate::bridge::Bridge;
use crate::client::{Client, Streaming};
use crate::modern;
use crate::world::{Gateway, MAC_KEY, Objects};

const SERVING: &str = "everything-aaaaaaaa";
const CANARY: &str = "everything-bbbbbbbb";

/// A pod of the revision that serves, and one of the revision that takes a share.
struct World {
    serving: Bridge,
    canary: Bridge,
    objects: Objects,
    gateway: Gateway,
}

impl World {
    async fn start(weight: u8) -> Self {
        Self::start_as(weight, json!({})).await
    }

    async fn start_as(weight: u8, sessions: Value) -> Self {
        let (serving, canary) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
        let mut objects = Objects::new(&[&serving, &canary]);
        objects.server["sessions"] = sessions;
        objects.pods[1].2 = CANARY.into();
        objects.revisions = revisions(weight);
        let gateway = Gateway::start(&objects).await;
        Self { serving, canary, objects, gateway }
    }

    async fn set_weight(&mut self, weight: u8) {
        self.objects.revisions = revisions(weight);
        self.gateway.load(self.objects.inputs()).await;
    }

    /// A session at the canary.
    async fn session_at_canary(&self) -> Client {
        for _ in 0..400 {
            let before = self.canary.count("initialize");
            let session = self.gateway.client().initialize().await;
            if self.canary.count("initialize") > before {
                return self.gateway.client().session(&session);
            }
        }
        panic!("none of 400 sessions is there")
    }
}

fn revisions(weight: u8) -> Value {
    let serving = json!({"name": SERVING, "state": "Serving", "weight": 100 - weight, "generation": 1});
    if weight == 0 {
        return json!([serving, {"name": CANARY, "state": "Failed", "weight": 0, "generation": 2}]);
    }
    json!([serving, {"name": CANARY, "state": "Canary", "weight": weight, "generation": 2}])
}

#[tokio::test]
async fn new_sessions_are_shared_out_as_the_weights_say_and_stay_where_they_began() {
    let mut world = World::start(30).await;
    for _ in 0..400 {
        world.gateway.client().initialize().await;
    }
    let taken = world.canary.count("initialize");
    assert_eq!(taken + world.serving.count("initialize"), 400);
    assert!((60..=180).contains(&taken), "30 % of 400 sessions are {taken}");
    let session = world.session_at_canary().await;
    world.set_weight(0).await;
    let (before, calls) = (world.canary.count("initialize"), world.canary.count("tools/call"));
    for _ in 0..50 {
        world.gateway.client().initialize().await;
    }
    assert_eq!(world.canary.count("initialize"), before, "it takes none any more");
    assert_eq!(session.call("echo", json!({})).await.status, 200);
    assert_eq!(world.canary.count("tools/call"), calls + 1);
}

#[tokio::test]
async fn a_share_that_its_pods_cannot_take_goes_to_the_other_revision() {
    let mut world = World::start(99).await;
    world.canary.set_full(true);
    for _ in 0..20 {
        world.gateway.client().initialize().await;
    }
    assert!(world.canary.count("initialize") > 0, "it was asked");
    world.objects.pods[1].3 = false;
    world.set_weight(99).await;
    let asked = world.canary.count("initialize");
    for _ in 0..20 {
        world.gateway.client().initialize().await;
        assert_eq!(modern::call(world.gateway.client(), "echo", json!({})).await.status, 200);
    }
    assert_eq!(world.canary.count("initialize"), asked, "its pod is not ready");
    world.canary.set_full(false);
    (world.objects.pods[0].3, world.objects.pods[1].3) = (false, true);
    world.set_weight(1).await;
    for _ in 0..20 {
        world.gateway.client().initialize().await;
        assert_eq!(modern::call(world.gateway.client(), "echo", json!({})).await.status, 200);
    }
    assert_eq!(world.canary.count("initialize"), asked + 20, "and the other way round");
}

#[tokio::test]
async fn calls_without_a_session_are_shared_out_whoever_calls() {
    for sessions in ["Stateless", "Stateful"] {
        let world = World::start_as(50, json!({"type": sessions})).await;
        for _ in 0..100 {
            assert_eq!(modern::call(world.gateway.client(), "echo", json!({})).await.status, 200);
        }
        let taken = world.canary.count("tools/call");
        assert!((15..=85).contains(&taken), "50 % of 100 calls of one caller are {taken}, {sessions}");
    }
}

/// What the operator is told next of how calls went.
async fn traffic(stream: &mut Streaming, number: &mut usize) -> std::collections::BTreeMap<String, Traffic> {
    let told: Report = line(stream, *number).await;
    *number += 1;
    told.servers.get("default/everything").map(|server| server.traffic.clone()).unwrap_or_default()
}

#[tokio::test]
async fn the_operator_is_told_how_calls_went_at_each_revision_while_they_are_compared() {
    let mut world = World::start(50).await;
    let at_canary = world.session_at_canary().await;
    let mut stream = signed(&world.gateway).open(Method::GET, "/v1/stream", "").await;
    let mut number = 0;
    let first = traffic(&mut stream, &mut number).await;
    assert_eq!(first.keys().collect::<Vec<_>>(), [SERVING, CANARY], "nothing yet is something");
    at_canary.call("echo", json!({"x": 1})).await;
    at_canary.call("echo", json!({"isError": true})).await;
    at_canary.call("notify", json!({})).await;
    at_canary.call("fail", json!({})).await;
    at_canary.call("drop", json!({})).await;
    // What a caller asked wrongly is the caller's.
    at_canary
        .post(crate::world::ROUTE, r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"refuse"}}"#)
        .await;
    // What is no call of a tool is not compared.
    at_canary.post(crate::world::ROUTE, r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#).await;
    let told = loop {
        let told = traffic(&mut stream, &mut number).await;
        if told.get(CANARY).is_some_and(|canary| canary.calls >= 6) {
            break told;
        }
    };
    assert_eq!((told[CANARY].calls, told[CANARY].failed), (6, 3));
    assert_eq!(told[CANARY].durations.values().sum::<u64>(), 6);
    assert_eq!((told[SERVING].begun, told[SERVING].calls), (0, 0));
    world.set_weight(60).await;
    at_canary.call("echo", json!({})).await;
    let told = loop {
        let told = traffic(&mut stream, &mut number).await;
        if told.get(CANARY).is_some_and(|canary| canary.calls != 6) {
            break told;
        }
    };
    assert_eq!(told[CANARY].calls, 7, "another share is the same comparison");
    world.set_weight(0).await;
    while !traffic(&mut stream, &mut number).await.is_empty() {}
    let metrics = world.gateway.admin().get("/metrics").await.text();
    assert!(metrics.contains("portolan_gateway_config_generation 3"), "{metrics}");
}
