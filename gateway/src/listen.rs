//! Accepts connections: bounded in number, in the size of a request's head and in the time it takes.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus::IntGauge;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::options::Bounds;
use crate::record::{self, Record};
use crate::respond::{Body, BoxError};
use crate::socket::{Socket, Version};
use crate::{http1, http2};

pub(crate) const MAX_HEAD_BYTES: usize = 32 * 1024;
pub(crate) const MAX_HEADERS: usize = 100;
/// The bound that a client hits which does not read.
pub(crate) const UNREAD: &str = "Unread";
/// After a failed accept (out of file descriptors, say): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket and its bounds.
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) socket: TcpListener,
    pub(crate) bounds: Bounds,
    /// Whoever is answered from here on had better go to another replica.
    pub(crate) leaving: CancellationToken,
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
        let places = Arc::new(Semaphore::new(self.bounds.max_connections));
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
        tune(&stream, peer, self.bounds.unread_timeout);
        let gauge = self.metrics.connections.with_label_values(&[self.name]);
        gauge.inc();
        let open = Open { gauge, _permit: permit };
        let (bounds, metrics) = (self.bounds, self.metrics.clone());
        let (leaving, closing) = (self.leaving.clone(), self.closing.clone());
        self.connections.spawn(async move {
            let service = |request| service(peer, request);
            let ended = match tell(stream, &bounds, &closing).await {
                Ok((Version::Http1, socket)) => http1::serve(socket, &bounds, &closing, service).await,
                Ok((Version::Http2, socket)) => {
                    // Apart, as what it takes would be room that every connection of HTTP/1.1 has too.
                    Box::pin(http2::serve(socket, &bounds, &leaving, &closing, metrics.clone(), peer, service)).await
                }
                Err(early) => Err(early),
            };
            if let Err(early) = ended {
                note(&early, peer, metrics);
            }
            drop(open);
        });
    }
}

/// Which version a client speaks; idle connections close when the replica does.
async fn tell(stream: TcpStream, bounds: &Bounds, closing: &CancellationToken) -> Result<(Version, Socket), Early> {
    tokio::select! {
        biased;
        told = Socket::open(stream, bounds) => told,
        () = closing.cancelled() => Err(Early::gone("closed before its first request")),
    }
}

/// What the kernel takes beyond what it has sent: without a bound of its own a connection that nobody reads would be
/// filled up to megabytes.
const UNSENT_BYTES: u32 = 64 * 1024;

/// Small events leave at once, and the kernel gives up on a client that vanished or does not read: an answer that is
/// written by the pace of its reader has no other end.
fn tune(stream: &TcpStream, peer: SocketAddr, unread_timeout: Duration) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(unread_timeout)) {
        tracing::warn!(%error, %peer, "no TCP_USER_TIMEOUT");
    }
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::warn!(%error, %peer, "no TCP_NOTSENT_LOWAT");
    }
}

/// Why a connection, or in HTTP/2 a request, ended early.
pub(crate) enum Early {
    /// A head over its bounds; refused with 431.
    LongHead,
    /// No HTTP that is spoken here; refused with 400.
    BadHead,
    /// No HTTP/2 that is spoken here, so that there is nothing to answer.
    BadFrames,
    /// A head that began and was not whole in time; closed.
    LateHead,
    /// The client does not read.
    Unread,
    /// The client does not answer pings.
    Silent,
    /// The client begins streams only to take them back.
    Resets,
    /// The client went away, or had nothing more to ask.
    Gone(BoxError),
}

impl Early {
    pub(crate) fn gone(error: impl Into<BoxError>) -> Self {
        Self::Gone(error.into())
    }

    /// The bound that was hit.
    fn bound(&self) -> Option<&'static str> {
        match self {
            Self::LongHead => Some("Head"),
            Self::LateHead => Some(record::HEAD_TIMEOUT),
            Self::Unread => Some(UNREAD),
            Self::Silent => Some("Ping"),
            Self::Resets => Some("Resets"),
            Self::BadHead | Self::BadFrames | Self::Gone(_) => None,
        }
    }
}

/// Writes down why a connection ended early. What was no request that anybody could answer leaves a line too.
pub(crate) fn note(early: &Early, peer: SocketAddr, metrics: Arc<Metrics>) {
    if let Some(bound) = early.bound() {
        metrics.bound_hit(bound);
    }
    let (status, outcome) = match early {
        Early::LongHead => (Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE), record::BAD_HEAD),
        Early::BadHead => (Some(StatusCode::BAD_REQUEST), record::BAD_HEAD),
        Early::BadFrames => (None, record::BAD_HEAD),
        Early::LateHead => (None, record::HEAD_TIMEOUT),
        // Their requests have lines of their own.
        Early::Unread | Early::Silent | Early::Resets => return,
        Early::Gone(error) => {
            // Clients that go away are no news.
            tracing::debug!(%error, %peer, "a connection ended early");
            return;
        }
    };
    Record::unreadable(metrics, peer, status, outcome);
}

/// The `E` among the causes of `error`.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
