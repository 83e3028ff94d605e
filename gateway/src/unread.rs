//! What was handed to an HTTP/2 stream and not yet taken by its client. TCP knows nothing of streams: where a client
//! keeps the window of one shut, the connection lives on, and so would all that the stream holds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::watch;

use crate::respond::{Body, BoxError};

/// Answers up to this size end with their last byte. The end of a longer one waits until the rest was taken: a stream
/// can be reset only as long as it has not ended.
const SMALL: u64 = 16 * 1024;
/// What is handed over at once: whoever takes that much within the bound is slow, but reads.
const CHUNK_BYTES: usize = 16 * 1024;

/// The chunks of one stream.
#[derive(Debug, Default)]
pub(crate) struct Unread(watch::Sender<Chunks>);

#[derive(Clone, Copy, Debug, Default)]
struct Chunks {
    held: usize,
    taken: usize,
}

impl Unread {
    /// Ready when there are chunks and for `timeout` none of them was taken.
    pub(crate) async fn stalled(&self, timeout: Duration) {
        let mut chunks = self.0.subscribe();
        loop {
            // The sender is `self`: it outlives this wait.
            let Ok(taken) = chunks.wait_for(|chunks| chunks.held > 0).await.map(|chunks| chunks.taken) else { return };
            if tokio::time::timeout(timeout, chunks.wait_for(|chunks| chunks.taken != taken)).await.is_err() {
                return;
            }
        }
    }

    /// Ready when every chunk was taken.
    pub(crate) async fn taken(&self) {
        let mut chunks = self.0.subscribe();
        // The sender is `self`: it outlives this wait.
        drop(chunks.wait_for(|chunks| chunks.held == 0).await);
    }

    fn is_taken(&self) -> bool {
        self.0.borrow().held == 0
    }

    fn chunk(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.0.send_modify(|chunks| chunks.held += 1);
        Bytes::from_owner(Chunk { bytes, unread: self.clone() })
    }
}

/// Bytes that count until they are on their way, or dropped.
struct Chunk {
    bytes: Bytes,
    unread: Arc<Unread>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.unread.0.send_modify(|chunks| {
            chunks.held -= 1;
            chunks.taken += 1;
        });
    }
}

/// Counts what is handed over of `inner`.
pub(crate) fn counted(inner: Body, unread: Arc<Unread>) -> Body {
    let is_small = inner.size_hint().exact().is_some_and(|size| size <= SMALL);
    CountedBody { inner, left: Bytes::new(), unread, is_small, rest: None }.boxed_unsync()
}

struct CountedBody {
    inner: Body,
    /// Of the frame at hand.
    left: Bytes,
    unread: Arc<Unread>,
    is_small: bool,
    /// The wait for the rest to be taken, once everything was handed over.
    rest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.left.is_empty()
            && this.rest.is_none()
            && let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx))
        {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => this.left = data,
                Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if this.left.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::new()))));
            }
        }
        if !this.left.is_empty() {
            let chunk = this.left.split_to(this.left.len().min(CHUNK_BYTES));
            return Poll::Ready(Some(Ok(Frame::data(this.unread.chunk(chunk)))));
        }
        if this.unread.is_taken() {
            return Poll::Ready(None);
        }
        let unread = this.unread.clone();
        let rest = this.rest.get_or_insert_with(|| Box::pin(async move { unread.taken().await }));
        rest.as_mut().poll(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_small && self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
