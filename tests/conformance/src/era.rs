//! A server of one era only: what comes in the other is refused as such a server refuses it.

use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

const MODERN: &str = "2026-07-28";
/// Messages on their way between the process's pipes and the server.
const BUFFER: usize = 1024 * 1024;

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Era {
    /// Revisions with `initialize`.
    Legacy,
    /// Revisions without sessions.
    Modern,
    /// All.
    Both,
}

impl Era {
    /// The answer to an HTTP request of the other era.
    pub(crate) fn refuse<E>(self, headers: &HeaderMap) -> Option<Response<BoxBody<Bytes, E>>> {
        let is_modern = headers.get("mcp-protocol-version").is_some_and(|version| version == MODERN);
        let (code, message) = match self {
            Self::Legacy if is_modern => (-32000, "Bad Request: Server not initialized"),
            Self::Modern if !is_modern => (-32020, "MCP-Protocol-Version must be 2026-07-28"),
            _ => return None,
        };
        let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}});
        let body = Full::new(Bytes::from(error.to_string())).map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Some(response)
    }

    /// The answer to a message over pipes of the other era.
    fn refuse_line(self, line: &str) -> Option<String> {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_modern = message["params"]["_meta"].get("io.modelcontextprotocol/protocolVersion").is_some();
        let refuses = match self {
            Self::Legacy => is_modern,
            Self::Modern => message["method"] == "initialize",
            Self::Both => false,
        };
        let id = message.get("id").filter(|_| refuses)?;
        let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}});
        Some(error.to_string())
    }

    /// Pipes to a server that hears only what is of this era.
    pub(crate) fn pipes(self) -> (DuplexStream, DuplexStream) {
        let (mut to_server, server_reads) = duplex(BUFFER);
        let (server_writes, from_server) = duplex(BUFFER);
        let (refusals, mut refused) = tokio::sync::mpsc::channel::<String>(64);
        tokio::spawn(async move {
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match self.refuse_line(&line) {
                    Some(refusal) => drop(refusals.send(refusal).await),
                    None if to_server.write_all(format!("{line}\n").as_bytes()).await.is_err() => return,
                    None => {}
                }
            }
        });
        tokio::spawn(async move {
            let mut lines = BufReader::new(from_server).lines();
            let mut stdout = tokio::io::stdout();
            loop {
                let line = tokio::select! {
                    Some(refusal) = refused.recv() => refusal,
                    line = lines.next_line() => match line {
                        Ok(Some(line)) => line,
                        _ => return,
                    },
                };
                if stdout.write_all(format!("{line}\n").as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                    return;
                }
            }
        });
        (server_reads, server_writes)
    }
}
