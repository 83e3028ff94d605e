//! One message posted to an HTTP+SSE server, and what becomes of one that it does not take.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use portolan_mcp::envelope::{Id, Message};
use portolan_mcp::failure::{Failure, Kind};

use crate::conversation::Party;
use crate::link::Heard;
use crate::outbox::Outgoing;
use crate::stderr::shorten;
use crate::upstream::Server;

/// A call that is not taken within this time does not hold up what comes after it: some servers answer its POST only when
/// the call is done, and what comes after may be what it waits for.
const CALL_PATIENCE: Duration = Duration::from_millis(50);
/// Everything else is taken first: what follows `notifications/initialized` or an answer may rely on it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is read of the answer to a POST.
const MAX_ANSWER: usize = 16 * 1024;
/// What is quoted of it when it is a refusal.
const MAX_QUOTE: usize = 120;

/// A message that is posted.
#[derive(Debug)]
pub(crate) struct Post {
    party: Party,
    server: Server,
    outgoing: Outgoing,
    /// Set when an answer is waited for.
    call: Option<Id>,
}

impl Post {
    /// `outgoing` for the endpoint of `server`; that a call was not taken is told to `party`.
    pub(crate) fn new(party: &Party, server: &Server, outgoing: Outgoing) -> Self {
        let call = match Message::parse(&outgoing.message) {
            Ok(Message::Request(request)) => Some(request.id),
            _ => None,
        };
        Self { party: party.clone(), server: server.clone(), outgoing, call }
    }

    /// How long the next message waits for this one to be taken.
    pub(crate) fn patience(&self) -> Duration {
        if self.call.is_some() { CALL_PATIENCE } else { PATIENCE }
    }

    /// Posts it and waits for the answer, which says no more than whether it was taken.
    pub(crate) async fn send(self) {
        let limit = self.party.state.config.request_timeout;
        match tokio::time::timeout(limit, self.exchange()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => self.was_not_taken(failure).await,
            // Who asked has been told by now that there was no answer in time.
            Err(_) if self.call.is_some() => {}
            Err(_) => {
                let message = format!("the server did not answer POST within {} ms", limit.as_millis());
                self.was_not_taken(Failure::new(Kind::RequestTimeout, message)).await;
            }
        }
    }

    async fn exchange(&self) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sent = self.server.send(Method::POST, &headers, None, self.outgoing.message.clone()).await;
        let response = sent.map_err(|error| error.failure())?;
        let status = response.status();
        let text = beginning(response.into_body()).await;
        if status.is_success() {
            return Ok(());
        }
        let said = if text.is_empty() { String::new() } else { format!(": {}", shorten(text.trim(), MAX_QUOTE)) };
        Err(Failure::new(Kind::BadServerReply, format!("the server answered POST with {status}{said}")))
    }

    async fn was_not_taken(self, failure: Failure) {
        self.party.state.counters.refused_calls.add(1);
        match self.call {
            // A session that has ended needs not be told.
            Some(id) => drop(self.party.heard.send(Ok(Heard::Refused { id, failure })).await),
            None => {
                tracing::warn!(session = self.party.name(), error = %failure, "the server did not take a message of its client");
            }
        }
    }
}

/// What a person may want to read of an answer. It is read to its end, if that is near: the connection is used again.
async fn beginning(body: Incoming) -> String {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default()
}
