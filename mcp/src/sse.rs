//! Server-sent events: framing out, an incremental reader with a bound, and a follower of streams that only pass by.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr2;

/// One event as it goes out: an optional id and one JSON-RPC message. Line ends of any kind arrive as line feeds.
#[must_use]
pub fn encode(id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 48);
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
    let mut rest = Some(data);
    while let Some(text) = rest {
        // A carriage return alone ends a line too, and JSON may have one between its tokens.
        let (line, end) =
            text.split_at(text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len()));
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
        rest = end.strip_prefix(b"\r\n").or_else(|| end.get(1..));
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// A comment, which keeps an idle stream open through proxies and means nothing.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The event that begins a stream: no message, only the id from which a client that lost its connection resumes, and how
/// soon (2025-11-25, "Streamable HTTP").
#[must_use]
pub fn prime(id: &str, come_back: Duration) -> Bytes {
    // One that closes the stream on the way says nothing: when to come back is told while there still is a way.
    format!("retry: {}\nid: {id}\ndata: \n\n", come_back.as_millis()).into()
}

/// Tells a client whose stream is about to be closed unfinished when to come back.
#[must_use]
pub fn retry(after: Duration) -> Bytes {
    format!("retry: {}\n\n", after.as_millis()).into()
}

/// An event longer than the reader's bound.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a server-sent event is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The bound in bytes.
    pub limit: usize,
}

/// One event as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its type; empty where the stream gives none, which is a `message`.
    pub event: Vec<u8>,
    /// Its data; lines are joined by `\n`.
    pub data: Vec<u8>,
}

impl Named {
    /// Whether it carries a message of the protocol.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.event.is_empty() || self.event == b"message"
    }
}

/// Longest id of an event from which a stream is resumed: it has to fit into a header.
const MAX_ID: usize = 1024;

/// Reads events from a byte stream, holding at most `limit` bytes.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    id: Option<String>,
    retry: Option<Duration>,
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
}

impl Decoder {
    /// A reader that refuses events of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            id: None,
            retry: None,
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
        }
    }

    /// The id that the stream gave last: where it is resumed from. `None` where it gave none that fits into a header.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How soon the stream wants to be resumed, where it said so.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes the next bytes and returns the data of every event that they complete, whatever its type.
    ///
    /// # Errors
    /// An event grew past the bound; the stream cannot be read further.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        Ok(self.push_named(bytes)?.into_iter().map(|event| event.data).collect())
    }

    /// Takes the next bytes and returns every event that they complete. One without data is none (HTML Living Standard,
    /// "Interpreting an event stream").
    ///
    /// # Errors
    /// An event grew past the bound; the stream cannot be read further.
    pub fn push_named(&mut self, bytes: &[u8]) -> Result<Vec<Named>, EventTooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some((&first, after_first)) = rest.split_first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = after_first;
                continue;
            }
            let end = memchr2(b'\n', b'\r', rest);
            let (piece, from_end) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.event.len() + self.data.len() + piece.len() > self.limit {
                return Err(EventTooLong { limit: self.limit });
            }
            self.line.extend_from_slice(piece);
            let Some((&end, after_end)) = from_end.split_first() else { break };
            self.after_cr = end == b'\r';
            self.end_line(&mut events);
            rest = after_end;
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<Named>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                events.push(Named { event, data: std::mem::take(&mut self.data) });
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(without_space(value));
        } else if let Some(value) = line.strip_prefix(b"event:") {
            self.event = without_space(value).to_vec();
        } else if let Some(value) = line.strip_prefix(b"id:") {
            let id = std::str::from_utf8(without_space(value)).ok();
            self.id = id.filter(|id| (1..=MAX_ID).contains(&id.len())).map(str::to_owned);
        } else if let Some(value) = line.strip_prefix(b"retry:") {
            let millis = std::str::from_utf8(without_space(value)).ok().and_then(|text| text.parse().ok());
            self.retry = millis.map(Duration::from_millis).or(self.retry);
        }
    }
}

fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// Cuts a stream into its events as they are, comments and all, holding at most `limit` bytes.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    held: Vec<u8>,
    follower: Follower,
}

impl Splitter {
    /// One that refuses events of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Vec::new(), follower: Follower::default() }
    }

    /// Takes the next bytes and returns every whole event that they complete, each with its blank line.
    ///
    /// # Errors
    /// An event grew past the bound; the stream cannot be read further.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Bytes>, EventTooLong> {
        let mut whole = Vec::new();
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            // What follows a carriage return may still be a part of its line end.
            let was_between = self.follower.is_between_events();
            if was_between && *first != b'\n' && !self.held.is_empty() {
                whole.push(std::mem::take(&mut self.held).into());
            }
            let (line, after) = rest.split_at(memchr2(b'\n', b'\r', rest).map_or(rest.len(), |end| end + 1));
            if self.held.len() + line.len() > self.limit {
                return Err(EventTooLong { limit: self.limit });
            }
            self.follower.push(line);
            self.held.extend_from_slice(line);
            if line.ends_with(b"\n") && self.follower.is_between_events() {
                whole.push(std::mem::take(&mut self.held).into());
            }
            rest = after;
        }
        Ok(whole)
    }

    /// How many bytes it holds of an event that is not whole.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What is left when the stream ended: the beginning of an event.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.held.into()
    }
}

/// The id and the data of one whole event; `None` where it carries no data.
#[must_use]
pub fn read_event(event: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
    let mut decoder = Decoder::new(usize::MAX);
    let data = decoder.push(event).ok()?.pop()?;
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let id = lines.filter_map(|line| line.strip_prefix(b"id:")).next_back();
    let id = id.map(|id| String::from_utf8_lossy(id.strip_prefix(b" ").unwrap_or(id)).into_owned());
    Some((id, data))
}

/// Follows a stream of events that passes by and holds nothing of it.
#[derive(Debug)]
pub struct Follower {
    /// Bytes of the current line; past [`DATA`] or a difference from it, [`OTHER`].
    column: usize,
    after_cr: bool,
    between_events: bool,
}

const DATA: &[u8] = b"data:";
const OTHER: usize = usize::MAX;

impl Default for Follower {
    fn default() -> Self {
        Self { column: 0, after_cr: false, between_events: true }
    }
}

impl Follower {
    /// Takes the bytes that passed; says whether a line of data began in them. Comments are none.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let mut has_data = false;
        let mut rest = bytes;
        loop {
            if self.column == OTHER {
                // Until the line ends, it says nothing more.
                rest = memchr2(b'\n', b'\r', rest).map_or(&[], |end| &rest[end..]);
            }
            let Some((&byte, after)) = rest.split_first() else { return has_data };
            rest = after;
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.between_events = self.column == 0;
                    self.column = 0;
                }
                _ => {
                    self.between_events = false;
                    self.column = if DATA.get(self.column) == Some(&byte) { self.column + 1 } else { OTHER };
                    has_data |= self.column == DATA.len();
                }
            }
        }
    }

    /// Whether everything so far was whole events, so that another may be put here.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.between_events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back_however_it_is_cut(text in "([^\r]|\r|\n|\r\n){0,200}", cut in 1usize..17) {
            let bytes = encode(Some("1-2"), text.as_bytes());
            let mut decoder = Decoder::new(4096);
            let mut events = Vec::new();
            for chunk in bytes.chunks(cut) {
                events.extend(decoder.push(chunk).expect("within the bound"));
            }
            let text = text.replace("\r\n", "\n").replace('\r', "\n");
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
    fn an_event_has_the_type_that_it_was_given_last_and_the_next_has_none_of_it() {
        let text = b"event: ping\n\nevent: a\nevent:endpoint\ndata: /post\n\nevent: message\ndata: 1\n\ndata: 2\n\n";
        let events = Decoder::new(64).push_named(text).expect("fits");
        let told: Vec<_> = events.iter().map(|event| (&event.event[..], &event.data[..], event.is_message())).collect();
        let expected: [(&[u8], &[u8], bool); 3] =
            [(b"endpoint", b"/post", false), (b"message", b"1", true), (b"", b"2", true)];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_endless_type_is_refused_at_the_bound() {
        let mut decoder = Decoder::new(15);
        assert_eq!(decoder.push(b"event: 12345678\ndata: 12"), Err(EventTooLong { limit: 15 }));
    }

    #[test]
    fn a_reader_knows_where_a_stream_is_resumed_from_and_how_soon() {
        let mut decoder = Decoder::new(10_000);
        assert_eq!((decoder.last_id(), decoder.retry()), (None, None));
        decoder.push(b"id: 7\nretry: 500\ndata: \n\nretry: soon\n\n").expect("events");
        assert_eq!((decoder.last_id(), decoder.retry()), (Some("7"), Some(Duration::from_millis(500))));
        // An empty id takes the last one back, and one that no header can hold is none.
        for none in ["id:\n".to_owned(), format!("id: {}\n", "x".repeat(MAX_ID + 1))] {
            decoder.push(b"id: 8\n").expect("a line");
            decoder.push(none.as_bytes()).expect("a line");
            assert_eq!(decoder.last_id(), None);
        }
    }

    #[test]
    fn a_stream_begins_with_an_id_and_no_message_and_may_close_with_a_time_to_come_back() {
        assert_eq!(prime("3-0", Duration::from_secs(1)), "retry: 1000\nid: 3-0\ndata: \n\n");
        assert_eq!(retry(Duration::from_millis(1500)), "retry: 1500\n\n");
        assert_eq!(Decoder::new(64).push(&retry(Duration::from_secs(1))), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn a_follower_knows_data_from_comments_and_where_events_end(cut in 1usize..9, line_end in "\n|\r|\r\n") {
            let follow = |lines: &[&str]| {
                let text: String = lines.iter().map(|line| format!("{line}{line_end}")).collect();
                let mut follower = Follower::default();
                let mut has_data = false;
                for chunk in text.as_bytes().chunks(cut) {
                    has_data |= follower.push(chunk);
                }
                (has_data, follower.is_between_events())
            };
            prop_assert_eq!(follow(&[]), (false, true));
            prop_assert_eq!(follow(&[": data: no", ""]), (false, true));
            prop_assert_eq!(follow(&["id: data:", "event: x"]), (false, false));
            prop_assert_eq!(follow(&["id: 1", "data: x"]), (true, false));
            prop_assert_eq!(follow(&["dat", "data:x", ""]), (true, true));
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_cut_between_its_events_wherever_it_is_cut_on_the_way(cut in 1usize..9, line_end in "\n|\r|\r\n") {
            let events = [vec![": hi", ""], vec!["id: 7", "data: a", "data: b", ""], vec!["retry: 5", ""], vec!["data: c"]];
            let text: Vec<String> =
                events.iter().map(|lines| lines.iter().map(|line| format!("{line}{line_end}")).collect()).collect();
            let mut splitter = Splitter::new(64);
            let mut whole = Vec::new();
            for chunk in text.concat().as_bytes().chunks(cut) {
                whole.extend(splitter.push(chunk).expect("within the bound"));
            }
            prop_assert_eq!(&whole, &text[..3].iter().map(|text| Bytes::from(text.clone())).collect::<Vec<_>>());
            prop_assert_eq!(splitter.rest(), text[3].as_bytes());
            prop_assert_eq!(read_event(&whole[0]), None);
            prop_assert_eq!(read_event(&whole[1]), Some((Some("7".into()), b"a\nb".to_vec())));
        }
    }

    #[test]
    fn an_event_without_end_is_refused_at_the_bound() {
        assert_eq!(Splitter::new(4).push(b"data:"), Err(EventTooLong { limit: 4 }));
    }

    #[test]
    fn an_endless_line_is_refused_at_the_bound() {
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.push(b"data: 123456789"), Err(EventTooLong { limit: 10 }));
    }
}
