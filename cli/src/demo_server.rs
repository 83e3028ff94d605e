//! `portolan demo-server`: the MCP server of the quickstart, on standard input and output. It needs nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_mcp::revision::{LATEST_LEGACY, is_legacy};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::exit::Failure;

/// Longest time that `slow` takes.
const SLOWEST: u64 = 300;

/// Answers until standard input ends.
pub(crate) async fn run() -> Result<(), Failure> {
    let (out, mut lines) = mpsc::channel::<Value>(64);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(message) = lines.recv().await {
            let line = format!("{message}\n");
            if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                break;
            }
        }
    });
    let server = Arc::new(Server { out, asked: Mutex::default(), calls: Mutex::default() });
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = input.next_line().await {
        server.receive(&line).await;
    }
    // Calls still under way have nobody to answer to.
    writer.abort();
    Ok(())
}

struct Server {
    out: mpsc::Sender<Value>,
    /// Questions to the client that are still open, by id.
    asked: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// Calls under way, by id as JSON text.
    calls: Mutex<HashMap<String, AbortHandle>>,
}

impl Server {
    async fn receive(self: &Arc<Self>, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            let error = json!({"code": -32700, "message": "a line is one JSON-RPC message"});
            return self.send(json!({"jsonrpc": "2.0", "id": null, "error": error})).await;
        };
        match (message["method"].as_str(), message.get("id")) {
            (Some(method), Some(id)) => self.request(method, id.clone(), message["params"].clone()).await,
            (Some("notifications/cancelled"), None) => self.cancel(&message["params"]["requestId"]),
            (Some(_), None) => {}
            (None, id) => self.answer(id, &message),
        }
    }

    async fn request(self: &Arc<Self>, method: &str, id: Value, params: Value) {
        let answer = match method {
            "initialize" => Ok(initialized(&params)),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(json!({"tools": tools()})),
            "tools/call" => return self.start_call(id, params),
            _ => Err(json!({"code": -32601, "message": format!("there is no method {method}")})),
        };
        self.reply(id, answer).await;
    }

    /// A call runs beside others: a slow one holds up nothing.
    fn start_call(self: &Arc<Self>, id: Value, params: Value) {
        let (server, key) = (self.clone(), id.to_string());
        // Held until the call is known, so that even the quickest one finds itself.
        let mut calls = lock(&self.calls);
        let task = tokio::spawn(async move {
            let answer = server.call(&params).await;
            lock(&server.calls).remove(&id.to_string());
            server.reply(id, answer).await;
        });
        calls.insert(key, task.abort_handle());
    }

    fn cancel(&self, id: &Value) {
        if let Some(call) = lock(&self.calls).remove(&id.to_string()) {
            call.abort();
        }
    }

    async fn call(&self, params: &Value) -> Result<Value, Value> {
        let arguments = &params["arguments"];
        match params["name"].as_str().unwrap_or_default() {
            "echo" => Ok(text(&format!("Echo: {}", string(arguments, "message")?))),
            "get-sum" => {
                let (a, b) = (number(arguments, "a")?, number(arguments, "b")?);
                Ok(text(&format!("The sum of {a} and {b} is {}.", a + b)))
            }
            "slow" => Ok(self.slow(arguments, &params["_meta"]["progressToken"]).await),
            "ask" => self.ask(string(arguments, "question")?).await,
            name => Err(invalid(&format!("there is no tool {name}"))),
        }
    }

    async fn slow(&self, arguments: &Value, token: &Value) -> Value {
        let seconds = arguments["seconds"].as_u64().unwrap_or(3).min(SLOWEST);
        for second in 1..=seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if !token.is_null() {
                let params = json!({"progressToken": token, "progress": second, "total": seconds});
                self.send(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
            }
        }
        text(&format!("Done after {seconds} s."))
    }

    /// Asks the person at the client, by elicitation.
    async fn ask(&self, question: &str) -> Result<Value, Value> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut asked = lock(&self.asked);
            let free = (0..=asked.len()).map(|n| format!("ask-{n}")).find(|id| !asked.contains_key(id));
            let id = free.unwrap_or_default();
            asked.insert(id.clone(), answer);
            id
        };
        let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
        let params = json!({"mode": "form", "message": question, "requestedSchema": schema});
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params})).await;
        let message = answered.await.map_err(|_| invalid("the client went away"))?;
        match (message["result"]["action"].as_str(), message["result"]["content"]["answer"].as_str()) {
            (Some("accept"), Some(answer)) => Ok(text(&format!("The answer is: {answer}"))),
            (Some(action), _) => Ok(text(&format!("No answer: {action}."))),
            (None, _) => Ok(json!({
                "content": [{"type": "text", "text": format!("The client cannot be asked: {}", message["error"]["message"])}],
                "isError": true
            })),
        }
    }

    fn answer(&self, id: Option<&Value>, message: &Value) {
        let waiting = id.and_then(Value::as_str).and_then(|id| lock(&self.asked).remove(id));
        if let Some(waiting) = waiting {
            // The call that asked may have been cancelled since.
            let _ = waiting.send(message.clone());
        }
    }

    async fn reply(&self, id: Value, answer: Result<Value, Value>) {
        self.send(match answer {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
        })
        .await;
    }

    async fn send(&self, message: Value) {
        // The writer ends with the client; there is nobody left to tell.
        let _ = self.out.send(message).await;
    }
}

fn initialized(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    json!({
        "protocolVersion": if is_legacy(asked) { asked } else { LATEST_LEGACY },
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "portolan-quickstart", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": name, "description": description, "inputSchema": schema})
    };
    json!([
        tool("echo", "Says the message back", json!({"message": {"type": "string"}}), &["message"]),
        tool("get-sum", "Adds two numbers", json!({"a": {"type": "number"}, "b": {"type": "number"}}), &["a", "b"]),
        tool(
            "slow",
            "Takes some seconds and reports progress",
            json!({"seconds": {"type": "integer", "minimum": 0, "maximum": SLOWEST, "default": 3}}),
            &[]
        ),
        tool("ask", "Asks the person at the client", json!({"question": {"type": "string"}}), &["question"]),
    ])
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn string<'a>(arguments: &'a Value, name: &str) -> Result<&'a str, Value> {
    arguments[name].as_str().ok_or_else(|| invalid(&format!("{name} must be a string")))
}

fn number(arguments: &Value, name: &str) -> Result<f64, Value> {
    arguments[name].as_f64().ok_or_else(|| invalid(&format!("{name} must be a number")))
}

fn invalid(message: &str) -> Value {
    json!({"code": -32602, "message": message})
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
