//! Where an HTTP+SSE server wants messages posted: read from its `endpoint` event, never on another origin.

use http::Uri;
use portolan_mcp::sse::Named;
use url::Url;

use crate::stderr::shorten;

/// What is quoted of an endpoint that is refused.
const MAX_QUOTE: usize = 120;

/// Whether `event` is the one that names the endpoint (2024-11-05, "HTTP with SSE").
pub(crate) fn is_endpoint(event: &Named) -> bool {
    event.event == b"endpoint"
}

/// The endpoint that `data` names for the event stream at `stream`, relative to it or absolute.
///
/// # Errors
/// It is no URL, or one of another scheme, host or port: a server must not choose whom this side connects to.
pub(crate) fn resolve(stream: &Uri, data: &[u8]) -> Result<Uri, String> {
    let text = std::str::from_utf8(data).map_err(|_| "the server's endpoint event is not UTF-8".to_owned())?;
    let quoted = || shorten(text, MAX_QUOTE).to_owned();
    let base = Url::parse(&stream.to_string()).map_err(|error| format!("{stream} is no URL: {error}"))?;
    let mut endpoint =
        base.join(text).map_err(|error| format!("its endpoint event is no URL ({error}): {}", quoted()))?;
    let has_credentials = !endpoint.username().is_empty() || endpoint.password().is_some();
    if endpoint.origin() != base.origin() || has_credentials {
        let origin = base.origin().ascii_serialization();
        return Err(format!(
            "the server's endpoint event names {}, which is not on {origin}; let the server send the path alone, such as \
             /messages?sessionId=1",
            quoted()
        ));
    }
    endpoint.set_fragment(None);
    endpoint.as_str().parse().map_err(|error| format!("the server's endpoint event is no URL ({error}): {}", quoted()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(data: &str) -> Result<String, String> {
        let stream = Uri::from_static("http://127.0.0.1:3000/base/sse");
        resolve(&stream, data.as_bytes()).map(|uri| uri.to_string())
    }

    #[test]
    fn an_endpoint_is_relative_to_the_stream_or_absolute_on_its_origin() {
        for (data, expected) in [
            ("/messages?sessionId=1", "http://127.0.0.1:3000/messages?sessionId=1"),
            ("messages", "http://127.0.0.1:3000/base/messages"),
            ("?sessionId=1", "http://127.0.0.1:3000/base/sse?sessionId=1"),
            ("http://127.0.0.1:3000/m#part", "http://127.0.0.1:3000/m"),
            ("/a b", "http://127.0.0.1:3000/a%20b"),
        ] {
            assert_eq!(resolved(data).as_deref(), Ok(expected), "{data}");
        }
    }

    #[test]
    fn an_endpoint_on_another_origin_is_refused_however_it_is_written() {
        for data in [
            "http://127.0.0.1:3001/m",
            "http://127.0.0.2:3000/m",
            "http://127.0.0.1/m",
            "https://127.0.0.1:3000/m",
            "//metadata.example/m",
            "/\\metadata.example/m",
            "\\\\metadata.example\\m",
            "http:\t//metadata.example/m",
            "http://127.0.0.1:3000@metadata.example/m",
            "http://user@127.0.0.1:3000/m",
            "file:///etc/passwd",
            "http://[",
        ] {
            assert!(resolved(data).is_err(), "{data}: {:?}", resolved(data));
        }
        assert!(resolve(&Uri::from_static("http://127.0.0.1:3000/sse"), b"/\xff").is_err());
        let elsewhere = Uri::from_static("https://mcp.example.com/sse");
        assert!(resolve(&elsewhere, b"https://mcp.example.com:443/m").is_ok());
        for data in
            ["http://mcp.example.com/m", "https://mcp.example.com:8443/m", "https://mcp.example.com.evil.example/m"]
        {
            assert!(resolve(&elsewhere, data.as_bytes()).is_err(), "{data}");
        }
    }
}
