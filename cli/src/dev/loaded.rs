//! What the gateway has loaded, from the stream on which it tells an operator.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_mcp::mac::{self, MacKey, Subject};
use portolan_snapshot::Report;
use tokio::sync::watch;

/// Where the gateway tells it, on its admin port.
const PATH: &str = "/v1/stream";
/// Longest line: a report of some ten thousand servers.
const MAX_LINE: usize = 16 << 20;
/// The gateway refuses until it has loaded the first key.
const AGAIN: Duration = Duration::from_millis(20);

/// The latest report, once there is one.
pub(super) type Loaded = watch::Receiver<Option<Report>>;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the gateway's admin port: {0}")]
    Http(#[from] reqwest::Error),
    #[error("a report cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Contract(#[from] portolan_snapshot::report::BadLine),
    #[error("a report is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("the gateway ended the stream")]
    Ended,
}

/// Follows the gateway whose admin port is `admin`, until `sender`'s readers are gone.
pub(super) async fn follow(admin: SocketAddr, key: MacKey, sender: watch::Sender<Option<Report>>) {
    let client = reqwest::Client::new();
    while !sender.is_closed() {
        if let Err(error) = read(&client, admin, &key, &sender).await {
            tracing::debug!(%error, "the gateway's stream is opened again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read(
    client: &reqwest::Client,
    admin: SocketAddr,
    key: &MacKey,
    sender: &watch::Sender<Option<Report>>,
) -> Result<(), StreamError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let subject = Subject { method: "GET", path: PATH, session: "", pod: "" };
    let header = key.sign(subject, u64::try_from(now).unwrap_or(u64::MAX));
    let request = client.get(format!("http://{admin}{PATH}")).header(mac::HEADER, header);
    let mut response = request.send().await?.error_for_status()?;
    let mut state = None;
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            Report::apply(&mut state, serde_json::from_slice(&line)?)?;
            sender.send_replace(state.clone());
        }
        if buffer.len() > MAX_LINE {
            return Err(StreamError::TooLong);
        }
    }
    Err(StreamError::Ended)
}
