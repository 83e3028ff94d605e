//! Streamable HTTP at `/mcp`, for clients of this machine: other hosts and origins are refused.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::net::{TcpListener, TcpStream};

use crate::era::Era;
use crate::server::Everything;

const PATH: &str = "/mcp";
/// Origins of pages that this machine serves to itself.
const ORIGINS: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

type Service = StreamableHttpService<Everything, LocalSessionManager>;

/// Serves until the process is ended, and prints the URL once it listens.
pub(crate) async fn serve(address: SocketAddr, era: Era, server: Everything) -> anyhow::Result<()> {
    let config = StreamableHttpServerConfig::default().with_allowed_origins(ORIGINS);
    let service = Service::new(move || Ok(server.session()), LocalSessionManager::default().into(), config);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("http://{}{PATH}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, era, service.clone()));
    }
}

async fn connection(stream: TcpStream, era: Era, service: Service) {
    let answer = service_fn(|request: Request<Incoming>| {
        let service = service.clone();
        async move {
            if request.uri().path() != PATH {
                return Ok::<_, Infallible>(not_found());
            }
            Ok(match era.refuse(request.headers()) {
                Some(refusal) => refusal,
                None => service.handle(request).await,
            })
        }
    });
    // A client that goes away is no news here.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
}

fn not_found() -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
