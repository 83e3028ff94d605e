//! A server that speaks HTTP, on loopback or elsewhere, as the bridge reaches it.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName,
    HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token;
use portolan_mcp::wire::ProbeReason;

#[cfg(feature = "tls")]
use crate::remote::{Dialer, Remote, Trouble};
use crate::stderr::shorten;

/// Idle connections to the server that are kept: as many as may well have had calls under way, so that the next one finds a
/// connection.
const MAX_IDLE: usize = 1024;
/// How long they are: less than a server does itself, so that no request meets a connection that is being closed. Node and
/// uvicorn close theirs after 5 s.
const IDLE_ON_LOOPBACK: Duration = Duration::from_secs(4);
/// The same of a server elsewhere, where another connection takes longer. Load balancers commonly close theirs after 60 s.
#[cfg(feature = "tls")]
const IDLE_ELSEWHERE: Duration = Duration::from_secs(50);
/// What is quoted of a header that is not as it should be.
const MAX_QUOTE: usize = 120;
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
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

/// Why a request got no answer that goes on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct NoAnswer {
    text: String,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nobody took the request, or the connection broke off.
    Network,
    /// The host has an address that is not connected to.
    #[cfg(feature = "tls")]
    Address,
    /// The two sides do not trust each other.
    #[cfg(feature = "tls")]
    Tls,
    /// The server sends its callers elsewhere, or says what nobody asked for.
    Unwanted,
}

impl NoAnswer {
    /// What a caller is told.
    pub(crate) fn failure(&self) -> Failure {
        let kind = if self.cause == Cause::Unwanted { Kind::BadServerReply } else { Kind::ServerUnreachable };
        Failure::new(kind, self.text.clone())
    }

    /// What it says about the server.
    pub(crate) fn probe_reason(&self) -> ProbeReason {
        match self.cause {
            Cause::Network => ProbeReason::Unreachable,
            #[cfg(feature = "tls")]
            Cause::Address => ProbeReason::AddressNotAllowed,
            #[cfg(feature = "tls")]
            Cause::Tls => ProbeReason::TlsFailed,
            Cause::Unwanted => ProbeReason::NotMcp,
        }
    }
}

/// The server's endpoint. Nobody follows redirects.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Uri,
    client: Http,
}

/// The connections to it.
#[derive(Clone, Debug)]
enum Http {
    Loopback(Client<HttpConnector, Full<Bytes>>),
    #[cfg(feature = "tls")]
    Elsewhere(Arc<Elsewhere>),
}

#[cfg(feature = "tls")]
struct Elsewhere {
    client: Client<Dialer, Full<Bytes>>,
    dialer: Dialer,
    credential: Option<(HeaderName, HeaderValue)>,
}

#[cfg(feature = "tls")]
impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Elsewhere").finish_non_exhaustive()
    }
}

impl Server {
    /// A server on loopback.
    pub(crate) fn new(endpoint: Uri) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { endpoint, client: Http::Loopback(client(connector, IDLE_ON_LOOPBACK)) }
    }

    /// A server elsewhere.
    #[cfg(feature = "tls")]
    pub(crate) fn elsewhere(remote: Remote) -> Self {
        let Remote { endpoint, credential, dialer, .. } = remote;
        let elsewhere = Elsewhere { client: client(dialer.clone(), IDLE_ELSEWHERE), dialer, credential };
        Self { endpoint, client: Http::Elsewhere(Arc::new(elsewhere)) }
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
    ) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.endpoint.clone();
        // The client names the host after the endpoint: servers on loopback check it against rebinding.
        *request.headers_mut() = forwarded(headers);
        // What is packed would have to be unpacked, by whoever reads it and to whatever size.
        request.headers_mut().insert(ACCEPT_ENCODING, IDENTITY);
        if let Some(session) = session {
            request.headers_mut().insert(token::HEADER, session.clone());
        }
        let response = match &self.client {
            Http::Loopback(client) => client.request(request).await,
            #[cfg(feature = "tls")]
            Http::Elsewhere(elsewhere) => {
                if let Some((name, value)) = &elsewhere.credential {
                    // In the place of whatever a caller sent under that name.
                    request.headers_mut().insert(name, value.clone());
                }
                elsewhere.client.request(request).await
            }
        };
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_redirection() {
            return Err(self.redirected(&method, &response));
        }
        match response.headers().get(CONTENT_ENCODING) {
            Some(encoding) if *encoding != IDENTITY => Err(self.packed(encoding)),
            _ => Ok(response),
        }
    }

    fn packed(&self, encoding: &HeaderValue) -> NoAnswer {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        let (endpoint, encoding) = (&self.endpoint, shorten(&encoding, MAX_QUOTE));
        let text = format!(
            "the server at {endpoint} answered with Content-Encoding {encoding} although only identity is accepted: switch its \
             compression off"
        );
        NoAnswer { text, cause: Cause::Unwanted }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> NoAnswer {
        #[cfg(feature = "tls")]
        if let Http::Elsewhere(elsewhere) = &self.client
            && let Some(trouble) = elsewhere.dialer.explain(error)
        {
            let (cause, why) = match trouble {
                Trouble::Address(why) => (Cause::Address, why),
                Trouble::Tls(why) => (Cause::Tls, why),
                Trouble::HungUp(why) => (Cause::Network, why),
            };
            return NoAnswer { text: format!("cannot reach the server at {}: {why}", self.endpoint), cause };
        }
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        NoAnswer { text: format!("cannot reach the server at {}: {innermost}", self.endpoint), cause: Cause::Network }
    }

    /// Where it leads to is told and not gone: whoever answers there was chosen by the server.
    fn redirected(&self, method: &Method, response: &Response<Incoming>) -> NoAnswer {
        let (endpoint, status) = (&self.endpoint, response.status());
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
        let location = shorten(location, MAX_QUOTE);
        let what = match &self.client {
            Http::Loopback(_) => "path",
            #[cfg(feature = "tls")]
            Http::Elsewhere(_) => "URL",
        };
        let text = format!(
            "the server at {endpoint} answered {method} with {status}, and redirects are not followed: write the {what} that it \
             leads to ({location})"
        );
        NoAnswer { text, cause: Cause::Unwanted }
    }
}

fn client<C>(connector: C, idle: Duration) -> Client<C, Full<Bytes>>
where
    C: Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle)
        .pool_max_idle_per_host(MAX_IDLE)
        .build(connector)
}

/// What of the headers of a client's message may pass the bridge.
pub(crate) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| {
        !NOT_FORWARDED.contains(name) && *name != token::HEADER && !name.as_str().starts_with("portolan-")
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
