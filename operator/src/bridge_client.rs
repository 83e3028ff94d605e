//! Asks bridges on their admin ports for the definitions of tools, and tells them when nobody can reach their sessions.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::jiff::Timestamp;
use portolan_mcp::{
    mac::{self, MacKey, Subject},
    wire::{self, BridgeStatus, ToolsFound},
};

/// How long one read may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest report: tool definitions are the bulk.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a bridge did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Nothing answered, or not in time: the pod starts, ends, or is cut off.
    #[error("the bridge at {address} cannot be reached: {cause}")]
    Unreachable {
        /// Address and port.
        address: String,
        /// What happened.
        cause: String,
    },
    /// It answered with something else than a report.
    #[error("the bridge at {address} answered {status}")]
    Refused {
        /// Address and port.
        address: String,
        /// HTTP status; 401 means that its key is another one.
        status: StatusCode,
    },
    /// What it answered is no report of a contract that this release knows.
    #[error("the bridge at {address} does not speak contract {}: {cause}", wire::CONTRACT)]
    Unreadable {
        /// Address and port.
        address: String,
        /// What is wrong.
        cause: String,
    },
}

/// A pod as its bridge is asked: whoever else has its address by now refuses.
#[derive(Clone, Debug)]
pub struct Address {
    /// UID of the pod.
    pub uid: String,
    /// Its address.
    pub ip: IpAddr,
}

/// Reads bridges; clones share connections.
#[derive(Clone)]
pub struct BridgeClient {
    http: Client<HttpConnector, Empty<Bytes>>,
}

impl Default for BridgeClient {
    fn default() -> Self {
        Self { http: unpooled(TIMEOUT) }
    }
}

impl BridgeClient {
    /// The definitions of the tools that the bridge in `pod` found, where it found any.
    ///
    /// # Errors
    /// The bridge is away, refuses `key`, or speaks another contract.
    pub async fn tools(&self, pod: &Address, key: &MacKey) -> Result<Option<ToolsFound>, BridgeError> {
        let address = std::net::SocketAddr::from((pod.ip, wire::ADMIN_PORT)).to_string();
        let path = format!("{}?definitions=1", wire::STATUS);
        match tokio::time::timeout(TIMEOUT, self.read(&address, &path, &pod.uid, key)).await {
            Ok(result) => result.map(|status| status.probe.tools),
            Err(_) => Err(unreachable(&address, &format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    /// How many sessions the bridge in `pod` has.
    ///
    /// # Errors
    /// The bridge is away, refuses `key`, or speaks another contract.
    pub async fn sessions(&self, pod: &Address, key: &MacKey) -> Result<u32, BridgeError> {
        let address = std::net::SocketAddr::from((pod.ip, wire::ADMIN_PORT)).to_string();
        match tokio::time::timeout(TIMEOUT, self.read(&address, wire::STATUS, &pod.uid, key)).await {
            Ok(result) => result.map(|status| status.sessions.active),
            Err(_) => Err(unreachable(&address, &format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    /// Tells the bridge in `pod` that nobody can reach its sessions any more ([`wire::ABANDON`]).
    ///
    /// # Errors
    /// The bridge is away or refuses `key`.
    pub async fn abandon(&self, pod: &Address, key: &MacKey) -> Result<(), BridgeError> {
        let address = std::net::SocketAddr::from((pod.ip, wire::ADMIN_PORT)).to_string();
        match tokio::time::timeout(TIMEOUT, self.ask(Method::POST, &address, wire::ABANDON, &pod.uid, key)).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(unreachable(&address, &format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn ask(
        &self,
        method: Method,
        address: &str,
        path: &str,
        pod: &str,
        key: &MacKey,
    ) -> Result<Response<Incoming>, BridgeError> {
        let request = signed(method, address, path, pod, key).map_err(|error| unreachable(address, &error))?;
        let answer = self.http.request(request).await.map_err(|error| unreachable(address, &error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(BridgeError::Refused { address: address.to_owned(), status: answer.status() })
    }

    async fn read(&self, address: &str, path: &str, pod: &str, key: &MacKey) -> Result<BridgeStatus, BridgeError> {
        let answer = self.ask(Method::GET, address, path, pod, key).await?;
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let unreadable = |cause: &dyn std::fmt::Display| BridgeError::Unreadable {
            address: address.to_owned(),
            cause: cause.to_string(),
        };
        let body = body.map_err(|error| unreadable(&error))?.to_bytes();
        let status: BridgeStatus = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        if status.contract != wire::CONTRACT {
            return Err(unreadable(&format!("it speaks contract {}", status.contract)));
        }
        Ok(status)
    }
}

/// A client for admin ports: whoever is asked once is not asked again soon, so that no connection is kept for it.
pub(crate) fn unpooled(connect_timeout: Duration) -> Client<HttpConnector, Empty<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

/// A request without a body that carries the MAC of `key`, to the pod of that UID where one is named.
pub(crate) fn signed(
    method: Method,
    address: &str,
    path: &str,
    pod: &str,
    key: &MacKey,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let mac = key.sign(Subject { method: method.as_str(), path, session: "", pod }, now);
    let uri = Uri::builder().scheme("http").authority(address).path_and_query(path).build()?;
    let request = Request::builder().method(method).uri(uri).header(mac::HEADER, mac);
    let request = if pod.is_empty() { request } else { request.header(wire::POD, pod) };
    request.body(Empty::new())
}

fn unreachable(address: &str, cause: &impl std::fmt::Display) -> BridgeError {
    BridgeError::Unreachable { address: address.to_owned(), cause: cause.to_string() }
}
