//! `portolan-visitor URL`: uses everything that a server at a URL offers, through `portolan dev`, in the other era than the
//! server's. So whatever reaches the server, a bridge wrote: it is the client that the conformance suite looks at.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::mcp::{self, Events, MODERN, Session};
use serde_json::{Value, json};

const SERVER: &str = "elsewhere";
/// Lists that are looked at, the member of a result that holds each, how an item of it is asked for, and by which member.
const LISTS: [(&str, &str, &str, &str); 3] = [
    ("tools/list", "tools", "tools/call", "name"),
    ("resources/list", "resources", "resources/read", "uri"),
    ("prompts/list", "prompts", "prompts/get", "name"),
];

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("the server's URL");
    let revision = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").expect("the suite names a revision");
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_else(|_| "{}".into());
    let context: Value = serde_json::from_str(&context).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": SERVER},
        "spec": {"remote": {"url": url}}});
    std::fs::write(folder.path().join("server.yaml"), manifest.to_string()).expect("written");
    let mut dev = Dev::start(folder.path());
    let here = dev.ready(SERVER).await;
    let client = match &*revision {
        MODERN => Client::InSession(Session::open(&here, None).await.expect("a session")),
        _ => Client::Alone(mcp::http(), here),
    };
    Visit { client, last: 0 }.everything(&context["toolCalls"]).await;
    assert!(dev.end(Signal::SIGTERM).await.success());
}

/// A client of either era.
enum Client {
    InSession(Session),
    Alone(reqwest::Client, String),
}

struct Visit {
    client: Client,
    /// The id of the last request.
    last: u64,
}

impl Visit {
    /// Lists everything and asks for each item, for tools as `calls` say where they do.
    async fn everything(&mut self, calls: &Value) {
        for (list, member, method, key) in LISTS {
            let found = self.ask(list, json!({})).await;
            let items = found["result"][member].as_array().cloned().unwrap_or_default();
            let calls = calls.as_array().filter(|_| member == "tools");
            let asked: Vec<Value> = match calls {
                Some(calls) => calls.clone(),
                None => items.iter().map(|item| asking(item, key, &items)).collect(),
            };
            for params in asked {
                self.ask(method, params).await;
            }
        }
    }

    /// The answer to a request.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let message = json!({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params});
        let response = self.client.send(message).await;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return response.json().await.expect("JSON");
        }
        let mut events = Events::of(response);
        loop {
            let is_next = |message: &Value| message["id"] == self.last || message["method"].is_string();
            let message = events.until(is_next).await.expect("an answer");
            if message["method"].is_null() {
                return message;
            }
            if !message["id"].is_null() {
                // Whatever its user is asked, it is fine.
                let result = json!({"action": "accept", "content": {"confirmed": true}});
                self.client.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).await;
            }
        }
    }
}

impl Client {
    async fn send(&self, mut message: Value) -> reqwest::Response {
        match self {
            Self::InSession(session) => session.send(&message).await.expect("an answer"),
            Self::Alone(http, url) => {
                let info = json!({"name": "portolan-visitor", "version": "1"});
                message["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = info;
                mcp::post_alone(http, url, None, message).await.expect("an answer")
            }
        }
    }
}

/// What asks for `item`, one of `items`: its arguments are the least that its schema lets pass.
fn asking(item: &Value, key: &str, items: &[Value]) -> Value {
    let mut params = json!({ key: item[key] });
    if let Some(wanted) = item["arguments"].as_array() {
        let text = |argument: &Value| (argument["name"].as_str().unwrap_or_default().to_owned(), json!("x"));
        params["arguments"] = wanted.iter().map(text).collect::<serde_json::Map<_, _>>().into();
    }
    if let Some(properties) = item["inputSchema"]["properties"].as_object() {
        let least = |(name, schema): (&String, &Value)| {
            let value = match schema["type"].as_str() {
                Some("number" | "integer") => json!(1),
                Some("boolean") => json!(true),
                // A tool that takes a schema gets that of the tool beside it, as it came.
                Some("object") => items.first().map_or(json!({}), |other| other["inputSchema"].clone()),
                _ => json!("x"),
            };
            (name.clone(), value)
        };
        params["arguments"] = properties.iter().map(least).collect::<serde_json::Map<_, _>>().into();
    }
    params
}
