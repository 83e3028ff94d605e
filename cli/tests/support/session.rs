//! One MCP session that a test holds open, and a view of the processes below `dev`.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its own part")]

use serde_json::{Value, json};

/// An open session. Its calls say what went wrong instead of failing the test: that is for the test to judge.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    url: String,
    id: String,
    calls: u64,
}

impl Session {
    /// Opens one at `url`.
    pub fn open(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::builder().timeout(super::PATIENCE).build().expect("a client");
        let mut session = Self { runtime, http, url: url.to_owned(), id: String::new(), calls: 0 };
        let opened = session.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}));
        let (id, _) = opened.expect("a session");
        session.id = id;
        session.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).expect("accepted");
        session
    }

    /// Calls a tool without arguments: the text that it answers.
    pub fn call(&mut self, tool: &str) -> Result<String, String> {
        self.calls += 1;
        let params = json!({"name": tool, "arguments": {}});
        let (_, body) =
            self.send(&json!({"jsonrpc": "2.0", "id": self.calls, "method": "tools/call", "params": params}))?;
        // A JSON body, or the last event of a stream.
        let message = body
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:").unwrap_or(line).trim()).ok());
        let message = message.unwrap_or_default();
        match (&message["result"]["isError"], message["result"]["content"][0]["text"].as_str()) {
            (Value::Null | Value::Bool(false), Some(text)) => Ok(text.to_owned()),
            _ => Err(body),
        }
    }

    /// POSTs `message`: the session id of the answer, and its body.
    fn send(&self, message: &Value) -> Result<(String, String), String> {
        let mut request =
            self.http.post(&self.url).header("accept", "application/json, text/event-stream").json(message);
        if !self.id.is_empty() {
            request = request.header("mcp-session-id", &self.id).header("mcp-protocol-version", "2025-11-25");
        }
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.text().await.map_err(|error| format!("{error:?}"))?;
            let id = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            if status.is_success() { Ok((id, body)) } else { Err(format!("{status} {body}")) }
        })
    }
}

/// Processes below `pid`, at any depth, with their state as `/proc` has it; `Z` is one that nobody waited for.
pub fn descendants(pid: i32) -> Vec<(i32, char)> {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let stat = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; what follows its last parenthesis is fixed.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((pid, state, fields.next()?.parse::<i32>().ok()?))
    };
    let all: Vec<_> = pids.filter_map(stat).collect();
    let mut found: Vec<(i32, char)> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for (child, state, _) in all.iter().filter(|(_, _, above)| *above == parent) {
            found.push((*child, *state));
            parents.push(*child);
        }
    }
    found
}
