//! An HTTP server whose answers to calls are bytes that a test wrote, whether they are HTTP or not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
    /// What every GET that names a last event is answered with from now on.
    pub streams: watch::Sender<(String, End)>,
    /// The last events that were named.
    pub resumed: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

/// What it says to whoever asks for more than it has been told to say.
#[derive(Clone)]
struct Told {
    calls: watch::Receiver<(String, End)>,
    streams: watch::Receiver<(String, End)>,
    resumed: Arc<Mutex<Vec<String>>>,
    /// What `server/discover` is answered with, and the revision that `initialize` is.
    discovered: Option<Value>,
    revision: &'static str,
}

impl Raw {
    /// One that speaks both eras.
    pub async fn start() -> Self {
        Self::speaking("2025-11-25", true).await
    }

    /// One that answers `initialize` with `revision`, and `server/discover` only where it `is_modern`.
    pub async fn speaking(revision: &'static str, is_modern: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let [calls, streams] = [(); 2].map(|()| watch::Sender::new((String::new(), End::Close)));
        let (resumed, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let discovered = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}});
        let told = Told {
            calls: calls.subscribe(),
            streams: streams.subscribe(),
            resumed: Arc::clone(&resumed),
            discovered: is_modern.then_some(discovered),
            revision,
        };
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let told = told.clone();
                // A bridge that hung up is not waiting for an answer.
                tokio::spawn(async move { drop(answer(BufReader::new(socket), told).await) });
            }
        });
        Self { address, calls, streams, resumed, connections }
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

async fn answer(mut socket: BufReader<TcpStream>, told: Told) -> std::io::Result<()> {
    let (head, body) = read(&mut socket).await?;
    if let Some(last) = head.iter().find_map(|line| line.strip_prefix("last-event-id: ")) {
        told.resumed.lock().unwrap().push(last.to_owned());
        let (bytes, end) = told.streams.borrow().clone();
        return say(socket, &bytes, end).await;
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match (message["method"].as_str(), told.discovered) {
        (Some("initialize"), _) => json!({"protocolVersion": told.revision, "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"}}),
        (Some("server/discover"), Some(discovered)) => discovered,
        (Some("tools/list"), _) => json!({"tools": []}),
        (Some("tools/call"), _) => {
            let (bytes, end) = told.calls.borrow().clone();
            return say(socket, &bytes.replace("$ID", &message["id"].to_string()), end).await;
        }
        (None, _) => return say(socket, &whole("405 Method Not Allowed", "text/plain", ""), End::Close).await,
        _ if message["id"].is_null() => return say(socket, &whole("202 Accepted", "text/plain", ""), End::Close).await,
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "error": error}).to_string();
            return say(socket, &whole("200 OK", "application/json", &answer), End::Close).await;
        }
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

/// The lines of a request's head in lower case, and its body by its length. Nobody asks for what would have to be
/// unpacked.
async fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<(Vec<String>, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        match line.trim_end().to_ascii_lowercase() {
            line if line.is_empty() => break,
            line => head.push(line),
        }
    }
    assert!(head.iter().any(|line| line == "accept-encoding: identity"), "the request asks for identity: {head:?}");
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    socket.read_exact(&mut body).await?;
    Ok((head, body))
}
