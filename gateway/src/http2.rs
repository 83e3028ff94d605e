//! HTTP/2 on one connection (RFC 9113), within its bounds: by prior knowledge, without TLS, on the port of HTTP/1.1.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::listen::{self, Early, MAX_HEAD_BYTES, MAX_HEADERS, find};
use crate::metrics::Metrics;
use crate::options::Bounds;
use crate::respond::{self, Body};
use crate::socket::Socket;
use crate::unread::{self, Unread};

/// What a client may send on a stream, and on all of its streams, before somebody reads it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Of one answer, beside the chunk at hand, before its client has to read.
const MAX_SEND_BYTES: usize = 16 * 1024;
/// Streams that a client began and took back before anybody looked at them: more are an attack (CVE-2023-44487).
const MAX_RESETS_UNSEEN: usize = 20;
/// Streams that had to be reset for what the client did on them.
const MAX_RESETS_OF_OURS: usize = 100;
/// The bounds of a head are kept here, so that one which is too long is counted and leaves a line. What is far too long
/// is refused while it is read, with the same status.
const MAX_LIST_BYTES: u32 = 2 * MAX_HEAD_BYTES as u32;
/// What a field counts beside its name and value (RFC 9113 §6.5.2).
const FIELD_BYTES: usize = 32;

tokio::task_local! {
    /// The stream whose request is served.
    static STREAM: Arc<Unread>;
}

/// Serves requests until the client goes, a bound is hit, or `closing`. `leaving` says that the replica is on its way
/// out: whoever is answered then is told to go to another.
pub(crate) async fn serve<S, F>(
    socket: Socket,
    bounds: &Bounds,
    leaving: &CancellationToken,
    closing: &CancellationToken,
    metrics: Arc<Metrics>,
    peer: SocketAddr,
    service: S,
) -> Result<(), Early>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let streams = Streams {
        live: watch::Sender::new(0),
        lost: CancellationToken::new(),
        unread_timeout: bounds.unread_timeout,
        metrics: metrics.clone(),
    };
    let answered = CancellationToken::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        let (leaving, answered) = (leaving.clone(), answered.clone());
        let answer = if is_over_bounds(request.headers()) {
            listen::note(&Early::LongHead, peer, metrics.clone());
            None
        } else {
            name_host(&mut request);
            Some(service(request))
        };
        async move {
            let mut response = match answer {
                Some(answer) => answer.await,
                None => respond::empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            };
            // The header is of HTTP/1.1. Here a connection says for itself that it closes.
            response.headers_mut().remove(header::CONNECTION);
            if leaving.is_cancelled() {
                answered.cancel();
            }
            let unread = STREAM.with(Arc::clone);
            Ok::<_, Infallible>(response.map(|body| unread::counted(body, unread)))
        }
    });
    let mut connection = pin!(
        http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(bounds.max_streams)
            .max_pending_accept_reset_streams(MAX_RESETS_UNSEEN)
            .max_local_error_reset_streams(MAX_RESETS_OF_OURS)
            .max_header_list_size(MAX_LIST_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_send_buf_size(MAX_SEND_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(bounds.ping_interval)
            .keep_alive_timeout(bounds.ping_interval)
            .serve_connection(TokioIo::new(socket), service)
    );
    let goes = async {
        tokio::select! {
            () = closing.cancelled() => {}
            () = answered.cancelled() => {}
            () = streams.idle(bounds.idle_timeout) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = streams.lost.cancelled() => return Err(Early::Unread),
        () = goes => {
            // GOAWAY; what is under way goes on to its end.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = streams.lost.cancelled() => return Err(Early::Unread),
            }
        }
    };
    ended.map_err(early)
}

/// The streams of one connection. hyper runs each as a task of its own.
#[derive(Clone)]
struct Streams {
    live: watch::Sender<usize>,
    /// A client does not take what was handed over whole: nothing but the connection's end is left.
    lost: CancellationToken,
    unread_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// Counts a stream while it lives.
struct Live(watch::Sender<usize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live -= 1);
    }
}

impl Streams {
    /// Ready when there was no stream for `timeout`.
    async fn idle(&self, timeout: Duration) {
        let mut live = self.live.subscribe();
        loop {
            // The sender is `self`: it outlives this wait.
            drop(live.wait_for(|live| *live == 0).await);
            if tokio::time::timeout(timeout, live.wait_for(|live| *live > 0)).await.is_err() {
                return;
            }
        }
    }

    async fn run(&self, stream: impl Future<Output = ()>) {
        let unread = Arc::new(Unread::default());
        let is_stalled = tokio::select! {
            biased;
            () = STREAM.scope(unread.clone(), stream) => false,
            // Dropping the stream resets it: what it held is free, and the connection serves the others.
            () = unread.stalled(self.unread_timeout) => true,
        };
        if is_stalled {
            self.metrics.bound_hit(listen::UNREAD);
            return;
        }
        // It has ended for hyper, so it cannot be reset any more, but its last bytes may be here still.
        tokio::select! {
            biased;
            () = unread.taken() => {}
            () = unread.stalled(self.unread_timeout) => self.lost.cancel(),
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.live.send_modify(|live| *live += 1);
        let (streams, live) = (self.clone(), Live(self.live.clone()));
        tokio::spawn(async move {
            streams.run(stream).await;
            drop(live);
        });
    }
}

fn is_over_bounds(headers: &HeaderMap) -> bool {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum();
    bytes > MAX_HEAD_BYTES || headers.len() > MAX_HEADERS
}

/// `:authority` stands for `Host` (RFC 9113 §8.3.1). Where both are there, they have to name the same host, and who
/// decides on hosts sees both.
fn name_host(request: &mut Request<Incoming>) {
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

fn early(error: hyper::Error) -> Early {
    let cause = find::<h2::Error>(&error);
    if error.is_timeout() {
        Early::Silent
    } else if cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(Reason::ENHANCE_YOUR_CALM)) {
        Early::Resets
    } else if cause.is_some_and(|cause| cause.is_library() && cause.is_go_away()) {
        Early::BadFrames
    } else if find::<io::Error>(&error).is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
        Early::Unread
    } else {
        Early::Gone(error.into())
    }
}
