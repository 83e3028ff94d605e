//! Accepts connections: bounded in number, in the size of a request's head and in the time it takes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::record::{self, Record};
use crate::respond::Body;

const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
/// After a failed accept (out of file descriptors, say): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket and its bounds.
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) socket: TcpListener,
    pub(crate) max_connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) unread_timeout: Duration,
    /// Ends accepting; open connections finish what they are at.
    pub(crate) closing: CancellationToken,
    pub(crate) connections: TaskTracker,
    pub(crate) metrics: Arc<Metrics>,
}

/// Counts a connection while it is open.
struct Open {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Listener {
    /// Serves until `closing`.
    pub(crate) async fn serve<S, F>(self, service: S)
    where
        S: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, listener = self.name, "a connection could not be accepted");
                    self.metrics.bound_hit("Accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Closing at once tells the client to go to another replica; letting it wait would not.
            let Ok(permit) = places.clone().try_acquire_owned() else {
                self.metrics.bound_hit("Connections");
                continue;
            };
            self.start(stream, peer, permit, service.clone());
        }
    }

    fn start<S, F>(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, service: S)
    where
        S: Fn(SocketAddr, Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        tune(&stream, peer, self.unread_timeout);
        let gauge = self.metrics.connections.with_label_values(&[self.name]);
        gauge.inc();
        let open = Open { gauge, _permit: permit };
        let connection = connection(stream, peer, self.header_timeout, self.closing.clone(), service);
        let metrics = self.metrics.clone();
        self.connections.spawn(async move {
            if let Err(early) = connection.await {
                note(&early, peer, metrics);
            }
            drop(open);
        });
    }
}

/// Small events leave at once, and the kernel gives up on a client that vanished or does not read: an answer that is
/// written by the pace of its reader has no other end.
fn tune(stream: &TcpStream, peer: SocketAddr, unread_timeout: Duration) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(unread_timeout)) {
        tracing::warn!(%error, %peer, "no TCP_USER_TIMEOUT");
    }
}

/// How a connection ended early.
struct Early {
    error: hyper::Error,
    /// Whether a head had begun and was not whole yet. Without that a connection was idle.
    is_mid_head: bool,
}

async fn connection<S, F>(
    stream: TcpStream,
    peer: SocketAddr,
    header_timeout: Duration,
    closing: CancellationToken,
    service: S,
) -> Result<(), Early>
where
    S: Fn(SocketAddr, Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answer = service(peer, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = closing.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    ended.map_err(|error| Early { error, is_mid_head: !connection.into_parts().read_buf.is_empty() })
}

/// Writes down why a connection ended early. A head that cannot be read is refused by hyper, with these statuses; one
/// that is late, or HTTP/2's, gets no answer.
fn note(early: &Early, peer: SocketAddr, metrics: Arc<Metrics>) {
    let Early { error, is_mid_head } = early;
    if error.is_parse_too_large() {
        metrics.bound_hit("Head");
        Record::unreadable(metrics, peer, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE), record::BAD_HEAD);
    } else if error.is_parse_version_h2() {
        Record::unreadable(metrics, peer, None, record::BAD_HEAD);
    } else if error.is_parse() {
        Record::unreadable(metrics, peer, Some(StatusCode::BAD_REQUEST), record::BAD_HEAD);
    } else if error.is_timeout() && *is_mid_head {
        metrics.bound_hit(record::HEAD_TIMEOUT);
        Record::unreadable(metrics, peer, None, record::HEAD_TIMEOUT);
    } else {
        // Clients that go away are no news.
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}
