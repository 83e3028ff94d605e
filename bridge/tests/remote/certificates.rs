//! A server elsewhere whose certificate goes bad while clients have sessions with it, and is renewed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_bridge::Bridge;
use portolan_bridge::config::{Config, Upstream};
use portolan_bridge::remote::{Allowed, Remote, Settings};
use portolan_mcp::mac::{self, MacKey};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire::{self, ProbeState};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, Signed};
use crate::common::{PATIENCE, Reply, until};

const KEY: [u8; 32] = [7; 32];

/// A server that listens with one certificate. What came over its connections goes on when it listens no more.
struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listening {
    /// Listens on `address`. The tool `wait` waits until `released` says so.
    async fn start(address: SocketAddr, shown: &Signed, released: watch::Receiver<bool>) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let acceptor = TlsAcceptor::from(Arc::new(shown.listens(None)));
        let (connections, heard) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, told) = (Arc::clone(&connections), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, heard, released) = (acceptor.clone(), Arc::clone(&told), released.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    heard.lock().unwrap().push("a handshake".to_owned());
                    let service = service_fn(|request| {
                        let (heard, released) = (Arc::clone(&heard), released.clone());
                        async move { Ok::<_, Infallible>(answer(request, &heard, released).await) }
                    });
                    // Nothing is left that a later call could go over.
                    let mut connection = hyper::server::conn::http1::Builder::new();
                    let connection = connection.keep_alive(false);
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, task, connections, heard }
    }

    /// Listens on the same port with another certificate from now on.
    async fn restart(self, shown: &Signed, released: watch::Receiver<bool>) -> Self {
        self.task.abort();
        let _ = self.task.await;
        Self::start(self.address, shown, released).await
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    heard: &Mutex<Vec<String>>,
    mut released: watch::Receiver<bool>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let method = request.method().clone();
    let body = request.into_body().collect().await.expect("whole").to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let of_message = message["method"].as_str().unwrap_or_default();
    let tool = message["params"]["name"].as_str().unwrap_or_default();
    heard.lock().unwrap().push(format!("{method} {of_message} {tool}"));
    let result = match of_message {
        "initialize" => {
            response.headers_mut().insert("mcp-session-id", "a-session".parse().unwrap());
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "elsewhere", "version": "1"}})
        }
        "tools/list" => json!({"tools": []}),
        "tools/call" => {
            if tool == "wait" {
                released.wait_for(|released| *released).await.expect("the test runs");
            }
            json!({"content": [{"type": "text", "text": tool}]})
        }
        _ => {
            let is_told = method == Method::POST && message["id"].is_null();
            *response.status_mut() = if is_told { StatusCode::ACCEPTED } else { StatusCode::METHOD_NOT_ALLOWED };
            return response;
        }
    };
    response.headers_mut().insert("content-type", "application/json".parse().expect("a type"));
    *response.body_mut() = Full::from(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string());
    response
}

/// A client with a session.
#[derive(Clone)]
struct Caller {
    bridge: SocketAddr,
    key: SessionKey,
}

impl Caller {
    fn of(bridge: &Bridge) -> Self {
        Self { bridge: bridge.data_address(), key: SessionKey::generate().expect("random") }
    }

    async fn post(&self, message: &Value) -> Reply {
        let socket = tokio::net::TcpStream::connect(self.bridge).await.expect("the bridge listens");
        let connection = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = connection.expect("a connection");
        tokio::spawn(connection);
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let session = self.key.as_str();
        let subject = mac::Subject { method: "POST", path: wire::DATA_PATH, session, pod: "" };
        let request = Request::post(wire::DATA_PATH)
            .header("host", self.bridge.to_string())
            .header(mac::HEADER, MacKey::new(&KEY).unwrap().sign(subject, now))
            .header(wire::SESSION, session)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("te", "trailers")
            .header(VERSION_HEADER, "2025-11-25")
            .body(Full::<Bytes>::from(message.to_string()))
            .expect("a request");
        Reply::of(sender.send_request(request).await.expect("an answer")).await
    }

    async fn initialize(&self) -> Reply {
        let info = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
        self.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await
    }

    async fn open(&self) {
        let reply = self.initialize().await;
        assert!(reply.messages[0]["result"]["protocolVersion"].is_string(), "{reply:?}");
        self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    }

    async fn call(&self, id: u64, tool: &str) -> Reply {
        let params = json!({"name": tool, "arguments": {"secret": "for good servers alone"}});
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await
    }
}

/// Checks that request `id` failed by itself, inside the protocol, and that these words say why.
fn fails(reply: &Reply, id: u64, words: &[&str]) {
    assert_eq!((reply.status, reply.messages.len()), (StatusCode::OK, 1), "{reply:?}");
    assert_eq!((reply.failure(), reply.error_type()), (Some("ServerUnreachable"), "ServerUnreachable"), "{reply:?}");
    assert_eq!(reply.messages[0]["id"], id);
    let said = reply.messages[0].to_string();
    for word in words.iter().chain(&["nothing was sent"]) {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn answers(reply: &Reply, id: u64, tool: &str) {
    assert_eq!((reply.status, reply.failure()), (StatusCode::OK, None), "{reply:?}");
    assert_eq!((&reply.messages.last().expect("an answer")["id"], reply.text()), (&json!(id), tool));
}

async fn bridge(authority: &Authority, server: SocketAddr) -> Bridge {
    let settings = Settings {
        url: format!("https://localhost:{}/mcp", server.port()),
        allowed: Allowed { hosts: vec!["localhost".to_owned()], loopback: false },
        authorities: Some(authority.pem.clone().into_bytes()),
        ..Settings::default()
    };
    let remote = Remote::new(&settings).expect("settings");
    let config = Config::new(Upstream::Remote(Box::new(remote)), MacKey::new(&KEY).expect("a key"));
    let bridge = Bridge::start(config, "127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()).await;
    let bridge = bridge.expect("it starts");
    let mut probe = bridge.probe();
    let ready = probe.wait_for(|status| status.state == ProbeState::Ready);
    let ready = tokio::time::timeout(PATIENCE, ready).await.expect("in time").is_ok();
    assert!(ready);
    bridge
}

#[tokio::test]
async fn a_certificate_that_goes_bad_is_told_to_each_caller_alone_nothing_is_sent_and_a_renewed_one_is_taken() {
    let (authority, another) = (Authority::new(), Authority::new());
    let good = authority.server("localhost", false);
    let released = watch::Sender::new(false);
    let mut server = Listening::start("127.0.0.1:0".parse().unwrap(), &good, released.subscribe()).await;
    let bridge = bridge(&authority, server.address).await;
    let [one, other] = [(); 2].map(|()| Caller::of(&bridge));
    one.open().await;
    other.open().await;
    answers(&one.call(1, "echo").await, 1, "echo");
    for (nth, (bad, words)) in [
        (authority.server("localhost", true), &["the certificate of localhost has expired"][..]),
        (authority.server("mcp.example.com", false), &["localhost is for another name", "mcp.example.com"]),
        (another.server("localhost", false), &["no authority that spec.remote.tls.caCertificateRef names"]),
    ]
    .into_iter()
    .enumerate()
    {
        released.send_replace(false);
        // A call that is under way when the certificate goes bad is the other's own.
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.call(7, "wait").await }
        });
        until("the call is under way", async || server.heard().contains(&"POST tools/call wait".to_owned())).await;
        server = server.restart(&bad, released.subscribe()).await;
        fails(&one.call(7, "echo").await, 7, words);
        assert!(!waiting.is_finished(), "somebody else's call failed too");
        released.send_replace(true);
        answers(&waiting.await.expect("no panic"), 7, "wait");
        fails(&other.call(8, "echo").await, 8, words);
        let late = Caller::of(&bridge);
        fails(&late.initialize().await, 0, words);
        assert_eq!(bridge.report(false).sessions.active, 2 + u32::try_from(nth).unwrap());
        assert!(server.connections.load(Ordering::Relaxed) >= 3, "they met another server");
        assert_eq!(server.heard(), Vec::<String>::new());
        server = server.restart(&good, released.subscribe()).await;
        for caller in [&one, &other] {
            answers(&caller.call(9, "echo").await, 9, "echo");
        }
        late.open().await;
        answers(&late.call(1, "echo").await, 1, "echo");
    }
    bridge.shutdown().await;
}
