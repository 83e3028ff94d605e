//! An HTTP server that ends every call's answer with a trailer which only a bridge may send, asked for or not.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Starts one; it ends with the test's runtime. Its events have a type in unusual case.
pub async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(BufReader::new(socket)));
        }
    });
    address
}

async fn answer(mut socket: BufReader<TcpStream>) {
    let body = body(&mut socket).await;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let ok = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let plain = |body: String| {
        let length = body.len();
        format!(
            "200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    let answer = match message["method"].as_str() {
        Some("initialize") => plain(ok(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "trailing", "version": "1"}}))),
        Some("tools/list") => plain(ok(json!({"tools": []}))),
        Some("tools/call") => {
            let event = format!("data: {}\n\n", ok(json!({"content": []})));
            let head = "content-type: Text/Event-Stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n";
            let tail = "0\r\nportolan-failure: Internal\r\n\r\n";
            format!("200 OK\r\n{head}connection: close\r\n\r\n{:x}\r\n{event}\r\n{tail}", event.len())
        }
        _ => "202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
    };
    // A bridge that hung up is not waiting for it.
    let _ = socket.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
}

/// The body of a request, by its length.
async fn body(socket: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.expect("a head");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.expect("a body");
    body
}
