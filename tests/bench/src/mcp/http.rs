//! A session over streamable HTTP, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use portolan_mcp::mac::{self, MacKey, Subject};
use portolan_mcp::revision::LATEST_LEGACY;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;

use super::reply::start;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Longest exchange; a call that is measured takes a thousandth of it.
const LIMIT: Duration = Duration::from_secs(30);

/// As whom a session is opened.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A client, with a bearer token or without.
    Client(Option<String>),
    /// A gateway, at a bridge's data port: it names the session and signs each request.
    Gateway(Arc<MacKey>),
}

pub(super) struct Lane {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    signer: Option<(Arc<MacKey>, SessionKey)>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Lane {
    pub(super) fn new(url: &Uri, caller: &Caller) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let mut signer = None;
        match caller {
            Caller::Client(Some(token)) => {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
            }
            Caller::Client(None) => {}
            Caller::Gateway(key) => {
                let session = SessionKey::generate().context("no session key")?;
                headers.insert(wire::SESSION, HeaderValue::from_str(session.as_str())?);
                signer = Some((key.clone(), session));
            }
        }
        Ok(Self { client, url: url.clone(), headers, signer })
    }

    pub(super) async fn initialize(&mut self, request: String) -> anyhow::Result<String> {
        let answer = self.exchange(Method::POST, request).await?;
        ensure!(answer.status == StatusCode::OK, "initialize: HTTP {}: {}", answer.status, start(&answer.body));
        if let Some(name) = answer.headers.get(SESSION) {
            self.headers.insert(SESSION, name.clone());
        }
        self.headers.insert(VERSION, HeaderValue::from_static(LATEST_LEGACY));
        Ok(answer.body)
    }

    pub(super) async fn request(&mut self, request: String) -> anyhow::Result<String> {
        let answer = self.exchange(Method::POST, request).await?;
        ensure!(answer.status == StatusCode::OK, "HTTP {}: {}", answer.status, start(&answer.body));
        Ok(answer.body)
    }

    pub(super) async fn notify(&mut self, notification: String) -> anyhow::Result<()> {
        let answer = self.exchange(Method::POST, notification).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "HTTP {}: {}", answer.status, start(&answer.body));
        Ok(())
    }

    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        let answer = self.exchange(Method::DELETE, String::new()).await?;
        ensure!(answer.status.is_success(), "DELETE: HTTP {}: {}", answer.status, start(&answer.body));
        Ok(())
    }

    async fn exchange(&mut self, method: Method, body: String) -> anyhow::Result<Answer> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(mac) = self.sign(&method)? {
            request.headers_mut().insert(mac::HEADER, mac);
        }
        *request.method_mut() = method;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8(body.into()).context("the body is not UTF-8")?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {LIMIT:?}"),
        }
    }

    fn sign(&self, method: &Method) -> anyhow::Result<Option<HeaderValue>> {
        let Some((key, session)) = &self.signer else { return Ok(None) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().try_into()?;
        let subject = Subject { method: method.as_str(), path: self.url.path(), session: session.as_str(), pod: "" };
        Ok(Some(HeaderValue::from_str(&key.sign(subject, now))?))
    }
}
