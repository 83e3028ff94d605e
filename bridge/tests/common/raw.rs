//! An HTTP server whose answers to calls are bytes that a test wrote, whether they are HTTP or not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens after the bytes.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// The connection is closed.
    Close,
    /// It is reset.
    Reset,
    /// Nothing, until the other side goes.
    Hold,
    /// An `x` comes now and then, until the other side goes.
    Drip,
}

/// A running server; it ends with the test's runtime.
pub struct Raw {
    pub address: SocketAddr,
    /// What every call is answered with from now on.
    pub calls: watch::Sender<(String, End)>,
    connections: Arc<AtomicUsize>,
}

impl Raw {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (calls, connections) = (watch::Sender::new((String::new(), End::Close)), Arc::<AtomicUsize>::default());
        let (told, counted) = (calls.subscribe(), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let told = told.clone();
                // A bridge that hung up is not waiting for an answer.
                tokio::spawn(async move { drop(answer(BufReader::new(socket), told).await) });
            }
        });
        Self { address, calls, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Connections that were ever opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// An answer whose length is said.
pub fn whole(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The beginning of a stream of events; what follows comes in chunks.
pub fn events(kind: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
}

/// One chunk.
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn answer(mut socket: BufReader<TcpStream>, told: watch::Receiver<(String, End)>) -> std::io::Result<()> {
    let body = body(&mut socket).await?;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"}}),
        Some("server/discover") => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}),
        Some("tools/list") => json!({"tools": []}),
        Some("tools/call") => {
            let (bytes, end) = told.borrow().clone();
            return say(socket, &bytes, end).await;
        }
        _ => return say(socket, &whole("202 Accepted", "text/plain", ""), End::Close).await,
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    say(socket, &whole("200 OK", "application/json", &answer), End::Close).await
}

async fn say(mut socket: BufReader<TcpStream>, bytes: &str, end: End) -> std::io::Result<()> {
    socket.write_all(bytes.as_bytes()).await?;
    socket.flush().await?;
    match end {
        End::Close => Ok(()),
        End::Reset => socket.get_ref().set_zero_linger(),
        End::Hold => socket.read_to_end(&mut Vec::new()).await.map(drop),
        End::Drip => loop {
            socket.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
    }
}

/// The body of a request, by its length. Nobody asks for what would have to be unpacked.
async fn body(socket: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let (mut length, mut is_plain) = (0, false);
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        is_plain |= line == "accept-encoding: identity";
    }
    assert!(is_plain, "the request asks for identity");
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(body)
}
