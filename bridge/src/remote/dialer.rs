//! Connections to a server elsewhere: its name is resolved once for each, the addresses are judged, and one of those very
//! addresses is connected to.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::addresses::Policy;
use super::tls::{Trouble, Words};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
/// Looks up the addresses of a host.
pub(super) type Lookup = dyn Fn(String) -> Answer<Vec<SocketAddr>> + Send + Sync;

/// Makes connections to the one host of a server.
#[derive(Clone)]
pub(crate) struct Dialer {
    https: HttpsConnector<HttpConnector<Resolver>>,
    /// The host, where that is an address and so is not resolved, and what is allowed to it.
    literal: Option<IpAddr>,
    policy: Arc<Policy>,
    words: Words,
    limit: Duration,
}

impl Dialer {
    pub(super) fn new(
        resolver: Resolver,
        literal: Option<IpAddr>,
        trust: ClientConfig,
        words: Words,
        limit: Duration,
    ) -> Self {
        let policy = Arc::clone(&resolver.policy);
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(trust);
        Self { https: https.https_or_http().enable_http1().wrap_connector(tcp), literal, policy, words, limit }
    }

    /// What was wrong with a connection, if it was an address or TLS.
    pub(crate) fn explain(&self, error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
        self.words.explain(error)
    }
}

impl Service<Uri> for Dialer {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let judged = self.literal.map_or(Ok(()), |address| self.policy.judge(address));
        let (connecting, limit) = (self.https.call(to), self.limit);
        Box::pin(async move {
            judged?;
            tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
                let message = format!("no connection within {} s", limit.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
            })
        })
    }
}

/// Resolves the names of one server, and gives addresses only if all of them may be connected to: a name that leads inside and
/// outside is one that somebody tries.
#[derive(Clone)]
pub(super) struct Resolver {
    policy: Arc<Policy>,
    lookup: Arc<Lookup>,
}

impl Resolver {
    pub(super) fn new(policy: Policy, lookup: Arc<Lookup>) -> Self {
        Self { policy: Arc::new(policy), lookup }
    }
}

impl Service<Name> for Resolver {
    type Response = std::collections::vec_deque::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, policy) = ((self.lookup)(name.as_str().to_owned()), Arc::clone(&self.policy));
        Box::pin(async move {
            let host = policy.host();
            let found = found.await.map_err(|error| format!("{host} cannot be resolved: {error}"))?;
            if found.is_empty() {
                return Err(format!("{host} has no address").into());
            }
            found.iter().try_for_each(|address| policy.judge(address.ip()))?;
            Ok(VecDeque::from(found).into_iter())
        })
    }
}

/// As the system resolves names.
pub(super) fn system(host: String) -> Answer<Vec<SocketAddr>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
}

#[cfg(test)]
mod tests;
