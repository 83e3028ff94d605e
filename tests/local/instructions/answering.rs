//! A server, or a bridge with one, that costs nothing of what is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use portolan_tests::mcp;
use portolan_tests::objects::Pod;
use portolan_tests::serve::serve;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Answers in a server's place, or in a bridge's, always the same.
pub(crate) struct Answering {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Pod for Answering {
    fn uid(&self) -> &str {
        "uid-1"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Answering {
    pub(crate) async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::<AtomicUsize>::default();
        let task = serve(socket, {
            let asked = asked.clone();
            move |request| answer(request, asked.clone())
        });
        Self { address, asked, _task: task }
    }

    /// How often it was asked for its tools.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(request: Request<Incoming>, asked: Arc<AtomicUsize>) -> Response<Full<Bytes>> {
    let message = request.into_body().collect().await.expect("a body").to_bytes();
    let mut response = Response::new(Full::default());
    let message: Value = serde_json::from_slice(&message).expect("a message");
    if message["id"].is_null() {
        *response.status_mut() = StatusCode::ACCEPTED;
        return response;
    }
    let result = match message["method"].as_str().expect("a request") {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "answering", "version": "1"}}),
        "server/discover" => json!({"supportedVersions": [mcp::MODERN], "capabilities": {"tools": {}}}),
        "tools/list" => {
            asked.fetch_add(1, Ordering::SeqCst);
            json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
        }
        _ => json!({"content": [{"type": "text", "text": "a text of some words"}]}),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    *response.body_mut() = Full::from(answer.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
