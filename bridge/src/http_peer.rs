//! The probe's session with an HTTP server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::modern::{Head, headers_of};
use portolan_mcp::session::INITIALIZED;
use portolan_mcp::sse::Decoder;
use portolan_mcp::token;

use crate::rpc::{CallError, Rpc};
use crate::state::lock;
use crate::upstream::Server;

const GOODBYE: Duration = Duration::from_secs(1);

/// The probe's session.
#[derive(Debug)]
pub(crate) struct HttpPeer {
    server: Server,
    limit: usize,
    last_id: AtomicU64,
    session: Mutex<Option<HeaderValue>>,
    revision: Mutex<Option<HeaderValue>>,
}

impl HttpPeer {
    pub(crate) fn new(server: Server, limit: usize) -> Self {
        Self { server, limit, last_id: AtomicU64::new(0), session: Mutex::default(), revision: Mutex::default() }
    }

    pub(crate) async fn request(&self, method: &str, params: &str, timeout: Duration) -> Result<Rpc, CallError> {
        let id = Id::number(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"{method}","params":{params}}}"#, id.as_json());
        let answer = tokio::time::timeout(timeout, self.exchange(body.into(), &id)).await;
        answer.unwrap_or(Err(CallError::TimedOut))
    }

    async fn exchange(&self, body: Bytes, id: &Id) -> Result<Rpc, CallError> {
        let response = self.post(body).await?;
        let status = response.status();
        let had_session = lock(&self.session).is_some();
        if let Some(session) = response.headers().get(token::HEADER) {
            *lock(&self.session) = Some(session.clone());
        }
        if status == StatusCode::NOT_FOUND && had_session {
            return Err(CallError::SessionGone);
        }
        let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.starts_with(b"text/event-stream") {
            return self.read_events(response.into_body(), id).await;
        }
        let body = Limited::new(response.into_body(), self.limit).collect().await;
        let body = body.map_err(|error| CallError::NotMcp(format!("the answer broke off: {error}")))?.to_bytes();
        // Errors of the protocol come under other statuses than 200 as well.
        Rpc::parse(&body).map_err(|error| match error {
            CallError::NotMcp(text) if !status.is_success() => {
                CallError::NotMcp(format!("the server answered with HTTP status {status}: {text}"))
            }
            other => other,
        })
    }

    async fn read_events(&self, mut body: Incoming, id: &Id) -> Result<Rpc, CallError> {
        let mut decoder = Decoder::new(self.limit);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CallError::NotMcp(format!("the answer broke off: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            for event in decoder.push(data).map_err(|error| CallError::NotMcp(error.to_string()))? {
                let answers =
                    matches!(Message::parse(&event), Ok(Message::Response { id: Some(found), .. }) if found == *id);
                if answers {
                    return Rpc::parse(&event.into());
                }
            }
        }
        Err(CallError::NotMcp("the stream ended without the answer".to_owned()))
    }

    async fn post(&self, body: Bytes) -> Result<Response<Incoming>, CallError> {
        let (headers, session) = match modern_headers(&body) {
            // In that era requests have no session, and say in their headers what they are.
            Some(headers) => (headers, None),
            None => (self.headers(), lock(&self.session).clone()),
        };
        let sent = self.server.send(Method::POST, &headers, session.as_ref(), body).await;
        sent.map_err(|error| CallError::Unreachable(error.probe_reason(), error.to_string()))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = with_types(HeaderMap::new());
        if let Some(revision) = lock(&self.revision).clone() {
            headers.insert(VERSION_HEADER, revision);
        }
        headers
    }

    pub(crate) async fn opened(&self, revision: &str, timeout: Duration) {
        *lock(&self.revision) = HeaderValue::from_str(revision).ok();
        let body = Bytes::from_static(INITIALIZED);
        // A server that is gone fails the next request.
        let _ = tokio::time::timeout(timeout, self.post(body)).await;
    }

    /// Tells the server that the session is over.
    pub(crate) async fn close(&self) {
        let Some(session) = lock(&self.session).clone() else { return };
        let headers = self.headers();
        let sent = self.server.send(Method::DELETE, &headers, Some(&session), Bytes::new());
        // Best effort: a server that failed the probe may not hear it.
        let _ = tokio::time::timeout(GOODBYE, sent).await;
    }
}

/// The headers of a request of the sessionless era; `None` for one of a session.
fn modern_headers(body: &Bytes) -> Option<HeaderMap> {
    let message = Message::parse(body).ok().filter(Message::is_modern)?;
    Head::of(&message).map(|head| with_types(headers_of(&head, None, None)))
}

fn with_types(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers
}
