//! What the operator asks of one pod, on the admin port.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use portolan_mcp::mac::{self, MacKey, Subject};
use serde_json::json;

use crate::bridge::Bridge;
use crate::client::{Answer, Client, call, initialize};
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE, STREAM_KEY};

pub const OF_FIRST: &str = "/v1/checks/default/everything/uid-1";
const OF_SECOND: &str = "/v1/checks/default/everything/uid-2";

/// A pod that serves, and one of a revision that does not yet.
struct World {
    serves: Bridge,
    next: Bridge,
    gateway: Gateway,
}

impl World {
    async fn start() -> Self {
        let (serves, next) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
        let mut objects = Objects::new(&[&serves, &next]);
        objects.pods[1].2 = "everything-bbbbbbbb".into();
        let gateway = Gateway::start(&objects).await;
        Self { serves, next, gateway }
    }

    async fn check(&self, path: &str, body: String) -> Answer {
        signed(self.gateway.admin(), "POST", path, STREAM_KEY).post(path, body).await
    }

    /// Opens a session at the pod of `path`.
    async fn session(&self, path: &str) -> String {
        let answer = self.check(path, initialize()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("mcp-session-id").expect("a session").into()
    }
}

pub fn signed(client: Client, method: &str, path: &str, key: [u8; 32]) -> Client {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let subject = Subject { method, path, session: "", pod: "" };
    let mac = MacKey::new(&key).expect("a key").sign(subject, now.try_into().expect("fits"));
    client.with(mac::HEADER.as_str(), &mac)
}

#[tokio::test]
async fn the_operator_reaches_the_pod_that_it_names_though_no_client_does_yet() {
    let world = World::start().await;
    let session = world.session(OF_SECOND).await;
    let client = signed(world.gateway.admin(), "POST", OF_SECOND, STREAM_KEY).session(&session);
    let answer = client.post(OF_SECOND, call("echo", json!({"n": 7}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((world.serves.seen().len(), world.next.seen().len()), (0, 2));
    let end = signed(world.gateway.admin(), "DELETE", OF_SECOND, STREAM_KEY).session(&session);
    assert!(end.send(Method::DELETE, OF_SECOND, "").await.status < 300);
    assert_eq!(world.next.seen().len(), 3);
    for _ in 0..8 {
        world.gateway.client().initialize().await;
    }
    assert_eq!((world.serves.seen().len(), world.next.seen().len()), (8, 3), "clients go where it serves");
}

#[tokio::test]
async fn a_check_is_nobodys_call() {
    let world = World::start().await;
    let session = world.session(OF_FIRST).await;
    let client = signed(world.gateway.admin(), "POST", OF_FIRST, STREAM_KEY).session(&session);
    for _ in 0..10 {
        client.post(OF_FIRST, call("fail", json!({}))).await;
    }
    let text = world.gateway.admin().get("/metrics").await.text();
    let of_route = text.lines().filter(|line| line.contains(r#"route="default/everything""#));
    let counted: Vec<_> = of_route.filter(|line| !line.ends_with(" 0")).collect();
    assert!(counted.is_empty(), "{counted:?}");
    let checks = r#"portolan_gateway_requests_total{method="tools/call",outcome="ServerExited",route="_checks"}"#;
    assert_eq!(world.gateway.metric(checks).await, 10.0);
}

#[tokio::test]
async fn only_whoever_has_the_key_of_the_operators_stream_checks_anything() {
    let world = World::start().await;
    let admin = || world.gateway.admin();
    for client in [
        admin(),
        admin().key(ALICE),
        signed(admin(), "POST", OF_FIRST, MAC_KEY),
        signed(admin(), "POST", OF_SECOND, STREAM_KEY),
        signed(admin(), "GET", OF_FIRST, STREAM_KEY),
    ] {
        let answer = client.post(OF_FIRST, initialize()).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let at_clients = signed(world.gateway.client(), "POST", OF_FIRST, STREAM_KEY);
    assert_eq!(at_clients.post(OF_FIRST, initialize()).await.status, 404, "it is no path for clients");
    assert_eq!((world.serves.seen().len(), world.next.seen().len()), (0, 0));
}

#[tokio::test]
async fn a_session_of_a_check_is_no_clients_and_the_other_way_round() {
    let world = World::start().await;
    let checks = world.session(OF_FIRST).await;
    let alices = world.gateway.client().initialize().await;
    let taken = world.gateway.client().session(&checks).call("echo", json!({})).await;
    assert_eq!(taken.status, 404, "{taken:?}");
    let client = signed(world.gateway.admin(), "POST", OF_FIRST, STREAM_KEY).session(&alices);
    assert_eq!(client.post(OF_FIRST, call("echo", json!({}))).await.status, 404);
    assert_eq!(world.gateway.client().session(&alices).post(ROUTE, call("echo", json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_pod_that_this_replica_has_not_heard_of_may_be_asked_again() {
    let world = World::start().await;
    for path in ["/v1/checks/default/everything/uid-3", "/v1/checks/default/nothing/uid-1", "/v1/checks/"] {
        let answer = world.check(path, initialize()).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert_eq!(answer.json()["error"]["data"]["error_type"], "NotReady");
    }
}
