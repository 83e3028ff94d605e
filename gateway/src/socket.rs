//! A client's connection as HTTP reads it: nothing is lost of what was read to tell the version that the client speaks,
//! and a head that has begun ends in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout};

use crate::listen::Early;
use crate::options::Bounds;

/// How a client begins that knows that HTTP/2 is spoken here (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// A head began and was not whole in time.
#[derive(Debug, thiserror::Error)]
#[error("a head began and was not whole in time")]
pub(crate) struct LateHead;

/// Where an HTTP/1.1 connection is: an even number while a head is awaited, an odd one while a request is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase(Arc<AtomicUsize>);

impl Phase {
    /// The head is whole, or its request is answered.
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// The head that is awaited, by its number.
    fn head(&self) -> Option<usize> {
        let phase = self.0.load(Ordering::Acquire);
        phase.is_multiple_of(2).then_some(phase)
    }
}

/// A connection whose version is known.
pub(crate) struct Socket {
    stream: TcpStream,
    /// What was read before.
    first: io::Cursor<Vec<u8>>,
    heads: Option<Heads>,
}

/// The time that heads take.
struct Heads {
    phase: Phase,
    timeout: Duration,
    /// Which head has begun, and when.
    begun: Option<(usize, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Reads until the version is clear. One that says nothing for `bounds.idle_timeout` is idle, one that does not go on
    /// late.
    pub(crate) async fn open(mut stream: TcpStream, bounds: &Bounds) -> Result<(Version, Self), Early> {
        let mut first = Vec::with_capacity(PREFACE.len());
        let began = timeout(bounds.idle_timeout, more(&mut stream, &mut first)).await;
        let began = began.map_err(|_| Early::gone("idle"))?.map_err(Early::gone)?;
        let version = match began {
            Some(version) => version,
            None => {
                let whole = async {
                    loop {
                        if let Some(version) = more(&mut stream, &mut first).await? {
                            return Ok::<_, io::Error>(version);
                        }
                    }
                };
                let told = timeout(bounds.header_timeout, whole).await;
                told.map_err(|_| Early::LateHead)?.map_err(Early::gone)?
            }
        };
        Ok((version, Self { stream, first: io::Cursor::new(first), heads: None }))
    }

    /// Ends every head that is not whole within `timeout` of its first byte. Whoever reads says on in which phase it is.
    pub(crate) fn bound_heads(mut self, timeout: Duration) -> (Self, Phase) {
        let phase = Phase::default();
        self.heads = Some(Heads { phase: phase.clone(), timeout, begun: None, timer: None });
        (self, phase)
    }
}

/// Reads once, at most to the end of the preface; the version where it is clear by then.
async fn more(stream: &mut TcpStream, first: &mut Vec<u8>) -> io::Result<Option<Version>> {
    let room = PREFACE.len() - first.len();
    let read = stream.take(room as u64).read_buf(first).await?;
    if read == 0 || !PREFACE.starts_with(first) {
        return Ok(Some(Version::Http1));
    }
    Ok((first.len() == PREFACE.len()).then_some(Version::Http2))
}

impl Heads {
    /// Notes that bytes came.
    fn came(&mut self) {
        if let Some(head) = self.phase.head()
            && self.begun.is_none_or(|(begun, _)| begun != head)
        {
            self.begun = Some((head, Instant::now()));
        }
    }

    /// Ready when the head that is awaited is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, since)) = self.begun.filter(|(begun, _)| self.phase.head() == Some(*begun)) else {
            // Nobody waits for a head, or it has not begun.
            return Poll::Pending;
        };
        let deadline = since + self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.has_remaining() {
            let count = this.first.remaining().min(buf.remaining());
            buf.put_slice(&this.first.chunk()[..count]);
            this.first.advance(count);
            this.heads.iter_mut().for_each(Heads::came);
            // What came behind it, in the same turn: hyper would make room for as much again to read the rest, and keep it
            // for as long as the connection lasts. Whatever ends the connection shows the next time, too.
            if !this.first.has_remaining() && buf.remaining() > 0 {
                let _ = Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(heads) = &mut this.heads {
            if read.is_pending() {
                ready!(heads.poll_late(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, LateHead)));
            }
            if buf.filled().len() > before {
                heads.came();
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
