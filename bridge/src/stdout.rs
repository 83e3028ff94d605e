//! What a server writes, message by message. Servers of revision 2025-03-26 may write several as one line, a JSON-RPC batch;
//! whoever reads here gets each by itself.

use std::collections::VecDeque;

use bytes::Bytes;
use portolan_mcp::envelope::{batched, is_batch};
use tokio::io::AsyncRead;

use crate::lines::{LineError, Lines};

/// Messages of one line; a line of more is none.
const MAX_MESSAGES: usize = 1024;

/// The messages of one process.
#[derive(Debug)]
pub(crate) struct Messages<R> {
    lines: Lines<R>,
    /// Of the last line, what was not given out yet.
    rest: VecDeque<Bytes>,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    /// Messages, or batches of them, of at most `limit` bytes.
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { lines: Lines::new(reader, limit), rest: VecDeque::new() }
    }

    /// The next line that should be a message; `None` when the stream ended. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        if let Some(message) = self.rest.pop_front() {
            return Ok(Some(message));
        }
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        match messages_of(&line) {
            Some(messages) => {
                self.rest = messages;
                Ok(self.rest.pop_front())
            }
            None => Ok(Some(line)),
        }
    }
}

/// The messages of a batch; `None` where `line` is none, or an empty one, which is nobody's.
fn messages_of(line: &Bytes) -> Option<VecDeque<Bytes>> {
    if !is_batch(line) {
        return None;
    }
    let messages = batched(line, MAX_MESSAGES)?;
    let messages: VecDeque<_> = messages.into_iter().map(|message| line.slice_ref(message.get().as_bytes())).collect();
    (!messages.is_empty()).then_some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_of_a_batch_come_one_by_one_with_their_bytes_and_whatever_is_none_as_it_was_written() {
        let written = b"{\"a\":1}\n [ {\"b\": 1.0},[2] ,\"c\"]\r\n[]\n[1,\nnoise\n[{}]";
        let mut messages = Messages::new(&written[..], 100);
        let mut seen = Vec::new();
        while let Some(message) = messages.next().await.expect("readable") {
            seen.push(message);
        }
        assert_eq!(seen, ["{\"a\":1}", "{\"b\": 1.0}", "[2]", "\"c\"", "[]", "[1,", "noise", "{}"]);
    }
}
