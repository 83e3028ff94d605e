//! Stateless mode: every client is answered by the one kept process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use portolan_mcp::envelope::{self, Id, Message};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::token::SessionKey;
use portolan_mcp::translate::ServerIntro;

use crate::data::{self, Answer, Received};
use crate::kept::{CANCELLED, Kept};
use crate::respond::{self, Opening};
use crate::server::Body;
use crate::state::{State, lock};

/// What no client tells the process of all: the bridge opened it, with no roots to change and nothing that it may ask a
/// client whose progress could be told.
const SAID_BY_BRIDGE: [&str; 3] =
    ["notifications/initialized", "notifications/roots/list_changed", "notifications/progress"];

/// Everyone's process.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Arc<State>,
}

impl Shared {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self { state: Arc::clone(state) }
    }

    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.state.kept).as_ref().map_or(0, |kept| kept.in_flight())
    }

    /// Answers a message of a client with a session.
    pub(crate) async fn post(&self, client: &SessionKey, received: &Received<'_>) -> Answer {
        let Received { message, body, timeout, .. } = *received;
        match message {
            Message::Request(request) if request.method == "initialize" => self.initialize(&request.id),
            Message::Request(request) => self.call(client, request, body, timeout).await,
            Message::Notification { method, .. } if SAID_BY_BRIDGE.contains(&&**method) => {
                Ok(respond::empty(StatusCode::ACCEPTED))
            }
            Message::Notification { method, params } => {
                match self.kept(None, method) {
                    Ok(kept) => kept
                        .notify(client, method, *params, body)
                        .map_err(|failure| respond::failure(&failure, None, None))?,
                    // The call went with its process.
                    Err(_) if method == CANCELLED => {}
                    Err(response) => return Err(response),
                }
                Ok(respond::empty(StatusCode::ACCEPTED))
            }
            // What the server asks, the bridge refuses: no client was asked anything.
            Message::Response { .. } => Ok(respond::empty(StatusCode::ACCEPTED)),
        }
    }

    fn initialize(&self, id: &Id) -> Answer {
        let kept = self.kept(Some(id), "initialize")?;
        let result = kept.initialize_result().unwrap_or("{}");
        Ok(respond::json(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json())))
    }

    /// Who the server is, as the sessionless era says it.
    pub(crate) fn discover(&self, id: &Id) -> Answer {
        let kept = self.kept(Some(id), "server/discover")?;
        let intro = kept.initialize_result().and_then(ServerIntro::of_initialize).unwrap_or_default();
        let result = intro.discover_result();
        Ok(respond::json(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json())))
    }

    async fn call(
        &self,
        client: &SessionKey,
        request: &envelope::Request<'_>,
        body: &Bytes,
        timeout: Duration,
    ) -> Answer {
        let kept = self.kept(Some(&request.id), &request.method)?;
        let reply = kept.call(client, request, body, timeout);
        let reply = reply.map_err(|error| data::not_taken(&error, Some(&request.id), Some(&request.method)))?;
        // Nothing can be resumed where any process may have answered: the stream has no ids.
        Ok(respond::call(reply, Opening::Plain).await)
    }

    fn kept(&self, id: Option<&Id>, method: &str) -> Result<Arc<Kept>, Response<Body>> {
        let kept = lock(&self.state.kept).clone().filter(|kept| kept.initialize_result().is_some());
        kept.ok_or_else(|| {
            let failure = Failure::new(Kind::NotReady, "the server is not ready; ask again soon");
            respond::failure(&failure.retry_after(Duration::from_secs(1)), id, Some(method))
        })
    }
}
