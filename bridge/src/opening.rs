//! Whether the answer to `initialize` opened the session that was made for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;

use crate::answered::Seen;
use crate::data::{self, Answer, Received};
use crate::relay::{Relay, Session};
use crate::respond;
use crate::server::{Body, BodyError};

/// Opens a session in its client's stead. Others may wait for it: it is opened though whoever asked hangs up.
pub(crate) async fn in_stead(
    relay: Arc<Relay>,
    key: SessionKey,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Answer {
    let opening = tokio::spawn(async move {
        let message = data::parse(&body)?;
        let received = Received { headers: &headers, message: &message, body: &body, timeout };
        whole(relay.post(&key, &received).await?, relay.max_message_bytes()).await
    });
    let failed = |_| respond::failure(&Failure::new(Kind::Internal, "the bridge failed to open a session"), None, None);
    opening.await.map_err(failed)?
}

/// A response that was read to its end: a session is open when its answer was seen.
async fn whole(response: Response<Body>, limit: usize) -> Answer {
    let (mut head, body) = response.into_parts();
    let read: BoxFuture<'static, _> = Box::pin(Limited::new(body, limit).collect());
    let read = read.await;
    let read = read.map_err(|error| {
        let failure = Failure::new(Kind::BadServerReply, format!("the answer to initialize broke off: {error}"));
        respond::failure(&failure, None, Some("initialize"))
    })?;
    let failure = read.trailers().and_then(|trailers| trailers.get(wire::FAILURE)).cloned();
    head.headers.extend(failure.map(|kind| (wire::FAILURE, kind)));
    Ok(Response::from_parts(head, Full::new(read.to_bytes()).map_err(BodyError::from).boxed_unsync()))
}

/// A session whose `initialize` is under way. Unless that was answered with a result, the session goes with it: when the
/// client hangs up, the server says no, or nothing comes.
#[derive(Debug)]
pub(crate) struct Opening {
    relay: Arc<Relay>,
    key: SessionKey,
    session: Arc<Session>,
    is_refused: bool,
    is_open: bool,
}

impl Opening {
    pub(crate) fn new(relay: &Arc<Relay>, key: &SessionKey, session: &Arc<Session>) -> Self {
        Self {
            relay: Arc::clone(relay),
            key: key.clone(),
            session: Arc::clone(session),
            is_refused: false,
            is_open: false,
        }
    }

    /// Its answer comes under `status`: one that says no opens nothing, whatever stands below it.
    pub(crate) fn under(mut self, status: StatusCode) -> Self {
        self.is_refused = !status.is_success();
        self
    }

    /// What was `seen` of its answer so far.
    pub(crate) fn decide(&mut self, seen: Seen) {
        self.is_open = !self.is_refused && seen == Seen::Result;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_open {
            self.relay.never_opened(&self.key, &self.session);
        } else if self.session.is_to_begin() {
            tokio::spawn(Arc::clone(&self.relay).begin(Arc::clone(&self.session)));
        }
    }
}
