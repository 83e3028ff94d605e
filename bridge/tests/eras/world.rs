//! A bridge in front of a server of one era, and a client of the sessionless one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use portolan_mcp::modern::{METHOD_HEADER, NAME_HEADER, VERSION_HEADER};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;
use serde_json::{Value, json};

use crate::common::{Header, Listener, Reply, Rig, until};

pub(crate) const REVISION: &str = "2026-07-28";

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Pipes,
    Http,
}

pub(crate) const BOTH: [Over; 2] = [Over::Pipes, Over::Http];

/// A bridge in front of a server.
pub(crate) struct World {
    pub(crate) rig: Rig,
    server: Mutex<Option<Server>>,
}

impl World {
    /// The server `script`, reached over `over`, behind a bridge that is ready.
    pub(crate) async fn start(over: Over, script: &str, flags: &[&str]) -> Self {
        let (rig, server) = match over {
            Over::Pipes => (Rig::start(flags, &command(script)), None),
            Over::Http => {
                let server = Server::start(script, 0);
                (Rig::http(flags, &server.url), Some(server))
            }
        };
        rig.until_ready().await;
        Self { rig, server: Mutex::new(server) }
    }

    /// A caller of its own.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let key = SessionKey::generate().expect("random");
        Caller { rig: &self.rig, key, capabilities: json!({"elicitation": {}}), name: "test" }
    }

    /// Has `script` in the place of the server over HTTP, as a new deployment of it.
    pub(crate) fn replace(&self, script: &str) {
        let mut server = self.server.lock().unwrap();
        let port = server.take().expect("a server over HTTP").port;
        *server = Some(Server::start(script, port));
    }

    /// How often the server said `text`.
    pub(crate) fn times_said(&self, text: &str) -> usize {
        let server = self.server.lock().unwrap();
        let log = server.as_ref().map_or(&self.rig.log, |server| &server.log);
        // What comes over pipes is a string within JSON.
        log.lock().unwrap().replace("\\\"", "\"").matches(text).count()
    }

    /// Waits until the server said `text`.
    pub(crate) async fn said(&self, text: &str) {
        until(&format!("the server says {text:?}"), async || self.times_said(text) > 0).await;
    }
}

fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/servers/{name}.py")).display().to_string()
}

fn command(name: &str) -> Vec<String> {
    vec!["python3".into(), script(name)]
}

/// A server over HTTP; it ends with this.
struct Server {
    child: Child,
    port: u16,
    url: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it on `port`; 0 is any.
    fn start(name: &str, port: u16) -> Self {
        let mut child = Command::new("python3")
            .args([&script(name), "--http"])
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let first = lines.next().expect("it says where it listens").expect("text");
        let port = first.strip_prefix("listening on ").and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("{first}"));
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, port, url: format!("http://127.0.0.1:{port}/mcp"), log }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client without a session.
#[derive(Clone)]
pub(crate) struct Caller<'r> {
    pub(crate) rig: &'r Rig,
    pub(crate) key: SessionKey,
    pub(crate) capabilities: Value,
    pub(crate) name: &'static str,
}

impl Caller<'_> {
    /// Another client of the same caller, which can do something else.
    pub(crate) fn able(&self, capabilities: Value) -> Self {
        Self { capabilities, ..self.clone() }
    }

    /// The head of what comes of a request; `params` may hold members of `_meta`.
    pub(crate) async fn start(&self, id: impl Into<Value>, method: &str, params: Value) -> http::Response<Incoming> {
        self.start_with(id, method, params, &[]).await
    }

    pub(crate) async fn start_with(
        &self,
        id: impl Into<Value>,
        method: &str,
        mut params: Value,
        more: &[Header],
    ) -> http::Response<Incoming> {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = REVISION.into();
        params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": self.name, "version": "1"});
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        let mut headers = vec![(VERSION_HEADER, REVISION.to_owned()), (METHOD_HEADER, method.to_owned())];
        let name = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(str::to_owned);
        headers.extend(name.map(|name| (NAME_HEADER, name)));
        headers.extend_from_slice(more);
        let body = json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params});
        let body = Bytes::from(body.to_string());
        self.rig.send(Method::POST, self.rig.data, wire::DATA_PATH, self.key.as_str(), Some(body), &headers).await
    }

    pub(crate) async fn ask(&self, id: impl Into<Value>, method: &str, params: Value) -> Reply {
        Reply::of(self.start(id, method, params).await).await
    }

    pub(crate) async fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Reply {
        self.ask(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Begins `wait`, with the progress token `token`.
    pub(crate) async fn wait(&self, id: &str, name: &str, token: &str) -> http::Response<Incoming> {
        let params = json!({"name": "wait", "arguments": {"name": name}, "_meta": {"progressToken": token}});
        self.start(id, "tools/call", params).await
    }

    /// Makes a call again with what its user was asked for.
    pub(crate) async fn come_back(&self, id: impl Into<Value>, tool: &str, state: &Value, answers: Value) -> Reply {
        let params = json!({"name": tool, "arguments": {}, "requestState": state, "inputResponses": answers});
        self.ask(id, "tools/call", params).await
    }

    /// Opens a stream of notifications, whose beginning is given too.
    pub(crate) async fn listen(&self, id: &str, wanted: Value) -> (Listener, Value) {
        let response = self.start(id, "subscriptions/listen", json!({"notifications": wanted})).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut listener = Listener::new(response.into_body());
        let begun = listener.next().await.expect("an acknowledgement");
        assert_eq!(begun["method"], "notifications/subscriptions/acknowledged", "{begun}");
        (listener, begun)
    }
}

/// Which subscription a notification names.
pub(crate) fn subscription(message: &Value) -> &Value {
    let of_message = message.get("params").or(message.get("result")).expect("parameters or a result");
    &of_message["_meta"]["io.modelcontextprotocol/subscriptionId"]
}

/// The code of an error.
pub(crate) fn code(reply: &Reply) -> i64 {
    let answer = reply.messages.last().expect("an answer");
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error in {answer}"))
}

/// The text of a tool's result, which is JSON.
pub(crate) fn told(reply: &Reply) -> Value {
    serde_json::from_str(reply.text()).expect("JSON")
}
