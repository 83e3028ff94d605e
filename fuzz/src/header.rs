//! Values of headers: MACs, session keys, event ids, names of failures, and those that must say what a body says.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use portolan_mcp::envelope::Message;
use portolan_mcp::failure::Kind;
use portolan_mcp::mac::{KEY_LEN, MacKey, Subject, WINDOW_MILLIS};
use portolan_mcp::modern::{Head, METHOD_HEADER, NAME_HEADER, VERSION_HEADER};
use portolan_mcp::session::{Accepted, Limits, Session, StreamId};
use portolan_mcp::token::SessionKey;

const SUBJECT: Subject<'static> = Subject { method: "POST", path: "/mcp", session: "key", pod: "uid" };
const NOW: u64 = 1_700_000_000_000;

static KEY: LazyLock<MacKey> = LazyLock::new(|| MacKey::new(&[7; KEY_LEN]).expect("the right length"));
static SIGNED: LazyLock<String> = LazyLock::new(|| KEY.sign(SUBJECT, NOW));

/// `input` is the value of a header.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    mac(&text);
    changed(input);
    event_id(&text);
    repeated(&text);
    if let Some(key) = SessionKey::parse(&text) {
        assert_eq!((key.as_str(), key.as_str().len()), (&*text, 22));
    }
    if let Some(kind) = Kind::parse(&text) {
        assert_eq!(kind.as_str(), text);
    }
}

/// A header is good only where it is the one that would be written for its time.
fn mac(text: &str) {
    for now in [0, NOW, u64::MAX] {
        if KEY.verify(Some(text), SUBJECT, now).is_ok() {
            let times = now.saturating_sub(WINDOW_MILLIS)..=now.saturating_add(WINDOW_MILLIS);
            let time = text.strip_prefix("v1 t=").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let time = time.expect("it was read");
            assert!(times.contains(&time), "{text} at {now}");
            assert_eq!(text, KEY.sign(SUBJECT, time));
        }
    }
    let own = KEY.sign(Subject { session: text, ..SUBJECT }, NOW);
    assert_eq!(KEY.verify(Some(&own), SUBJECT, NOW).is_ok(), text == SUBJECT.session);
}

/// Triples of place, how many characters are taken out there, and one that is put in.
fn changed(input: &[u8]) {
    let mut header = SIGNED.as_bytes().to_vec();
    for edit in input.chunks_exact(3) {
        let place = usize::from(edit[0]) * header.len() / 256;
        let end = (place + usize::from(edit[1] % 3)).min(header.len());
        header.splice(place..end, [edit[2]]);
    }
    let header = String::from_utf8_lossy(&header);
    assert_eq!(KEY.verify(Some(&header), SUBJECT, NOW).is_ok(), *header == **SIGNED, "{header}");
}

/// A name in a header is the one in a body where it is written as it is, or as base64 of it, and nowhere else.
fn repeated(text: &str) {
    let (header, name) = text.split_once('\n').unwrap_or((text, text));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{},"_meta":{{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#,
        serde_json::Value::from(name)
    );
    let head = Head::of(&Message::parse(body.as_bytes()).expect("a message")).expect("a request");
    let is_same = |value: &[u8]| {
        let value = HeaderValue::from_bytes(value).ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(VERSION_HEADER, HeaderValue::from_static("2026-07-28"));
        headers.insert(METHOD_HEADER, HeaderValue::from_static("tools/call"));
        headers.insert(NAME_HEADER, value);
        Some(head.check(&headers).is_ok())
    };
    let encoded = format!("=?base64?{}?=", STANDARD.encode(name));
    assert_eq!(is_same(encoded.as_bytes()), Some(true), "{encoded}");
    let is_plain = header == name && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t');
    let is_wrapped = header.starts_with("=?base64?") && header.ends_with("?=") && header.len() >= "=?base64??=".len();
    let wanted = if is_wrapped { header == encoded } else { is_plain };
    if let Some(found) = is_same(header.as_bytes()) {
        assert_eq!(found, wanted, "{header:?} for {name:?}");
    }
}

/// Whatever a client sends as `Last-Event-ID`, it holds a stream of this session or none, where that stands.
fn event_id(text: &str) {
    let mut session = Session::new(Limits::default());
    let mut out = Vec::new();
    let call = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let message = Message::parse(&call).expect("a message");
    let Ok(Accepted::Call(first)) = session.accept(&message, &call, &mut out) else { panic!("a call") };
    let log = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/message"}"#);
    session.server_line(&log, &mut out).expect("a message");
    let Ok(held) = session.open(Some(text), &mut out) else { return };
    assert!([StreamId::GET, first.stream].contains(&held.stream));
    let again = session.open(Some(&held.event_id()), &mut out).expect("it was opened a moment ago");
    assert_eq!((again.stream, again.event_id()), (held.stream, held.event_id()));
}
