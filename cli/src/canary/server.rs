//! `portolan canary serve`: an MCP server, on standard input and output, that has the document and a tool that reads it out.

use bytes::Bytes;
use portolan_mcp::canary::{MAX_TICKET, NAME, URI, WithDocument, batch, document, ticket_of};
use portolan_mcp::revision::{Era, LATEST_LEGACY, is_legacy};
use portolan_mcp::translate::Step;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Stdout};

use crate::exit::Failure;

/// The tool.
pub(super) const TOOL: &str = "saint-anthony";

/// Answers until standard input ends.
pub(super) async fn run() -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    let mut resources = WithDocument::new(Era::Legacy);
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = input.next_line().await {
        let mut steps = Vec::new();
        if resources.client_message(&Bytes::from(line), &mut steps).is_err() {
            let error = json!({"code": -32700, "message": "a line is one JSON-RPC message"});
            steps.push(Step::ToClient(json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string().into()));
        }
        let mut answers = Vec::new();
        for step in steps {
            match step {
                Step::ToServer(message) => {
                    if let Some(answer) = answer(&message) {
                        // What is made here is a message.
                        let _ = resources.server_message(&Bytes::from(answer.to_string()), &mut answers);
                    }
                }
                other => answers.push(other),
            }
        }
        for step in answers {
            if let Step::ToClient(answer) = step
                && say(&mut stdout, &answer).await.is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn say(stdout: &mut Stdout, line: &[u8]) -> std::io::Result<()> {
    stdout.write_all(line).await?;
    stdout.write_all(b"\n").await?;
    stdout.flush().await
}

/// What is answered to anything but a question about resources.
fn answer(message: &[u8]) -> Option<Value> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let id = message.get("id")?;
    let params = &message["params"];
    let result = match message["method"].as_str()? {
        "initialize" => Ok(initialized(params)),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": [tool()]})),
        "tools/call" if params["name"] == TOOL => called(&params["arguments"]),
        "tools/call" => Err((-32602, format!("there is no tool {}", params["name"]))),
        method => Err((-32601, format!("there is no method {method}"))),
    };
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    })
}

fn initialized(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    json!({
        "protocolVersion": if is_legacy(asked) { asked } else { LATEST_LEGACY },
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "portolan-canary", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn tool() -> Value {
    let ticket = json!({"type": "string", "maxLength": MAX_TICKET, "description": "Whom the answer is for"});
    json!({
        "name": TOOL,
        "description": format!("What is to be known about {NAME}"),
        "inputSchema": {"type": "object", "properties": {"ticket": ticket}, "required": ["ticket"]},
        "annotations": {"readOnlyHint": true, "idempotentHint": true},
    })
}

fn called(arguments: &Value) -> Result<Value, (i32, String)> {
    let ticket = arguments["ticket"].as_str().unwrap_or_default();
    if ticket_of(&format!("{URI}/{ticket}")).is_none_or(str::is_empty) {
        let message = format!("ticket must be a string of up to {MAX_TICKET} letters, digits, '-', '_' and '.'");
        return Err((-32602, message));
    }
    Ok(json!({
        "content": [{"type": "text", "text": document(ticket)}],
        "structuredContent": {"ticket": ticket, "batch": batch(ticket)},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, params: &Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        answer(message.to_string().as_bytes()).expect("an answer")
    }

    #[test]
    fn the_tool_reads_the_document_out() {
        assert_eq!(ask("tools/list", &json!({}))["result"]["tools"][0]["name"], "saint-anthony");
        let answer = ask("tools/call", &json!({"name": TOOL, "arguments": {"ticket": "t-1"}}));
        assert_eq!(answer["result"]["content"][0]["text"], document("t-1"));
        assert_eq!(answer["result"]["structuredContent"]["batch"], batch("t-1"));
    }

    #[test]
    fn what_it_is_not_asked_rightly_says_what_to_write() {
        for arguments in [json!({}), json!({"ticket": ""}), json!({"ticket": "a b"}), json!({"ticket": 7})] {
            let answer = ask("tools/call", &json!({"name": TOOL, "arguments": arguments}));
            let message = answer["error"]["message"].as_str().expect("an error");
            assert!(message.contains("ticket must be a string of up to 64 letters"), "{message}");
        }
        assert_eq!(ask("prompts/list", &json!({}))["error"]["code"], -32601);
    }
}
