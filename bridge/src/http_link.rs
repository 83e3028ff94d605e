//! One conversation with a streamable HTTP server: every message is a POST of its own, answered by a message or a stream
//! of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use portolan_mcp::envelope::{Message, string_param};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::modern::VERSION_HEADER;
use portolan_mcp::modern::{Head, headers_of};
use portolan_mcp::revision::Era;
use portolan_mcp::session::IdKey;
use portolan_mcp::sse::Decoder;
use portolan_mcp::token;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::answered::Seen;
use crate::awaited::{EVENTS, is};
use crate::conversation::{Conversation, Heards, Party};
use crate::link::{Heard, How};
use crate::outbox::Outgoing;
use crate::place::Place;
use crate::said::{Said, answer_to};
use crate::state::{State, lock};
use crate::stderr::shorten;
use crate::tools;
use crate::upstream::Server;

/// What is no call is taken before the next message is sent: that may rely on it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that are being posted at a time: more than whoever writes here has requests under way, so that what is refused
/// past it was given up long ago, and the server still holds on to it.
const MAX_POSTS: usize = 2048;
/// How long the server may take to hear that the session is over.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long it may take to hear that nobody waits for a call any more.
const TAKE_BACK: Duration = Duration::from_secs(5);
/// How often a server that cannot be reached is asked for the rest of a call's stream.
const RESUMPTIONS: usize = 5;
/// What is quoted of an answer that is no message.
const MAX_QUOTE: usize = 120;
const JSON_AND_EVENTS: &str = "application/json, text/event-stream";

/// Begins a conversation with `server` as it was done in `era`.
pub(crate) fn open(state: &Arc<State>, server: &Server, name: &str, era: Era) -> (Conversation, Heards) {
    open_for(state, server, name, era, MAX_POSTS)
}

fn open_for(state: &Arc<State>, server: &Server, name: &str, era: Era, max_posts: usize) -> (Conversation, Heards) {
    let names = Arc::new(Mutex::new(Names::default()));
    let (server, at_end) = (server.clone(), (server.clone(), Arc::clone(&names)));
    let converse =
        move |party, outgoing| Arc::new(HttpLink { party, server, era, names, max_posts }).converse(outgoing);
    Conversation::begin(state, name, converse, |_| async move {
        let (server, names) = at_end;
        say_goodbye(&server, &names).await;
    })
}

/// What a server of sessions named in its answer to `initialize`.
#[derive(Debug, Default)]
struct Names {
    session: Option<HeaderValue>,
    revision: Option<HeaderValue>,
}

struct HttpLink {
    party: Party,
    server: Server,
    era: Era,
    names: Arc<Mutex<Names>>,
    max_posts: usize,
}

async fn say_goodbye(server: &Server, names: &Mutex<Names>) {
    let Some(session) = lock(names).session.clone() else { return };
    let headers = HeaderMap::new();
    let sent = server.send(Method::DELETE, &headers, Some(&session), Bytes::new());
    // Best effort: the server may be the reason why.
    let _ = tokio::time::timeout(GOODBYE, sent).await;
}

impl HttpLink {
    async fn converse(self: Arc<Self>, mut outgoing: mpsc::Receiver<Outgoing>) -> How {
        let mut posts = JoinSet::new();
        let mut calls: HashMap<IdKey, AbortHandle> = HashMap::new();
        loop {
            let next = tokio::select! {
                Some(ended) = posts.join_next() => match ended {
                    Ok(Some(how)) => return how,
                    _ => continue,
                },
                next = outgoing.recv() => next,
            };
            let Some(next) = next else { return How::Disconnected("nobody speaks to the server any more".to_owned()) };
            let said = Said::of(&next.message);
            calls.retain(|_, call| !call.is_finished());
            let taken_back = match &said {
                Said::Cancelled(Some(id)) => calls.remove(id),
                _ => None,
            };
            if self.era == Era::Modern && matches!(said, Said::Cancelled(_)) {
                // Closing the request is how it is taken back.
                taken_back.inspect(AbortHandle::abort);
                continue;
            }
            if posts.len() >= self.max_posts {
                taken_back.inspect(AbortHandle::abort);
                self.party.state.counters.refused_calls.add(u64::from(said.call().is_some()));
                let failure =
                    Failure::new(Kind::Overloaded, "the server holds on to too many requests; ask again later");
                self.not_taken(&said, failure.retry_after(PATIENCE)).await;
                continue;
            }
            let (is_call, begins) = (said.call().cloned(), matches!(said, Said::Initialized));
            let (taken, was_taken) = tokio::sync::oneshot::channel::<()>();
            let link = Arc::clone(&self);
            let post = posts.spawn(async move {
                let how = link.post_within(next, &said).await;
                // Nobody waits for it, and a server that was told so may leave it open for good.
                taken_back.inspect(AbortHandle::abort);
                drop(taken);
                how
            });
            match is_call {
                Some(id) => drop(calls.insert(IdKey::from(&id), post)),
                // Either way the next one follows.
                None => drop(tokio::time::timeout(PATIENCE, was_taken).await),
            }
            if begins && self.era != Era::Modern {
                posts.spawn(Arc::clone(&self).stand());
            }
        }
    }

    /// Posts one message, in as long as anyone waits for what comes of it.
    async fn post_within(&self, outgoing: Outgoing, said: &Said) -> Option<How> {
        let limit = match said {
            Said::Cancelled(_) => TAKE_BACK,
            // Whoever asked has been told by now that there was no answer in time.
            Said::Call(_) if self.era == Era::Modern => self.party.state.config.request_timeout + TAKE_BACK,
            // A stream lasts, and a call of a session may wait for what its user is asked.
            _ => return self.post(outgoing, said).await,
        };
        tokio::time::timeout(limit, self.post(outgoing, said)).await.ok().flatten()
    }

    /// Posts one message; says how the conversation ended if that ended it.
    async fn post(&self, outgoing: Outgoing, said: &Said) -> Option<How> {
        let headers = self.headers(&outgoing.message);
        let session = lock(&self.names).session.clone();
        let sent = self.server.send(Method::POST, &headers, session.as_ref(), outgoing.message.clone()).await;
        drop(outgoing);
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                self.not_taken(said, error.failure()).await;
                // A server that cannot be spoken to has no conversation.
                return matches!(said, Said::Initialize(_)).then(|| How::Unreachable(error));
            }
        };
        if response.status() == StatusCode::NOT_FOUND && session.is_some() {
            return Some(How::Disconnected("the server no longer knows the session (HTTP status 404)".to_owned()));
        }
        if let (Said::Initialize(_), Some(id)) = (said, response.headers().get(token::HEADER)) {
            lock(&self.names).session = Some(id.clone());
        }
        self.read(response, said).await
    }

    async fn read(&self, response: Response<Incoming>, said: &Said) -> Option<How> {
        let status = response.status();
        if status.is_success() && is(&response, EVENTS) {
            return match self.read_to_answer(response.into_body(), said).await {
                Ok(true) => None,
                Ok(false) => {
                    let failure =
                        Failure::new(Kind::ServerUnreachable, "the server ended its stream without the answer");
                    self.not_taken(said, failure).await;
                    None
                }
                Err(how) => Some(how),
            };
        }
        let body = Limited::new(response.into_body(), self.party.state.config.max_message_bytes).collect().await;
        let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
            let failure = Failure::new(Kind::BadServerReply, "the server's answer broke off, or is too long");
            self.not_taken(said, failure).await;
            return None;
        };
        match (said.call(), answer_to(said.call(), &body)) {
            (Some(_), Some(message)) => {
                self.learn(said, &message);
                let _ = self.party.heard.send(Ok(Heard::Message(message))).await;
            }
            (None, _) if status.is_success() => {}
            _ => {
                let text = String::from_utf8_lossy(&body);
                let said_there = if text.trim().is_empty() {
                    String::new()
                } else {
                    format!(": {}", shorten(text.trim(), MAX_QUOTE))
                };
                let what = format!("the server answered POST with HTTP status {status}{said_there}");
                self.not_taken(said, Failure::new(Kind::BadServerReply, what)).await;
            }
        }
        None
    }

    /// Hands on what a stream of events carries; says whether the answer was among it. A stream of a session that ends
    /// before the answer is resumed for as long as anyone waits for that (2025-11-25, "Resumability and Redelivery").
    async fn read_to_answer(&self, mut body: Incoming, said: &Said) -> Result<bool, How> {
        let mut place = Place::default();
        while !self.read_events(body, said, &mut place).await? {
            if self.era == Era::Modern || !place.is_named() || !matches!(said, Said::Call(_)) {
                return Ok(false);
            }
            place.wait().await;
            match self.open_stream(&place, RESUMPTIONS).await {
                Some(again) => body = again,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn read_events(&self, mut body: Incoming, said: &Said, place: &mut Place) -> Result<bool, How> {
        let mut decoder = Decoder::new(self.party.state.config.max_message_bytes);
        let mut is_answered = said.call().is_none();
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            let Ok(events) = decoder.push(data) else { return Err(self.party.too_long().await) };
            place.learn(&decoder);
            for event in events.into_iter().filter(|event| !event.is_empty()) {
                let event = Bytes::from(event);
                if said.call().is_some_and(|id| Seen::of(id, &event) != Seen::Nothing) {
                    self.learn(said, &event);
                    is_answered = true;
                }
                if self.party.heard.send(Ok(Heard::Message(event))).await.is_err() {
                    return Err(How::Disconnected("nobody listens to the server any more".to_owned()));
                }
            }
        }
        Ok(is_answered)
    }

    /// From the answer to `initialize`, the revision that every later request names.
    fn learn(&self, said: &Said, answer: &Bytes) {
        if !matches!(said, Said::Initialize(_)) {
            return;
        }
        if let Ok(Message::Response { payload, .. }) = Message::parse(answer)
            && let Some(revision) = string_param(payload, "protocolVersion")
        {
            lock(&self.names).revision = HeaderValue::from_str(&revision).ok();
        }
    }

    async fn not_taken(&self, said: &Said, failure: Failure) {
        match said.call() {
            // Whoever does not listen any more has ended it.
            Some(id) => drop(self.party.heard.send(Ok(Heard::Refused { id: id.clone(), failure })).await),
            None => {
                self.party.state.counters.refused_calls.add(1);
                tracing::warn!(session = self.party.name(), error = %failure, "the server did not take a message of its client");
            }
        }
    }

    fn headers(&self, message: &Bytes) -> HeaderMap {
        let mut headers = if self.era == Era::Modern { self.modern_headers(message) } else { HeaderMap::new() };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static(JSON_AND_EVENTS));
        if let Some(revision) = lock(&self.names).revision.clone() {
            headers.insert(VERSION_HEADER, revision);
        }
        headers
    }

    fn modern_headers(&self, message: &Bytes) -> HeaderMap {
        let Ok(message) = Message::parse(message) else { return HeaderMap::new() };
        let Some(head) = Head::of(&message) else { return HeaderMap::new() };
        let marked = self.party.state.marked_tools();
        match tools::with_headers(&marked, &head, message.params()) {
            Some((schema, arguments)) => headers_of(&head, Some(schema), Some(&arguments)),
            None => headers_of(&head, None, None),
        }
    }

    /// Opens the stream on which the server speaks by itself, again and again: one that ends is no end of the session.
    async fn stand(self: Arc<Self>) -> Option<How> {
        let mut place = Place::default();
        loop {
            match self.open_stream(&place, usize::MAX).await {
                Some(body) => {
                    if let Err(how) = self.read_events(body, &Said::Other, &mut place).await {
                        return Some(how);
                    }
                }
                // It has no such stream.
                None => return None,
            }
            place.wait().await;
        }
    }

    /// A stream of what the server says, from `place` on. `None` where it gives none, or cannot be reached that many times.
    async fn open_stream(&self, place: &Place, tries: usize) -> Option<Incoming> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(EVENTS));
        let (session, revision) = {
            let names = lock(&self.names);
            (names.session.clone(), names.revision.clone())
        };
        headers.extend(revision.map(|revision| (VERSION_HEADER, revision)));
        place.name(&mut headers);
        for _ in 0..tries {
            match self.server.send(Method::GET, &headers, session.as_ref(), Bytes::new()).await {
                Ok(response) => {
                    let is_stream = response.status().is_success() && is(&response, EVENTS);
                    return is_stream.then(|| response.into_body());
                }
                Err(_) => place.wait().await,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::unguarded;
    use portolan_mcp::envelope::Id;
    use portolan_mcp::session::cancelled;

    fn call(id: u64) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{}}}}"#).into()
    }

    #[tokio::test]
    async fn a_server_that_holds_on_to_too_much_gets_no_more_until_something_is_taken_back() {
        for era in [Era::Modern, Era::Legacy] {
            let (state, ..) = unguarded("true");
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let endpoint = format!("http://{}/mcp", listener.local_addr().expect("bound"));
            let server = Server::new(endpoint.parse().expect("an address"));
            let (link, mut heard) = open_for(&state, &server, "test", era, 2);
            // It takes what comes and answers nothing.
            let held = tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((socket, _)) = listener.accept().await {
                    held.push(socket);
                }
            });
            for id in 1..=3 {
                link.write(call(id)).expect("there is room");
            }
            let refused = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("it is told");
            let refused = refused.expect("it goes on").expect("a message");
            let Heard::Refused { id, failure } = refused else { panic!("{refused:?}") };
            assert_eq!((id, failure.kind), (Id::number(3), Kind::Overloaded), "{era:?}");
            assert_eq!(state.counters.read().refused_calls, 1);
            link.write(cancelled(&Id::number(1))).expect("there is room");
            // What is aborted is gone a moment later, and who comes before is refused.
            let again = async {
                for id in 4.. {
                    link.write(call(id)).expect("there is room");
                    if tokio::time::timeout(Duration::from_millis(50), heard.recv()).await.is_err() {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(10), again).await.expect("what was taken back makes room");
            held.abort();
        }
    }
}
