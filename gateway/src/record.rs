//! The record of one request: its access-log line and its metrics, written once, however the request ends.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use portolan_mcp::{
    envelope::{Id, Message, string_param},
    failure::Kind,
    token::SessionKey,
};
use portolan_policy::identity::Identity;
use ring::digest;

use crate::metrics::{self, ALL_ROUTES, CHECKED_ROUTES, Metrics, NO_ROUTE};
use crate::series::Series;

const OK: &str = "OK";
/// The client went away before the answer was complete.
const CLIENT_GONE: &str = "ClientGone";
/// The head is no HTTP that is spoken here, or over its bound.
pub(crate) const BAD_HEAD: &str = "BadHead";
/// The head began and was not whole in time.
pub(crate) const HEAD_TIMEOUT: &str = "HeadTimeout";
/// The answer broke off.
const BROKEN: &str = "Broken";

/// What clients write into the log is cut to this many characters.
const SHOWN_CHARS: usize = 128;

/// One request, from its head to the end of its answer. Dropping it writes it down.
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    started: Instant,
    /// Time that was the client's or the server's.
    waited: Duration,
    peer: SocketAddr,
    /// `None` where the head could not be read.
    http_method: Option<Method>,
    path: String,
    route: Option<Arc<Series>>,
    /// The label while there is no route.
    unrouted: &'static str,
    caller: Option<Identity>,
    method: &'static str,
    rpc_method: Option<Box<str>>,
    tool: Option<String>,
    resource: Option<String>,
    id: Option<Id>,
    session: Option<SessionKey>,
    status: Option<StatusCode>,
    outcome: &'static str,
    bytes_in: usize,
    bytes_out: u64,
}

impl Record {
    pub(crate) fn open(metrics: Arc<Metrics>, peer: SocketAddr, http_method: Method, path: &str) -> Self {
        Self {
            metrics,
            started: Instant::now(),
            waited: Duration::ZERO,
            peer,
            http_method: Some(http_method),
            // Never the query: a client may have put a credential there.
            path: shown(path),
            route: None,
            unrouted: NO_ROUTE,
            caller: None,
            method: metrics::NONE,
            rpc_method: None,
            tool: None,
            resource: None,
            id: None,
            session: None,
            status: None,
            outcome: CLIENT_GONE,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Writes down a request whose head could not be read, so that there is no request to answer; the status that was
    /// sent, if one was.
    pub(crate) fn unreadable(
        metrics: Arc<Metrics>,
        peer: SocketAddr,
        status: Option<StatusCode>,
        outcome: &'static str,
    ) {
        let mut record = Self::open(metrics, peer, Method::GET, "");
        record.http_method = None;
        record.status = status;
        record.outcome = outcome;
    }

    pub(crate) fn set_caller(&mut self, caller: &Identity) {
        self.caller = Some(caller.clone());
    }

    pub(crate) fn set_route(&mut self, route: &Arc<Series>) {
        route.begin_request();
        self.route = Some(route.clone());
    }

    /// Notes that the endpoint of all servers is asked; what one of them answers is that one's.
    pub(crate) fn set_all(&mut self) {
        self.unrouted = ALL_ROUTES;
    }

    /// Notes a question of the operator's, which is no call of any route.
    pub(crate) fn set_check(&mut self) {
        self.unrouted = CHECKED_ROUTES;
    }

    /// Counts a session that was opened.
    pub(crate) fn session_opened(&self) {
        if let Some(route) = &self.route {
            route.session_opened();
        }
    }

    /// Notes a method that is none of JSON-RPC's.
    pub(crate) fn set_method(&mut self, method: &'static str) {
        self.method = method;
    }

    pub(crate) fn set_message(&mut self, message: &Message<'_>, bytes: usize) {
        self.bytes_in = bytes;
        self.method = message.method().map_or(metrics::RESPONSE, metrics::method_label);
        self.rpc_method = message.method().map(Into::into);
        if let Message::Request(request) = message {
            self.id = Some(request.id.clone());
            let param = |member| request.params.and_then(|params| string_param(params, member));
            match &*request.method {
                "tools/call" => self.tool = param("name").map(|name| shown(&name)),
                "resources/read" => self.resource = param("uri").map(|uri| shown(&without_secrets(&uri))),
                _ => {}
            }
        }
    }

    /// Who asks, once that is known.
    pub(crate) fn caller(&self) -> Option<&Identity> {
        self.caller.as_ref()
    }

    /// From where the client is connected.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn set_session(&mut self, session: &SessionKey) {
        self.session = Some(session.clone());
    }

    /// Notes the answer's head; the outcome is final when its body ends.
    pub(crate) fn set_answer(&mut self, status: StatusCode, failure: Option<Kind>) {
        self.status = Some(status);
        if let Some(kind) = failure {
            self.outcome = kind.as_str();
        }
        let overhead = self.started.elapsed().saturating_sub(self.waited);
        self.metrics.overhead.observe(overhead.as_secs_f64());
    }

    pub(crate) fn add_bytes_out(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The bridge says behind an answer that it made the end of it in the server's stead.
    pub(crate) fn set_failure(&mut self, kind: Kind) {
        self.outcome = kind.as_str();
    }

    /// The whole answer was handed over.
    pub(crate) fn complete(&mut self) {
        if self.outcome == CLIENT_GONE {
            self.outcome = OK;
        }
    }

    /// Whether the request was answered, by the server itself, to the end.
    pub(crate) fn is_ok(&self) -> bool {
        self.outcome == OK
    }

    /// The answer broke off on the server's side.
    pub(crate) fn broken(&mut self) {
        self.outcome = BROKEN;
    }

    /// The request's id and method, for an answer in the server's stead.
    pub(crate) fn request(&self) -> (Option<&Id>, Option<&str>) {
        (self.id.as_ref(), self.rpc_method.as_deref())
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Runs what waits for the client or the server, so that the wait does not count as ours.
    pub(crate) async fn wait<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        // Up to where it has to wait, the time is ours.
        if let Poll::Ready(output) = futures::poll!(other.as_mut()) {
            return output;
        }
        let began = Instant::now();
        let output = other.await;
        self.waited += began.elapsed();
        output
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        match &self.route {
            Some(route) => route.end_request(self.method, self.outcome, duration.as_secs_f64()),
            None => self.metrics.request(self.unrouted, self.method, self.outcome, duration.as_secs_f64()),
        }
        tracing::info!(
            target: "portolan::access",
            peer = %self.peer,
            http_method = self.http_method.as_ref().map(|method| shown(method.as_str())),
            path = self.path,
            route = self.route.as_ref().map(|route| route.name().as_str()),
            method = self.rpc_method.as_deref().map_or_else(|| self.method.into(), shown),
            tool = self.tool,
            resource = self.resource,
            issuer = self.caller.as_ref().map(|caller| shown(caller.issuer())),
            subject = self.caller.as_ref().map(|caller| shown(caller.subject())),
            session = self.session.as_ref().map(digest_of),
            status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome,
            milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            "request"
        );
    }
}

/// A URI as it may stand in a log: as of a path, never the query, nor who its user is.
fn without_secrets(uri: &str) -> String {
    let bare = uri.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// A session as it may stand in a log: what is logged opens nothing.
fn digest_of(session: &SessionKey) -> String {
    let hash = digest::digest(&digest::SHA256, session.as_str().as_bytes());
    let mut start = [0; 8];
    start.copy_from_slice(&hash.as_ref()[..8]);
    format!("{:016x}", u64::from_be_bytes(start))
}

/// Text from outside as it may stand in a log: short, on one line, nothing that a terminal would act on.
pub(crate) fn shown(text: &str) -> String {
    // As most of it is: nothing in it has to be escaped.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\'' | b'"' | b'\\');
    if text.len() <= SHOWN_CHARS && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_uri_neither_query_nor_user_is_written() {
        for (uri, written) in [
            ("postgres://user:password@host/table?key=1#x", "postgres://host/table"),
            ("canary://saint-anthony/t-1", "canary://saint-anthony/t-1"),
            ("file:///a@b/c", "file:///a@b/c"),
            ("memo:x?y", "memo:x"),
        ] {
            assert_eq!(without_secrets(uri), written);
        }
    }

    #[test]
    fn nothing_that_clients_write_starts_a_new_line_or_reaches_a_terminal() {
        let text = shown("a\nb\u{1b}[31m\u{202e}\u{0}");
        assert!(text.chars().all(|c| c.is_ascii_graphic()), "{text}");
        assert!(shown(&"x".repeat(1000)).len() == SHOWN_CHARS);
        assert_eq!(shown("system:serviceaccount:a:b"), "system:serviceaccount:a:b");
        for character in (0..=u8::MAX).map(char::from) {
            assert_eq!(shown(&character.to_string()), character.escape_default().to_string());
        }
    }
}
