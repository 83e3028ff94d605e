//! What a Service does that knows nothing of sessions: one request after the other goes to the next gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::serve::serve;

type Body = BoxBody<Bytes, hyper::Error>;

/// It forwards until it is dropped; connections end with it.
pub struct RoundRobin {
    /// Where it takes requests.
    pub address: SocketAddr,
    targets: Arc<Targets>,
    _task: AbortOnDropHandle<()>,
}

struct Targets {
    /// Who they are, and how many requests each got.
    all: Vec<(Authority, AtomicUsize)>,
    next: AtomicUsize,
    client: Client<HttpConnector, Incoming>,
}

impl RoundRobin {
    /// Starts it on a port of its own. Bodies stream in both directions.
    ///
    /// # Panics
    /// There is no port.
    pub async fn start(targets: &[SocketAddr]) -> Self {
        let authority = |address: &SocketAddr| address.to_string().parse().expect("an address is an authority");
        let all = targets.iter().map(|address| (authority(address), AtomicUsize::new(0))).collect();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let targets = Arc::new(Targets { all, next: AtomicUsize::new(0), client });
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let forwarding = targets.clone();
        let task = serve(socket, move |request| {
            let targets = forwarding.clone();
            async move { targets.forward(request).await }
        });
        Self { address, targets, _task: task }
    }

    /// How many requests each target got.
    #[must_use]
    pub fn forwarded(&self) -> Vec<usize> {
        self.targets.all.iter().map(|(_, count)| count.load(Ordering::Relaxed)).collect()
    }
}

impl Targets {
    async fn forward(&self, mut request: Request<Incoming>) -> Response<Body> {
        let (authority, count) = &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()];
        count.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path_and_query().cloned();
        let uri = Uri::builder().scheme("http").authority(authority.clone());
        *request.uri_mut() = uri.path_and_query(path.expect("a path")).build().expect("a URI");
        // What is about this connection is not about the next one.
        request.headers_mut().remove(header::CONNECTION);
        match self.client.request(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                parts.headers.remove(header::CONNECTION);
                Response::from_parts(parts, body.boxed())
            }
            Err(_) => {
                let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }
}
