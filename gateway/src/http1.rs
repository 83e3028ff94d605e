//! HTTP/1.1 on one connection, within its bounds.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::listen::{Early, MAX_HEAD_BYTES, find};
use crate::options::Bounds;
use crate::respond::Body;
use crate::socket::{LateHead, Socket};

/// Serves requests, one after the other, until the client goes, a bound is hit, or `closing`.
pub(crate) async fn serve<S, F>(
    socket: Socket,
    bounds: &Bounds,
    closing: &CancellationToken,
    service: S,
) -> Result<(), Early>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let (socket, phase) = socket.bound_heads(bounds.header_timeout);
    let service = service_fn(|request| {
        phase.next();
        // hyper keeps room for what answers as long as the connection lasts: in a box it is there for the answer only.
        let (answer, phase) = (Box::pin(service(request)), phase.clone());
        async move {
            let answer = answer.await;
            phase.next();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // From the last answer on, so that it covers the wait for the next head too.
        .header_read_timeout(bounds.idle_timeout.max(bounds.header_timeout))
        // How many headers there may be is not set: hyper's own bound is the same, and costs no request a list of them.
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service);
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
    ended.map_err(|error| {
        // Without a byte of the next head the connection was idle.
        let is_mid_head = !connection.into_parts().read_buf.is_empty();
        early(error, is_mid_head)
    })
}

/// What hyper refuses it answers with the statuses that [`Early`] names.
fn early(error: hyper::Error, is_mid_head: bool) -> Early {
    let io = find::<io::Error>(&error);
    let inner = io.and_then(io::Error::get_ref);
    let is_late = error.is_timeout() || inner.is_some_and(|inner| inner.downcast_ref::<LateHead>().is_some());
    if error.is_parse_too_large() {
        Early::LongHead
    } else if error.is_parse() {
        Early::BadHead
    } else if is_late && is_mid_head {
        Early::LateHead
    } else if !is_late && io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
        Early::Unread
    } else {
        Early::Gone(error.into())
    }
}
