//! The connections to one pod: an answer that was read to its end leaves its own to the next request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

type Sender = SendRequest<Full<Bytes>>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Below the time after which a bridge closes an idle connection, so that no request meets a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// As many as a pod may well have calls under way, so that the next call finds a connection.
const MAX_IDLE: usize = 1024;
/// Of an answer, before its client takes it. The largest that the allocator hands out from what a thread has at hand: larger
/// ones are read and written less often, and cost more.
const MAX_BUFFER_BYTES: usize = 32 * 1024;
/// Of a stream that lasts: each holds it for as long as it is open. Heads of bridges are smaller
/// ([`portolan_mcp::wire::returned`]).
const STREAM_BUFFER_BYTES: usize = 1024;
/// A pod that vanished without a word is noticed on open streams after [`KEEPALIVE_PROBES`] of these.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// The connections to one pod.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    /// The one that was used last is behind the others.
    idle: Mutex<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nothing of it was sent.
    #[error("cannot connect: {0}")]
    Unsent(#[source] io::Error),
    /// Something of it may have been.
    #[error("the connection broke off: {0}")]
    Lost(#[source] hyper::Error),
}

impl Pool {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends `request`, and waits for the head of its answer. Only what was never written to a connection is tried on
    /// another: nothing is ever sent twice.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Answer>, Unanswered> {
        while let Some(sender) = self.take() {
            match self.send_over(sender, request).await? {
                Sent::Answered(response) => return Ok(response),
                // The pod closed it meanwhile.
                Sent::Unwritten(unwritten) => request = *unwritten,
            }
        }
        let mut builder = Builder::new();
        builder.max_buf_size(MAX_BUFFER_BYTES);
        let sender = self.connect(&builder).await?;
        self.send_over(sender, request).await?.or_closed()
    }

    /// Sends a request whose answer lasts and says little, over a connection of its own, which ends with it.
    pub(crate) async fn open_stream(&self, request: Request<Full<Bytes>>) -> Result<Response<Answer>, Unanswered> {
        let mut builder = Builder::new();
        builder.read_buf_exact_size(Some(STREAM_BUFFER_BYTES));
        let mut sender = self.connect(&builder).await?;
        // In a box: a connection has places for thirty-two requests as large as this one, for as long as the stream lasts.
        let response = sender.send_request(request.map(Box::new)).await.map_err(Unanswered::Lost)?;
        Ok(response.map(|body| Answer { body, lease: None }))
    }

    async fn send_over(
        self: &Arc<Self>,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<Sent, Unanswered> {
        match sender.try_send_request(request).await {
            Ok(response) => Ok(Sent::Answered(response.map(|body| Answer::new(body, sender, self.clone())))),
            Err(mut error) => match error.take_message() {
                Some(request) => Ok(Sent::Unwritten(Box::new(request))),
                None => Err(Unanswered::Lost(error.into_error())),
            },
        }
    }

    /// The idle connection that was used last: the longer it waits, the likelier is the pod to close it.
    fn take(&self) -> Option<Sender> {
        let now = Instant::now();
        let mut idle = self.idle();
        while let Some(Idle { sender, since }) = idle.pop_back() {
            if now.duration_since(since) >= IDLE_TIMEOUT {
                idle.clear();
                return None;
            }
            // The others were closed.
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put(self: Arc<Self>, mut sender: Sender) {
        if sender.is_ready() {
            return self.keep(sender);
        }
        // Its task is about to notice that the answer has ended, or that the pod wants no other.
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                self.keep(sender);
            }
        });
    }

    fn keep(&self, sender: Sender) {
        let now = Instant::now();
        let mut idle = self.idle();
        while idle
            .front()
            .is_some_and(|oldest| idle.len() >= MAX_IDLE || now.duration_since(oldest.since) >= IDLE_TIMEOUT)
        {
            idle.pop_front();
        }
        idle.push_back(Idle { sender, since: now });
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect<B>(&self, builder: &Builder) -> Result<SendRequest<B>, Unanswered>
    where
        B: HttpBody<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream =
            connected.unwrap_or_else(|late| Err(late.into())).and_then(prepared).map_err(Unanswered::Unsent)?;
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(closed)?;
        let address = self.address;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::debug!(%address, error, "a connection to a pod broke");
            }
        });
        Ok(sender)
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

fn closed(error: hyper::Error) -> Unanswered {
    Unanswered::Unsent(io::Error::other(error))
}

enum Sent {
    Answered(Response<Answer>),
    /// The connection was closed before anything of the request was written to it.
    Unwritten(Box<Request<Full<Bytes>>>),
}

impl Sent {
    /// For a connection that was just opened: no other would do better.
    fn or_closed(self) -> Result<Response<Answer>, Unanswered> {
        match self {
            Self::Answered(response) => Ok(response),
            Self::Unwritten(_) => Err(Unanswered::Unsent(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// The body of a pod's answer. Dropped before its end, it takes its connection along.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    /// `None` once it has ended, and for a stream.
    lease: Option<Lease>,
}

/// A connection whose answer has not ended.
#[derive(Debug)]
struct Lease {
    sender: Sender,
    /// Where it goes then.
    pool: Arc<Pool>,
}

impl Answer {
    fn new(body: Incoming, sender: Sender, pool: Arc<Pool>) -> Self {
        let mut answer = Self { body, lease: Some(Lease { sender, pool }) };
        if answer.body.is_end_stream() {
            answer.give_back();
        }
        answer
    }

    fn give_back(&mut self) {
        if let Some(Lease { sender, pool }) = self.lease.take() {
            pool.put(sender);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Whoever knows how long a body is, or that trailers are its last, does not ask for more.
        let has_ended = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || self.body.is_end_stream(),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if has_ended {
            self.give_back();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
