//! What an admin port says line by line, for as long as both sides stay.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use portolan_mcp::mac::MacKey;
use tokio::time::timeout;

use crate::bridge_client::{signed, unpooled};

/// Until a connection is made and answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever speaks sends a heartbeat every 5 s: after three lost ones it is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Why there are no more lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("nothing came within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("the other side ended it")]
    Ended,
}

/// Opens streams of lines; clones share it.
#[derive(Clone)]
pub(crate) struct LinesClient {
    http: Client<HttpConnector, Empty<Bytes>>,
    /// Longest line in bytes.
    most: usize,
}

impl LinesClient {
    pub(crate) fn new(most: usize) -> Self {
        Self { http: unpooled(CONNECT_TIMEOUT), most }
    }

    /// Asks for `path` with the MAC of `key`, of the pod of that uid where one is named.
    pub(crate) async fn open(
        &self,
        address: SocketAddr,
        path: &str,
        pod: &str,
        key: &MacKey,
    ) -> Result<Lines, LinesError> {
        let request = signed(Method::GET, &address.to_string(), path, pod, key)?;
        let answer = timeout(CONNECT_TIMEOUT, self.http.request(request)).await;
        let answer = answer.map_err(|_| LinesError::Silent(CONNECT_TIMEOUT))??;
        match answer.status() {
            StatusCode::OK => Ok(Lines { body: answer.into_body(), buffer: BytesMut::new(), most: self.most }),
            status => Err(LinesError::Refused(status)),
        }
    }
}

/// Lines as they come.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    most: usize,
}

impl Lines {
    /// The next line, without its end.
    pub(crate) async fn next(&mut self) -> Result<BytesMut, LinesError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(searched + end + 1);
                line.truncate(searched + end);
                return Ok(line);
            }
            searched = self.buffer.len();
            if searched > self.most {
                return Err(LinesError::TooLong(self.most));
            }
            let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| LinesError::Silent(SILENCE))?;
            if let Ok(data) = frame.ok_or(LinesError::Ended)??.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
