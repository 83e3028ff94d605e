//! What the headers of a request ask for: media types, encoding, protocol revision.

use http::{HeaderMap, header};
use portolan_mcp::{
    failure::{Failure, Kind},
    revision,
};

/// Header that names the protocol revision (2025-11-25, "Protocol Version Header").
const PROTOCOL_VERSION: &str = "mcp-protocol-version";

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// A POST carries JSON and takes JSON or a stream.
pub(crate) fn post(headers: &HeaderMap) -> Result<(), Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !essence(content_type).eq_ignore_ascii_case(JSON) || headers.get_all(header::CONTENT_TYPE).iter().count() > 1 {
        return Err(Failure::new(Kind::UnsupportedMediaType, "send the message as Content-Type: application/json"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Failure::new(Kind::UnsupportedMediaType, "send the message without Content-Encoding"));
    }
    if !(accepts(headers, JSON) && accepts(headers, EVENT_STREAM)) {
        return Err(Failure::new(Kind::NotAcceptable, "send Accept: application/json, text/event-stream"));
    }
    Ok(())
}

/// Whether an answer with these headers is a stream of events, however its type is written.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| essence(value).eq_ignore_ascii_case(EVENT_STREAM))
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
    let mut values = headers.get_all(PROTOCOL_VERSION).iter();
    let Some(value) = values.next() else { return Ok(()) };
    let named = value.to_str().unwrap_or_default();
    if values.next().is_none() && revision::is_legacy(named) {
        return Ok(());
    }
    if revision::MODERN.contains(&named) {
        return Err(modern());
    }
    let served = revision::LEGACY.join(", ");
    Err(Failure::new(Kind::UnsupportedVersion, format!("send MCP-Protocol-Version once, as one of {served}")))
}

/// The refusal that makes a client of the sessionless era fall back to `initialize`.
pub(crate) fn modern() -> Failure {
    let message = format!("this endpoint serves revisions up to {}: open with initialize", revision::LATEST_LEGACY);
    Failure::new(Kind::ModernEra, message)
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

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
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
            let headers = headers(&[("content-type", "application/json"), ("accept", accept)]);
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
            let result = post(&headers(&[("content-type", content_type)]));
            assert_eq!(result.is_ok(), expected, "{content_type:?}");
        }
        let encoded = headers(&[("content-type", JSON), ("content-encoding", "gzip")]);
        assert_eq!(post(&encoded).map_err(|failure| failure.kind), Err(Kind::UnsupportedMediaType));
    }

    #[test]
    fn a_revision_is_served_refused_or_answered_with_the_fallback() {
        let kind = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| (PROTOCOL_VERSION, *value)).collect();
            version(&headers(&pairs)).map_err(|failure| failure.kind)
        };
        assert_eq!(kind(&[]), Ok(()));
        assert_eq!(kind(&["2025-11-25"]), Ok(()));
        assert_eq!(kind(&["2026-07-28"]), Err(Kind::ModernEra));
        assert_eq!(kind(&["1999-01-01"]), Err(Kind::UnsupportedVersion));
        assert_eq!(kind(&["2025-11-25", "2025-11-25"]), Err(Kind::UnsupportedVersion));
    }
}
