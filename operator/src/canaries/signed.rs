//! An HTTP client for rmcp that says in every request that it is the operator.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use portolan_mcp::mac::{self, MacKey, Subject};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
    },
};
use sse_stream::Sse;

/// Until a connection is made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Headers = HashMap<HeaderName, HeaderValue>;
type Posted = Result<StreamableHttpPostResponse, StreamableHttpError<reqwest::Error>>;
type Streamed = Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<reqwest::Error>>;

/// What every [`Signed`] shares: no proxy stands between operator and gateway, and none of the two redirects.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        // There is no TLS between the two, and the operator's image has no certificates that could be looked for.
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        // The next round may be at another replica, and is a minute away.
        .pool_idle_timeout(Duration::from_secs(5))
        .build()
}

/// Signs what it sends to one path.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) http: reqwest::Client,
    pub(super) key: MacKey,
    pub(super) path: Arc<str>,
}

impl Signed {
    fn sign(&self, method: &str, mut headers: Headers) -> Headers {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let subject = Subject { method, path: &self.path, session: "", pod: "" };
        let signed = self.key.sign(subject, now.try_into().unwrap_or(u64::MAX));
        // It is base64 and digits: a header's value for certain.
        headers.extend(HeaderValue::from_str(&signed).ok().map(|value| (mac::HEADER, value)));
        headers
    }
}

impl StreamableHttpClient for Signed {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Posted {
        let headers = self.sign("POST", custom_headers);
        self.http.post_message(uri, message, session_id, auth_header, headers).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Posted {
        let headers = self.sign("POST", custom_headers);
        self.http.post_message_with_response_limits(uri, message, session_id, auth_header, headers, limits).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), StreamableHttpError<Self::Error>> {
        let headers = self.sign("DELETE", custom_headers);
        self.http.delete_session(uri, session_id, auth_header, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Streamed {
        let headers = self.sign("GET", custom_headers);
        self.http.get_stream(uri, session_id, last_event_id, auth_header, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max: usize,
    ) -> Streamed {
        let headers = self.sign("GET", custom_headers);
        self.http.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, max).await
    }
}
