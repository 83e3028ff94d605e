//! What the server has counted.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Since its start.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Stats {
    pub(super) connections: f64,
    pub(super) requests: f64,
    pub(super) initialized: f64,
}

impl Stats {
    /// Asks the server, on a connection of its own.
    ///
    /// # Errors
    /// It does not say.
    pub(super) async fn of(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get("/stats").header("host", server.to_string()).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == StatusCode::OK, "the server does not say what it counted: {}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        drop(sender);
        connection.await?.context("the connection to the server")?;
        serde_json::from_slice(&body).context("not what the server counts")
    }

    /// What came since, without the connection that asks.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections - before.connections - 1.0,
            requests: self.requests - before.requests,
            initialized: self.initialized - before.initialized,
        }
    }
}
