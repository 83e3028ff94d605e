//! Lines of a byte stream, never holding more than a bound.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK: usize = 8 * 1024;

/// Why no line came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// A line is longer than the bound; the stream cannot be read further.
    #[error("a line is longer than {limit} bytes")]
    TooLong {
        /// The bound in bytes.
        limit: usize,
    },
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads lines of at most `limit` bytes.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    scanned: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), scanned: 0, limit }
    }

    /// The next line without its end; `None` when the stream ended. An unfinished last line counts as one.
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > self.limit {
                return Err(LineError::TooLong { limit: self.limit });
            }
            self.buffer.reserve(CHUNK);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                self.scanned = 0;
                let rest = self.buffer.split().freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let found = self.buffer.get(self.scanned..)?.iter().position(|byte| *byte == b'\n');
        let Some(position) = found else {
            self.scanned = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.scanned + position + 1);
        line.truncate(line.len() - 1);
        self.scanned = 0;
        Some(line.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_the_last_needs_no_end() {
        let mut lines = Lines::new(&b"one\n\ntwo\r\nthree"[..], 100);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.expect("readable") {
            seen.push(line);
        }
        assert_eq!(seen, ["one", "", "two\r", "three"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_refused_before_it_is_held() {
        let mut lines = Lines::new(tokio::io::repeat(b'x'), 100_000);
        assert!(matches!(lines.next().await, Err(LineError::TooLong { limit: 100_000 })));
        assert!(lines.buffer.capacity() < 300_000, "{}", lines.buffer.capacity());
    }
}
