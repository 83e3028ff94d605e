//! A client that shows the wire: status, headers and body of each exchange, nothing retried.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// The Host that every gateway answers to: a replica is reached by an address that nobody lists.
const HOST: &str = "localhost";

/// The revision without sessions.
pub const MODERN: &str = "2026-07-28";

/// One legacy conversation with an endpoint.
#[derive(Clone, Debug)]
pub struct Session {
    http: Client,
    url: String,
    token: Option<String>,
    id: String,
}

/// Why there is no session.
#[derive(Debug)]
pub enum Unopened {
    /// The exchange failed below HTTP.
    BrokeOff(reqwest::Error),
    /// What came instead.
    Refused(StatusCode, String),
}

/// What came back, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The JSON-RPC messages: one of a JSON body, or each event's.
    pub messages: Vec<Value>,
}

impl Reply {
    /// Reads a response to its end.
    ///
    /// # Panics
    /// The body is neither empty, JSON nor an event stream of JSON.
    pub async fn read(response: Response) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        let is_stream =
            headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        let text = response.text().await.expect("the body arrives");
        let messages = if is_stream {
            text.lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim)
                .filter(|data| !data.is_empty())
                .map(parse)
                .collect()
        } else if text.is_empty() {
            Vec::new()
        } else {
            vec![parse(&text)]
        };
        Self { status, headers, messages }
    }

    /// The last message: the answer.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn answer(&self) -> &Value {
        self.messages.last().expect("an answer")
    }
}

/// The messages of an event stream, as they come.
pub struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// Of a response whose body is an event stream.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn of(response: Response) -> Self {
        let type_ = response.headers().get("content-type").cloned();
        let is_stream = type_.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        assert!(is_stream, "an event stream: {} {:?}", response.status(), response.headers());
        Self { response, text: String::new() }
    }

    /// Reads until a message satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// The stream ended or broke before.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let message = line.strip_prefix("data:").map(str::trim).filter(|data| !data.is_empty()).map(parse);
                self.text = rest.to_owned();
                if let Some(message) = message.filter(&wanted) {
                    return Ok(message);
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
                Err(error) => return Err(format!("{error:?}")),
                Ok(None) => return Err(format!("the stream ended; what is left: {:?}", self.text)),
            }
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// A plain HTTP client with a bound on every exchange.
///
/// # Panics
/// It cannot be made.
#[must_use]
pub fn http() -> Client {
    // Built with everything else, the client can do TLS and wants to know whose. It is taken once, and the same one again.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(60)).build().expect("a client")
}

/// POSTs one message without a session.
///
/// # Errors
/// The exchange failed below HTTP.
pub async fn post(http: &Client, url: &str, token: Option<&str>, message: &Value) -> reqwest::Result<Response> {
    request(http, url, token, message.to_string()).send().await
}

/// POSTs one message of the revision without sessions, with what it and its headers must say beyond what `message` says.
///
/// # Errors
/// The exchange failed below HTTP.
pub async fn post_alone(
    http: &Client,
    url: &str,
    token: Option<&str>,
    mut message: Value,
) -> reqwest::Result<Response> {
    alone(&mut message);
    let text = message.to_string();
    post_text_alone(http, url, token, &message, text).await
}

/// Adds what a message says of itself in the revision without sessions.
pub fn alone(message: &mut Value) {
    let meta = &mut message["params"]["_meta"];
    meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
}

/// POSTs a text whose headers say what `message` says, in the revision without sessions.
///
/// # Errors
/// The exchange failed below HTTP.
pub async fn post_text_alone(
    http: &Client,
    url: &str,
    token: Option<&str>,
    message: &Value,
    body: String,
) -> reqwest::Result<Response> {
    request_alone(http, url, token, message, body).send().await
}

/// Opens a stream of what changes, in the revision without sessions, for longer than an exchange may take.
///
/// # Errors
/// The exchange failed below HTTP.
pub async fn listen_alone(http: &Client, url: &str, token: Option<&str>, limit: Duration) -> reqwest::Result<Response> {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": wanted});
    alone(&mut message);
    request_alone(http, url, token, &message, message.to_string()).timeout(limit).send().await
}

fn request_alone(http: &Client, url: &str, token: Option<&str>, message: &Value, body: String) -> RequestBuilder {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = request(http, url, token, body)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", text(&message["method"]));
    let params = &message["params"];
    match params.get("name").or(params.get("uri")) {
        Some(name) => request.header("mcp-name", text(name)),
        None => request,
    }
}

fn request(http: &Client, url: &str, token: Option<&str>, body: String) -> RequestBuilder {
    let request = with_body(http.post(url), body).header("host", HOST);
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

fn with_body(request: RequestBuilder, body: String) -> RequestBuilder {
    request
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body)
}

/// The `initialize` request.
#[must_use]
pub fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}},
        "clientInfo": {"name": "portolan-tests", "version": "1"}}})
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// The reply that was not a session.
    pub async fn open(url: &str, token: Option<&str>) -> Result<Self, String> {
        Self::begin(&http(), url, token).await.map_err(|unopened| match unopened {
            Unopened::BrokeOff(error) => error.to_string(),
            Unopened::Refused(status, text) => format!("no session: {status} {text}"),
        })
    }

    /// The same over connections of `http`, for whoever asks how it failed.
    ///
    /// # Errors
    /// The exchange failed, or the reply was not a session.
    pub async fn begin(http: &Client, url: &str, token: Option<&str>) -> Result<Self, Unopened> {
        let response = post(http, url, token, &initialize()).await.map_err(Unopened::BrokeOff)?;
        let id = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let status = response.status();
        let text = response.text().await.map_err(Unopened::BrokeOff)?;
        let Some(id) = id else { return Err(Unopened::Refused(status, text)) };
        let session = Self { http: http.clone(), url: url.to_owned(), token: token.map(str::to_owned), id };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let done = session.exchange(initialized).await.map_err(Unopened::BrokeOff)?;
        match done.status() {
            StatusCode::ACCEPTED => Ok(session),
            other => Err(Unopened::Refused(other, done.text().await.unwrap_or_default())),
        }
    }

    /// The same session seen by another replica's URL.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same session over connections of its own.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { http: http(), ..self.clone() }
    }

    /// The session id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// POSTs a message of the session.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn send(&self, message: &Value) -> Result<Response, String> {
        self.send_text(message.to_string()).await
    }

    /// POSTs a text where a message of the session is expected.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn send_text(&self, text: String) -> Result<Response, String> {
        self.exchange(text).await.map_err(|error| format!("{error:?}"))
    }

    /// The same, for whoever asks how an exchange failed.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn exchange(&self, text: String) -> reqwest::Result<Response> {
        with_body(self.with_headers(self.http.post(&self.url)), text).send().await
    }

    /// Calls a tool and reads the reply to its end.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn call(&self, id: u64, tool: &str, arguments: Value) -> Result<Reply, String> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        Ok(Reply::read(self.send(&message).await?).await)
    }

    /// Opens the session's GET stream.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn listen(&self) -> Result<Response, String> {
        self.stream().send().await.map_err(|error| error.to_string())
    }

    /// Opens the session's GET stream for longer than an exchange may take.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn listen_for(&self, limit: Duration) -> reqwest::Result<Response> {
        self.stream().timeout(limit).send().await
    }

    fn stream(&self) -> RequestBuilder {
        self.with_headers(self.http.get(&self.url)).header("accept", "text/event-stream")
    }

    /// Ends the session.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn delete(&self) -> Result<Response, String> {
        self.finish().await.map_err(|error| error.to_string())
    }

    /// The same, for whoever asks how an exchange failed.
    ///
    /// # Errors
    /// The exchange failed below HTTP.
    pub async fn finish(&self) -> reqwest::Result<Response> {
        self.with_headers(self.http.delete(&self.url)).send().await
    }

    fn with_headers(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request
            .header("host", HOST)
            .header("mcp-session-id", &self.id)
            .header("mcp-protocol-version", "2025-11-25");
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}
