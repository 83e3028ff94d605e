//! What the headers of a request ask for: media types, encoding, protocol revision.

use http::{HeaderMap, header};
use portolan_mcp::{
    envelope::Message,
    failure::{Failure, Kind},
    modern,
    revision::{self, Era},
    token,
};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
/// What clients of this protocol send, letter by letter: there is nothing to weigh.
const USUAL_ACCEPT: &[u8] = b"application/json, text/event-stream";

/// A POST carries JSON and takes JSON or a stream.
pub(crate) fn post(headers: &HeaderMap) -> Result<(), Failure> {
    if !is(headers, JSON) || headers.get_all(header::CONTENT_TYPE).iter().count() > 1 {
        return Err(Failure::new(Kind::UnsupportedMediaType, "send the message as Content-Type: application/json"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Failure::new(Kind::UnsupportedMediaType, "send the message without Content-Encoding"));
    }
    if !accepts_both(headers) {
        return Err(Failure::new(Kind::NotAcceptable, "send Accept: application/json, text/event-stream"));
    }
    Ok(())
}

/// Whether an answer with these headers is a stream of events, however its type is written.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    is(headers, EVENT_STREAM)
}

/// Whether the content is of type `wanted`, whatever its parameters.
fn is(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value == wanted || value.to_str().is_ok_and(|value| essence(value).eq_ignore_ascii_case(wanted))
    })
}

/// A GET takes a stream.
pub(crate) fn get(headers: &HeaderMap) -> Result<(), Failure> {
    if accepts(headers, EVENT_STREAM) {
        return Ok(());
    }
    Err(Failure::new(Kind::NotAcceptable, "send Accept: text/event-stream"))
}

/// The revision that a request inside a session names; none means the one that had no header yet.
pub(crate) fn version(headers: &HeaderMap) -> Result<(), Failure> {
    let mut values = headers.get_all(modern::VERSION_HEADER).iter();
    let Some(value) = values.next() else { return Ok(()) };
    let named = value.to_str().unwrap_or_default();
    if values.next().is_some() {
        return Err(Failure::new(Kind::HeaderMismatch, "send MCP-Protocol-Version once"));
    }
    if revision::MODERN.contains(&named) && headers.contains_key(token::HEADER) {
        return Ok(());
    }
    if revision::MODERN.contains(&named) {
        let message = format!("revision {named} has neither GET, DELETE nor answers of clients");
        return Err(Failure::new(Kind::MethodNotAllowed, message));
    }
    if revision::is_legacy(named) { Ok(()) } else { Err(modern::unsupported(named)) }
}

/// The era in which a message is served. Its body decides (2026-07-28, "Versioning and Compatibility"); one that says
/// nothing although its headers name a revision without sessions is told what it lacks.
pub(crate) fn era(headers: &HeaderMap, message: &Message<'_>) -> Era {
    if matches!(message, Message::Response { .. }) || message.method() == Some("initialize") {
        return Era::Legacy;
    }
    let named = headers.get(modern::VERSION_HEADER).and_then(|value| value.to_str().ok());
    // A session is one, whatever revision its server let the client believe in.
    let is_modern = message.is_modern()
        || (named.is_some_and(|named| revision::MODERN.contains(&named)) && !headers.contains_key(token::HEADER));
    if is_modern { Era::Modern } else { Era::Legacy }
}

/// Whether `Accept` admits JSON and a stream.
fn accepts_both(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter();
    let is_usual = values.next().is_some_and(|value| value == USUAL_ACCEPT) && values.next().is_none();
    is_usual || (accepts(headers, JSON) && accepts(headers, EVENT_STREAM))
}

/// Whether `Accept` admits `wanted`. The most specific range decides; no header admits everything (RFC 9110 §12.5.1).
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    let family = wanted.split('/').next().unwrap_or_default();
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges
        .flat_map(|value| value.split(','))
        .filter_map(|range| Some((specificity(essence(range), wanted, family)?, !is_refused(range))))
        .max()
        .is_some_and(|(_, admitted)| admitted)
}

fn specificity(range: &str, wanted: &str, family: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(wanted) {
        return Some(2);
    }
    let (kind, subtype) = range.split_once('/')?;
    (subtype == "*" && (kind == "*" || kind.eq_ignore_ascii_case(family))).then_some(u8::from(kind != "*"))
}

/// `q=0` says "not this".
fn is_refused(range: &str) -> bool {
    range.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('=')).any(|(name, value)| {
        name.eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|quality| quality <= 0.0)
    })
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn accept_is_read_as_http_defines_it() {
        for (accept, expected) in [
            ("application/json, text/event-stream", true),
            ("text/event-stream;q=0.5,APPLICATION/JSON", true),
            ("*/*", true),
            ("application/*, text/*", true),
            ("application/json", false),
            ("text/event-stream", false),
            ("*/*, text/event-stream;q=0", false),
            ("text/html", false),
            ("", false),
        ] {
            let headers = headers(&[(header::CONTENT_TYPE, "application/json"), (header::ACCEPT, accept)]);
            assert_eq!(post(&headers).is_ok(), expected, "{accept:?}");
        }
    }

    #[test]
    fn only_plain_json_is_read() {
        for (content_type, expected) in [
            ("application/json; charset=utf-8", true),
            ("text/json", false),
            ("application/json-rpc", false),
            ("", false),
        ] {
            let result = post(&headers(&[(header::CONTENT_TYPE, content_type)]));
            assert_eq!(result.is_ok(), expected, "{content_type:?}");
        }
        let encoded = headers(&[(header::CONTENT_TYPE, JSON), (header::CONTENT_ENCODING, "gzip")]);
        assert_eq!(post(&encoded).map_err(|failure| failure.kind), Err(Kind::UnsupportedMediaType));
    }

    #[test]
    fn a_revision_is_served_or_refused_and_one_without_sessions_has_no_streams_to_open() {
        let kind = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| (modern::VERSION_HEADER, *value)).collect();
            version(&headers(&pairs)).map_err(|failure| failure.kind)
        };
        assert_eq!(kind(&[]), Ok(()));
        assert_eq!(kind(&["2025-11-25"]), Ok(()));
        assert_eq!(kind(&["2026-07-28"]), Err(Kind::MethodNotAllowed));
        assert_eq!(kind(&["1999-01-01"]), Err(Kind::UnsupportedVersion));
        assert_eq!(kind(&["2025-11-25", "2025-11-25"]), Err(Kind::HeaderMismatch));
    }

    #[test]
    fn the_body_decides_the_era_and_a_header_only_where_it_says_nothing() {
        let of = |body: &str, version: &'static str| {
            era(&headers(&[(modern::VERSION_HEADER, version)]), &Message::parse(body.as_bytes()).expect("a message"))
        };
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        let named = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"x"}}}"#;
        assert_eq!(of(list, "2025-11-25"), Era::Legacy);
        assert_eq!(of(list, "2026-07-28"), Era::Modern);
        assert_eq!(of(named, "2025-11-25"), Era::Modern);
        let in_session = headers(&[(modern::VERSION_HEADER, "2026-07-28"), (token::HEADER, "x")]);
        assert_eq!(era(&in_session, &Message::parse(list.as_bytes()).expect("a message")), Era::Legacy);
        assert_eq!(version(&in_session), Ok(()));
        assert_eq!(of(initialize, "2026-07-28"), Era::Legacy);
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "2026-07-28"), Era::Legacy);
    }
}
