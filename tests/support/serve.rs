//! HTTP servers of tests: a function that answers, on a socket, for as long as a test wants it.

use std::convert::Infallible;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Lets `answer` answer every request that comes to `socket`, over HTTP/1.1, until what is returned is dropped: connections
/// end with it.
pub fn serve<A, F, B>(socket: TcpListener, answer: A) -> AbortOnDropHandle<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = socket.accept().await.expect("accepts");
            let answer = answer.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                // Clients of a test come and go as they like.
                let _ended = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }))
}
