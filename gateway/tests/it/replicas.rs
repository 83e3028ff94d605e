//! Two gateways as processes, in front of one real bridge: what is lost when one of them is killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::client::{Client, call, until};
use crate::modern::{VERSION, saying};
use crate::real_bridge::{RealBridge, binary, free_port, id_of};
use crate::world::{ALICE, ROUTE};

/// How soon a client knows that its replica was killed.
const TOLD: Duration = Duration::from_secs(1);

/// `portolan gateway`; it ends with this.
struct Replica {
    address: SocketAddr,
    admin: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Replica {
    /// Starts one that reads its configuration from `api`, and waits until it serves it.
    async fn start(api: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{api}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).expect("written");
        let log = std::fs::File::create(directory.path().join("log")).expect("created");
        let (address, admin) = (free_port().await, free_port().await);
        let process = Command::new(binary("portolan"))
            .args(["gateway", "--name=default", "--namespace=portolan", "--tenant-namespaces=default"])
            .arg(format!("--listen={address}"))
            .arg(format!("--admin={admin}"))
            .env("KUBECONFIG", kubeconfig)
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let replica = Self { address, admin, process, directory };
        let probe = Client::new(admin);
        until("the replica listens", async || tokio::net::TcpStream::connect(admin).await.is_ok()).await;
        until("the replica is ready", async || probe.get("/readyz").await.status == 200).await;
        replica
    }

    fn client(&self) -> Client {
        Client::new(self.address).key(ALICE)
    }

    /// Ends it as a node does that loses its power.
    fn kill(&mut self) {
        self.process.kill().expect("it ran until now");
        self.process.wait().expect("it ends");
    }

    /// It still runs, and neither counted a panic nor said one.
    async fn assert_well(&mut self) {
        assert!(self.process.try_wait().expect("its state").is_none(), "it runs: {}", log(self.directory.path()));
        let metrics = Client::new(self.admin).get("/metrics").await.text();
        assert!(metrics.lines().any(|line| line == "portolan_gateway_panics_total 0"), "{metrics}");
        assert!(!log(self.directory.path()).contains("panicked"), "{}", log(self.directory.path()));
    }
}

fn log(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("log")).expect("is there")
}

impl Drop for Replica {
    fn drop(&mut self) {
        // One that was killed by the test is gone already.
        let _gone = self.process.kill();
        self.process.wait().expect("it ends");
    }
}

/// A session that one replica opened, at both.
async fn session(a: &Replica, b: &Replica) -> (Client, Client) {
    let session = a.client().initialize().await;
    let on_a = a.client().session(&session).with("mcp-protocol-version", "2025-11-25");
    let on_b = on_a.clone().at(b.address);
    (on_a, on_b)
}

/// A bridge and two replicas in front of it.
async fn world() -> (RealBridge, ApiServer, Replica, Replica) {
    let bridge = RealBridge::start().await;
    let api = ApiServer::start(bridge.objects().inputs()).await;
    let (a, b) = (Replica::start(api.address).await, Replica::start(api.address).await);
    (bridge, api, a, b)
}

#[tokio::test]
async fn a_session_opened_at_one_process_is_called_resumed_and_deleted_at_another() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let (on_a, on_b) = session(&a, &b).await;
    assert_eq!(on_b.call("echo", json!({"n": 7})).await.json()["result"]["structuredContent"], json!({"n": 7}));
    let mut broken = on_a.open(Method::GET, ROUTE, "").await;
    assert_eq!(on_b.call("say", json!({})).await.status, 200);
    broken.read_until("second").await;
    let first = id_of(broken.text(), "first").to_owned();
    drop(broken);
    let mut resumed = on_b.clone().with("last-event-id", &first).open(Method::GET, ROUTE, "").await;
    assert_eq!(resumed.status, 200);
    resumed.read_until("second").await;
    assert!(!resumed.text().contains("first"), "what was seen is not sent again: {}", resumed.text());
    assert_eq!(on_b.send(Method::DELETE, ROUTE, "").await.status, 204);
    assert_eq!(on_a.call("echo", json!({})).await.status, 404, "it is gone on every replica");
    a.assert_well().await;
    b.assert_well().await;
}

#[tokio::test]
async fn a_killed_replica_takes_only_the_calls_in_flight_on_it_and_its_peer_serves_its_sessions() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let (on_a, on_b) = session(&a, &b).await;
    let posting = on_a.clone().with("content-type", "application/json");
    let mut lost = posting.open(Method::POST, ROUTE, call("ask", json!({}))).await;
    lost.read_until("elicitation/create").await;
    let other = b.client().initialize().await;
    let kept = b.client().session(&other).with("content-type", "application/json");
    let mut kept_call = kept.open(Method::POST, ROUTE, call("ask", json!({}))).await;
    kept_call.read_until("elicitation/create").await;
    a.kill();
    let told = tokio::time::timeout(TOLD, lost.read_to_end()).await.expect("its connection closes at once");
    assert!(!told.1, "an answer that was cut does not look whole: {}", told.0);
    // The lost call still has its id in the session.
    let again = call("echo", json!({"n": 7})).replace(r#""id":2"#, r#""id":3"#);
    let again = on_b.post(ROUTE, again).await;
    assert_eq!((again.status, &again.json()["result"]["structuredContent"]), (200, &json!({"n": 7})));
    let answer = json!({"jsonrpc": "2.0", "id": "question", "result": {"action": "accept"}}).to_string();
    assert_eq!(kept.post(ROUTE, answer).await.status, 202);
    let (text, whole) = kept_call.read_to_end().await;
    assert!(whole && text.contains("accept"), "a call at the peer goes on: {text}");
    b.assert_well().await;
}

#[tokio::test]
async fn what_a_killed_replica_asked_its_client_is_answered_at_its_peer() {
    let (_bridge, _api, mut a, mut b) = world().await;
    let asked = ask(a.client(), json!({})).await;
    let asked = &asked["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    a.kill();
    let names = asked["inputRequests"].as_object().expect("requests").keys();
    let answers: Value = names.map(|name| (name.clone(), json!({"action": "accept"}))).collect();
    let done = ask(b.client(), json!({"requestState": asked["requestState"], "inputResponses": answers})).await;
    assert_eq!(done["result"]["structuredContent"]["action"], "accept", "{done}");
    b.assert_well().await;
}

/// The answer to a call of `ask` without a session, by a client that can be asked.
async fn ask(client: Client, mut params: Value) -> Value {
    params["name"] = "ask".into();
    params["arguments"] = json!({});
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    });
    let request = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}).to_string();
    saying(client, "tools/call", Some("ask")).post(ROUTE, request).await.json()
}
