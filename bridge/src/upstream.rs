//! A server that speaks HTTP on loopback, as the bridge reaches it.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The header with which an HTTP server names a session.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Idle connections to the server that are kept.
const MAX_IDLE: usize = 32;
/// Hop by hop, the caller's own secrets, and what this side sets itself.
const NOT_FORWARDED: [HeaderName; 12] = [
    HOST,
    CONTENT_LENGTH,
    CONNECTION,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
    COOKIE,
    SET_COOKIE,
];

/// The server did not take a request, or broke off.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the server at {endpoint}: {reason}")]
pub(crate) struct Unreachable {
    endpoint: String,
    reason: String,
}

/// The server's endpoint. Redirects are answers like others: nobody follows them.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Server {
    pub(crate) fn new(endpoint: Uri) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { endpoint, client }
    }

    /// The same server, asked at another of its addresses over the same connections.
    pub(crate) fn at(&self, endpoint: Uri) -> Self {
        Self { endpoint, client: self.client.clone() }
    }

    pub(crate) fn endpoint(&self) -> &Uri {
        &self.endpoint
    }

    /// Sends a request with `headers` for the server's session `session`, and gives the answer as soon as it begins.
    pub(crate) async fn send(
        &self,
        method: Method,
        headers: &HeaderMap,
        session: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unreachable> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.clone();
        // The client names the host after the endpoint: servers on loopback check it against rebinding.
        *request.headers_mut() = forwarded(headers);
        if let Some(session) = session {
            request.headers_mut().insert(SESSION_ID, session.clone());
        }
        self.client.request(request).await.map_err(|error| self.unreachable(&error))
    }

    pub(crate) fn unreachable(&self, error: &dyn std::error::Error) -> Unreachable {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Unreachable { endpoint: self.endpoint.to_string(), reason: innermost.to_string() }
    }
}

/// What of a message's headers may pass the bridge, either way.
pub(crate) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| {
        !NOT_FORWARDED.contains(name) && *name != SESSION_ID && !name.as_str().starts_with("portolan-")
    };
    headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_the_bridges_own_headers_do_not_pass() {
        let mut headers = HeaderMap::new();
        for name in
            ["authorization", "cookie", "portolan-mac", "portolan-session", "mcp-session-id", "host", "connection"]
        {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
        headers.insert("accept", HeaderValue::from_static("text/event-stream"));
        let passed = forwarded(&headers);
        let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["mcp-protocol-version", "accept"]);
    }
}
