//! A client of a bridge: its session, its calls, and the streams that answer them.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::sse::Decoder;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;
use serde_json::{Value, json};

use super::{Header, PATIENCE, Reply, Rig};

/// A client's session.
pub struct Client<'r> {
    pub rig: &'r Rig,
    pub key: SessionKey,
}

impl Client<'_> {
    pub async fn initialize(&self) -> Reply {
        self.initialize_with(&[]).await
    }

    /// Opens a session that counts as one of `caller`.
    pub async fn initialize_for(&self, caller: &SessionKey) -> Reply {
        self.initialize_with(&[(wire::CALLER, caller.as_str().to_owned())]).await
    }

    pub async fn initialize_with(&self, headers: &[Header]) -> Reply {
        let info = json!({"name": "test", "version": "1"});
        let capabilities = json!({"sampling": {}, "elicitation": {}});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info});
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.post_with(&initialize, headers).await
    }

    pub async fn post(&self, message: &Value) -> Reply {
        self.post_with(message, &[]).await
    }

    pub async fn post_with(&self, message: &Value, headers: &[Header]) -> Reply {
        let body = Bytes::from(message.to_string());
        let mut headers = headers.to_vec();
        if message["method"] != "initialize" {
            headers.push((VERSION_HEADER, "2025-11-25".to_owned()));
        }
        self.rig.request(Method::POST, self.rig.data, wire::DATA_PATH, self.key.as_str(), Some(body), &headers).await
    }

    pub async fn call(&self, id: u64, tool: &str, arguments: Value) -> Reply {
        self.call_within(id, tool, arguments, None).await
    }

    pub async fn call_within(&self, id: u64, tool: &str, arguments: Value, millis: Option<u64>) -> Reply {
        let params = json!({"name": tool, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let headers: Vec<_> = millis.map(|millis| (wire::TIMEOUT, millis.to_string())).into_iter().collect();
        self.post_with(&message, &headers).await
    }

    pub async fn delete(&self) -> Reply {
        self.rig.request(Method::DELETE, self.rig.data, wire::DATA_PATH, self.key.as_str(), None, &[]).await
    }

    /// Starts a call and returns with the head of its answer.
    pub async fn start(&self, id: u64, tool: &str, headers: &[Header]) -> http::Response<Incoming> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}});
        let body = Bytes::from(message.to_string());
        self.rig.send(Method::POST, self.rig.data, wire::DATA_PATH, self.key.as_str(), Some(body), headers).await
    }

    /// Opens the standing stream, whose bytes are of interest.
    pub async fn stream(&self, headers: &[Header]) -> http::Response<Incoming> {
        self.rig.send(Method::GET, self.rig.data, wire::DATA_PATH, self.key.as_str(), None, headers).await
    }

    /// Opens the standing stream.
    pub async fn listen(&self) -> Listener {
        self.listen_after(None).await
    }

    pub async fn listen_after(&self, last: Option<&str>) -> Listener {
        let headers: Vec<_> =
            last.map(|last| (HeaderName::from_static("last-event-id"), last.to_owned())).into_iter().collect();
        let response =
            self.rig.send(Method::GET, self.rig.data, wire::DATA_PATH, self.key.as_str(), None, &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        Listener::new(response.into_body())
    }
}

/// A stream of events.
pub struct Listener {
    body: Incoming,
    decoder: Decoder,
    ready: Vec<Value>,
}

impl Listener {
    pub fn new(body: Incoming) -> Self {
        Self { body, decoder: Decoder::new(1 << 20), ready: Vec::new() }
    }

    /// The next message; `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("in time")
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.ready.remove(0));
            }
            let frame = self.body.frame().await?;
            let data = frame.expect("whole").into_data().expect("data");
            let events = self.decoder.push(&data).expect("events");
            self.ready.extend(messages_of(&events));
        }
    }
}

/// The next bytes of a stream; `None` when it ended.
pub async fn chunk(stream: &mut http::Response<Incoming>) -> Option<String> {
    let frame = tokio::time::timeout(PATIENCE, stream.body_mut().frame()).await.expect("in time")?;
    Some(String::from_utf8(frame.expect("whole").into_data().expect("data").to_vec()).expect("text"))
}

/// The messages of `events`; one without data only names the place to resume from.
pub fn messages_of(events: &[Vec<u8>]) -> Vec<Value> {
    let full = events.iter().filter(|event| !event.is_empty());
    full.map(|event| serde_json::from_slice(event).expect("JSON")).collect()
}
