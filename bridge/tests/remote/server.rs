//! A server elsewhere that notes what it hears.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// What it does.
#[derive(Clone)]
pub(crate) enum Does {
    /// It is an MCP server of one tool.
    Answer,
    /// It reads and hangs up.
    HangUp,
    /// It sends its callers elsewhere.
    Redirect(StatusCode, String),
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    pub(crate) async fn start(tls: Option<ServerConfig>, does: Does) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (connections, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { address, connections: Arc::clone(&connections), heard: Arc::clone(&heard) };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, heard, does) = (acceptor.clone(), Arc::clone(&heard), does.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(socket, heard, does).await,
                        // One that does not come about is what some tests are about.
                        Some(acceptor) => {
                            if let Ok(socket) = acceptor.accept(socket).await {
                                serve(socket, heard, does).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// Connections that were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Headers of the requests that came.
    pub(crate) fn heard(&self) -> Vec<HeaderMap> {
        self.heard.lock().expect("whole").clone()
    }
}

async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin + Send, heard: Arc<Mutex<Vec<HeaderMap>>>, does: Does) {
    if matches!(does, Does::HangUp) {
        let _ = socket.read(&mut [0; 4096]).await;
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        heard.lock().expect("whole").push(request.headers().clone());
        let does = does.clone();
        async move { Ok::<_, Infallible>(answer(request, &does).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(request: Request<Incoming>, does: &Does) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if let Does::Redirect(status, location) = does {
        *response.status_mut() = *status;
        response.headers_mut().insert("location", location.parse().expect("a location"));
        return response;
    }
    let body = request.into_body().collect().await.expect("whole").to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "elsewhere", "version": "1"}}),
        Some("tools/list") => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        _ => {
            *response.status_mut() = StatusCode::ACCEPTED;
            return response;
        }
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    response.headers_mut().insert("content-type", "application/json".parse().expect("a type"));
    *response.body_mut() = Full::from(answer);
    response
}
