//! Server-sent events: framing out, and an incremental reader with a bound.

use bytes::{BufMut, Bytes, BytesMut};

/// One event as it goes out: an optional id and one JSON-RPC message.
#[must_use]
pub fn encode(id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 48);
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
    for line in data.split(|byte| *byte == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// A comment, which keeps an idle stream open through proxies and means nothing.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// An event longer than the reader's bound.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a server-sent event is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The bound in bytes.
    pub limit: usize,
}

/// Reads `data` of events from a byte stream, holding at most `limit` bytes.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
}

impl Decoder {
    /// A reader that refuses events of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: Vec::new(), has_data: false, after_cr: false }
    }

    /// Takes the next bytes and returns the data of every event that they complete.
    ///
    /// # Errors
    /// An event grew past the bound; the stream cannot be read further.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line(&mut events);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                    if self.line.len() + self.data.len() > self.limit {
                        return Err(EventTooLong { limit: self.limit });
                    }
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<Vec<u8>>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                events.push(std::mem::take(&mut self.data));
            }
            return;
        }
        let Some(value) = line.strip_prefix(b"data:") else { return };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back_however_it_is_cut(text in "[^\r]{0,200}", cut in 1usize..17) {
            let bytes = encode(Some("1-2"), text.as_bytes());
            let mut decoder = Decoder::new(4096);
            let mut events = Vec::new();
            for chunk in bytes.chunks(cut) {
                events.extend(decoder.push(chunk).expect("within the bound"));
            }
            prop_assert_eq!(events, vec![text.into_bytes()]);
        }
    }

    #[test]
    fn comments_ids_and_empty_events_carry_no_message() {
        let mut decoder = Decoder::new(64);
        let events = decoder.push(b": hi\n\nid: 4\nevent: message\n\r\ndata:a\r\ndata: b\r\r").expect("fits");
        assert_eq!(events, vec![b"a\nb".to_vec()]);
    }

    #[test]
    fn an_endless_line_is_refused_at_the_bound() {
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.push(b"data: 123456789"), Err(EventTooLong { limit: 10 }));
    }
}
