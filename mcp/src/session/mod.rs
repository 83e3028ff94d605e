//! One client's session with one server as a state machine: no clock, no sockets.
//!
//! The driver feeds it what clients post, what the server writes, and what happens to streams; it answers with
//! [`Output`]s in the order in which they must leave. Messages travel as the bytes that came in.
//!
//! Streams: every accepted request opens one (its POST's answer); [`StreamId::GET`] is the one standing stream,
//! which a newer GET takes over. An event's id names stream and number, so that a client whose connection broke can
//! resume exactly where it was, for as long as the ring holds it.

mod asked;
mod handshake;
mod key;
mod replay;
mod rewrite;
#[cfg(test)]
mod tests;
mod vocabulary;
mod waiting;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use self::asked::Asked;
pub use self::handshake::INITIALIZED;
use self::handshake::{Handshake, Held};
pub use self::key::IdKey;
use self::replay::Replay;
pub(crate) use self::rewrite::subscription_of;
pub use self::rewrite::{
    cancelled, cancelled_because, on_one_line, single_line, with_id, with_progress_token_asked,
    with_progress_token_told, with_request_id, with_subscription_id,
};
use self::vocabulary::parse_event_id;
pub use self::vocabulary::{Accepted, Attachment, Event, Limits, Output, Refusal, StreamId, UnknownStream};
use self::waiting::{Queue, Waiting};
use crate::envelope::{EnvelopeError, Id, Message, Meta, Request, scalar_param};
use crate::failure::{Failure, Kind};

/// Ids of calls that were given up and may still be answered; more are forgotten, oldest first.
const MAX_ABANDONED: usize = 64;

#[derive(Debug)]
struct Call {
    key: IdKey,
    id: Id,
    method: Box<str>,
    progress: Option<IdKey>,
    attached: Option<u64>,
    sent: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    last_stream: u64,
    turns: u64,
    calls: HashMap<StreamId, Call>,
    abandoned: VecDeque<IdKey>,
    get: Option<u64>,
    get_sent: u64,
    asked: Asked,
    waiting: Queue,
    replay: Replay,
    dropped: u64,
    handshake: Handshake,
}

impl Session {
    /// A session in which nothing has happened yet, and whose client opens it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with(limits, Handshake::default())
    }

    /// One that is opened in its client's stead ([`crate::wire::HANDSHAKE`]): what comes before the server has answered
    /// `initialize` waits, and `notifications/initialized` goes before it.
    #[must_use]
    pub fn opened_in_stead(limits: Limits) -> Self {
        Self::with(limits, Handshake::in_stead())
    }

    fn with(limits: Limits, handshake: Handshake) -> Self {
        Self {
            limits,
            last_stream: 0,
            turns: 0,
            calls: HashMap::new(),
            abandoned: VecDeque::new(),
            get: None,
            get_sent: 0,
            asked: Asked::default(),
            waiting: Queue::default(),
            replay: Replay::new(limits.replay_events, limits.replay_bytes),
            dropped: 0,
            handshake,
        }
    }

    /// Calls that wait for the server.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call waits for the server on `stream`.
    #[must_use]
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.calls.contains_key(&stream)
    }

    /// Messages dropped at a bound since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes a client's message; `body` is what `message` was read from.
    ///
    /// # Errors
    /// Says why it is not taken; nothing changed then.
    pub fn accept(&mut self, message: &Message<'_>, body: &Bytes, out: &mut Vec<Output>) -> Result<Accepted, Refusal> {
        match message {
            Message::Request(request) => self.accept_request(request, body, out).map(Accepted::Call),
            Message::Notification { method, params } => {
                if method == "notifications/cancelled" {
                    let id = params.and_then(|params| scalar_param(params, "requestId"));
                    self.client_cancelled(id.as_ref().map(IdKey::from).as_ref(), body, out);
                } else {
                    self.pass_on(single_line(body), None, out);
                }
                Ok(Accepted::Done)
            }
            Message::Response { id, .. } => {
                if id.as_ref().is_some_and(|id| self.asked.answered(&IdKey::from(id))) {
                    self.pass_on(single_line(body), None, out);
                }
                Ok(Accepted::Done)
            }
        }
    }

    fn accept_request(
        &mut self,
        request: &Request<'_>,
        body: &Bytes,
        out: &mut Vec<Output>,
    ) -> Result<Attachment, Refusal> {
        let key = IdKey::from(&request.id);
        if self.abandoned.contains(&key) || self.calls.values().any(|call| call.key == key) {
            return Err(Refusal::DuplicateId);
        }
        if self.calls.len() >= self.limits.calls
            || (&*request.method != "initialize" && self.handshake.is_full(&self.limits))
        {
            return Err(Refusal::TooManyCalls);
        }
        self.last_stream += 1;
        let attachment = self.attach(StreamId(self.last_stream), 0);
        let progress = request.params.and_then(Meta::of).and_then(|meta| meta.progress_token);
        self.calls.insert(
            attachment.stream,
            Call {
                key: key.clone(),
                id: request.id.clone(),
                method: request.method.as_ref().into(),
                progress: progress.as_ref().map(IdKey::from),
                attached: Some(attachment.turn),
                sent: 0,
            },
        );
        match &*request.method {
            "initialize" => out.push(Output::ToServer(single_line(body))),
            _ => self.pass_on(single_line(body), Some(&key), out),
        }
        self.flush_requests(attachment.stream, out);
        Ok(attachment)
    }

    /// Takes one line of the server.
    ///
    /// # Errors
    /// The line is not a JSON-RPC message; it changed nothing.
    pub fn server_line(&mut self, line: &Bytes, out: &mut Vec<Output>) -> Result<(), EnvelopeError> {
        match Message::parse(line)? {
            Message::Response { id: Some(id), is_error, .. } => self.answer(&IdKey::from(&id), line, is_error, out),
            Message::Response { id: None, .. } => self.dropped += 1,
            Message::Request(request) => self.server_request(&request.id, line, out),
            Message::Notification { method, params } => {
                let scalar = |member| params.and_then(|params| scalar_param(params, member)).as_ref().map(IdKey::from);
                match method.as_ref() {
                    "notifications/progress" => self.progress(scalar("progressToken"), line, out),
                    "notifications/cancelled" => self.server_cancelled(scalar("requestId"), line, out),
                    _ => self.notification(line, out),
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, key: &IdKey, line: &Bytes, is_error: bool, out: &mut Vec<Output>) {
        if let Some((stream, call)) = self.calls.iter().find(|(_, call)| call.key == *key) {
            let (stream, opens) = (*stream, &*call.method == "initialize");
            if opens && !is_error {
                self.handshake.answered(out);
            }
            self.finish(stream, line.clone(), None, out);
            if opens && is_error {
                out.push(Output::NeverOpened);
            }
        } else {
            self.abandoned.retain(|abandoned| abandoned != key);
        }
    }

    fn server_request(&mut self, id: &Id, line: &Bytes, out: &mut Vec<Output>) {
        let key = IdKey::from(id);
        if self.asked.len() >= self.limits.server_requests || self.asked.contains(&key) {
            self.dropped += 1;
            let failure = Failure::new(Kind::Overloaded, "too many requests wait for the client, or one with this id");
            out.push(Output::ToServer(failure.answer(Some(id), None).into()));
            return;
        }
        let stream = self.get.map(|_| StreamId::GET).or_else(|| self.newest_call());
        self.asked.insert(key.clone(), stream);
        match stream {
            Some(stream) => self.send(stream, line.clone(), out),
            None => self.wait(Waiting { message: line.clone(), request: Some(key) }, out),
        }
    }

    fn progress(&mut self, token: Option<IdKey>, line: &Bytes, out: &mut Vec<Output>) {
        let Some(token) = token else { return self.notification(line, out) };
        let call = self.calls.iter().find(|(_, call)| call.progress.as_ref() == Some(&token));
        // A token that no call carries is of one that was answered or given up: nobody waits for it.
        if let Some(stream) = call.map(|(stream, _)| *stream) {
            self.send(stream, line.clone(), out);
        }
    }

    fn server_cancelled(&mut self, request: Option<IdKey>, line: &Bytes, out: &mut Vec<Output>) {
        let Some(key) = request else { return };
        match self.asked.remove(&key) {
            Some(Some(stream)) if self.is_attached(stream) => self.send(stream, line.clone(), out),
            Some(Some(_)) => self.notification(line, out),
            Some(None) => self.waiting.forget(&key),
            None if self.asked.forget_overtaken(&key) => self.notification(line, out),
            None => {}
        }
    }

    fn notification(&mut self, line: &Bytes, out: &mut Vec<Output>) {
        let mut attached = self.calls.iter().filter(|(_, call)| call.attached.is_some()).map(|(stream, _)| *stream);
        let only = attached.next().filter(|_| self.calls.len() == 1);
        match only.or(self.get.map(|_| StreamId::GET)) {
            Some(stream) => self.send(stream, line.clone(), out),
            None => self.wait(Waiting { message: line.clone(), request: None }, out),
        }
    }

    /// Opens the standing stream, or resumes the one that `last_event_id` names.
    ///
    /// # Errors
    /// That stream is over and not kept. It is not the standing one instead: what is sent there belongs to whoever holds
    /// that (2025-11-25, "Resumability and Redelivery").
    pub fn open(&mut self, last_event_id: Option<&str>, out: &mut Vec<Output>) -> Result<Attachment, UnknownStream> {
        let resumed = last_event_id.and_then(parse_event_id);
        let (stream, after) = resumed.unwrap_or((StreamId::GET, self.get_sent));
        if !self.can_resume(stream) {
            return Err(UnknownStream);
        }
        // A number that was not sent yet is not one to resume from.
        let after = after.min(self.sent(stream));
        let replayed = self.replay.after(stream, after);
        if self.is_attached(stream) {
            out.push(Output::Close(stream));
        }
        let attachment = self.attach(stream, after);
        let ends = stream != StreamId::GET && !self.calls.contains_key(&stream);
        let has_last = replayed.last().is_some_and(|event| event.last);
        out.extend(replayed.into_iter().map(|event| Output::Event(Event { turn: Some(attachment.turn), ..event })));
        if let Some(call) = self.calls.get_mut(&stream) {
            call.attached = Some(attachment.turn);
            self.flush_requests(stream, out);
        } else if stream == StreamId::GET {
            self.get = Some(attachment.turn);
            self.flush_all(out);
        }
        if ends && !has_last {
            out.push(Output::Close(stream));
        }
        Ok(attachment)
    }

    /// The connection that held a stream is gone. A call goes on without it: in this era, hanging up is not cancelling.
    pub fn closed(&mut self, attachment: Attachment) {
        if attachment.stream == StreamId::GET {
            self.get = self.get.filter(|turn| *turn != attachment.turn);
        } else if let Some(call) = self.calls.get_mut(&attachment.stream) {
            call.attached = call.attached.filter(|turn| *turn != attachment.turn);
        }
    }

    /// The call on `stream` has waited long enough: it is answered with `failure` and the server is told.
    /// Returns whether there was such a call.
    pub fn give_up(&mut self, stream: StreamId, failure: &Failure, out: &mut Vec<Output>) -> bool {
        let Some(call) = self.calls.get(&stream) else { return false };
        let (key, id, method) = (call.key.clone(), call.id.clone(), call.method.clone());
        self.finish(stream, failure.answer(Some(&id), Some(&method)).into(), Some(failure.kind), out);
        if self.handshake.forget(&key) {
            return true;
        }
        self.abandon(key);
        // `initialize` must not be cancelled (2025-11-25, "Cancellation").
        match &*method {
            "initialize" => out.push(Output::NeverOpened),
            _ => self.pass_on(cancelled(&id), None, out),
        }
        true
    }

    /// The server did not take the call that the client knows as `key`: it is answered with `failure`. Nobody need tell the
    /// server, which will not answer it either.
    pub fn refused(&mut self, key: &IdKey, failure: &Failure, out: &mut Vec<Output>) {
        let Some((stream, call)) = self.calls.iter().find(|(_, call)| call.key == *key) else { return };
        let (stream, opens) = (*stream, &*call.method == "initialize");
        let answer = failure.answer(Some(&call.id), Some(&call.method));
        self.finish(stream, answer.into(), Some(failure.kind), out);
        if opens {
            out.push(Output::NeverOpened);
        }
    }

    /// The client takes a request back. The server need not answer it any more, so nobody waits for that.
    fn client_cancelled(&mut self, key: Option<&IdKey>, body: &Bytes, out: &mut Vec<Output>) {
        let was_sent = !key.is_some_and(|key| self.handshake.forget(key));
        if was_sent {
            self.pass_on(single_line(body), None, out);
        }
        let cancelled = self.calls.iter().find(|(_, call)| Some(&call.key) == key);
        let Some((stream, call)) = cancelled.filter(|(_, call)| &*call.method != "initialize") else { return };
        let (stream, key) = (*stream, call.key.clone());
        let failure = Failure::new(Kind::Cancelled, "the request was taken back with notifications/cancelled");
        let answer = failure.answer(Some(&call.id), Some(&call.method));
        self.finish(stream, answer.into(), Some(failure.kind), out);
        if was_sent {
            self.abandon(key);
        }
    }

    /// What still comes for that id is for nobody.
    fn abandon(&mut self, key: IdKey) {
        if self.abandoned.len() >= MAX_ABANDONED {
            self.abandoned.pop_front();
        }
        self.abandoned.push_back(key);
    }

    /// The server is gone: every call is answered with `failure` and every stream ends.
    pub fn end(&mut self, failure: &Failure, out: &mut Vec<Output>) {
        let mut streams: Vec<StreamId> = self.calls.keys().copied().collect();
        streams.sort_unstable();
        for stream in streams {
            let Some(call) = self.calls.get(&stream) else { continue };
            let answer = failure.answer(Some(&call.id), Some(&call.method));
            self.finish(stream, answer.into(), Some(failure.kind), out);
        }
        if self.get.take().is_some() {
            out.push(Output::Close(StreamId::GET));
        }
        self.waiting.take();
        self.asked = Asked::default();
    }

    /// Sends on what the client says, or lets it wait until the session is open.
    fn pass_on(&mut self, line: Bytes, key: Option<&IdKey>, out: &mut Vec<Output>) {
        match self.handshake.hold(line, key, &self.limits) {
            Held::Waits => {}
            Held::Passes(line) => out.push(Output::ToServer(line)),
            Held::Dropped => self.dropped += 1,
        }
    }

    fn attach(&mut self, stream: StreamId, after: u64) -> Attachment {
        self.turns += 1;
        Attachment { stream, after, turn: self.turns }
    }

    /// Number of the last event that was sent on `stream`; of an answered call's, only that there are no more.
    fn sent(&self, stream: StreamId) -> u64 {
        if stream == StreamId::GET { self.get_sent } else { self.calls.get(&stream).map_or(u64::MAX, |call| call.sent) }
    }

    fn is_attached(&self, stream: StreamId) -> bool {
        if stream == StreamId::GET {
            self.get.is_some()
        } else {
            self.calls.get(&stream).is_some_and(|call| call.attached.is_some())
        }
    }

    fn can_resume(&self, stream: StreamId) -> bool {
        stream == StreamId::GET || self.calls.contains_key(&stream) || self.replay.knows(stream)
    }

    fn newest_call(&self) -> Option<StreamId> {
        self.calls.iter().filter(|(_, call)| call.attached.is_some()).map(|(stream, _)| *stream).max()
    }

    fn send(&mut self, stream: StreamId, message: Bytes, out: &mut Vec<Output>) {
        let (sent, turn) = if stream == StreamId::GET {
            (&mut self.get_sent, self.get)
        } else {
            let Some(call) = self.calls.get_mut(&stream) else { return };
            (&mut call.sent, call.attached)
        };
        *sent += 1;
        let event = Event { stream, seq: *sent, message, failure: None, last: false, turn };
        self.replay.push(&event);
        if turn.is_some() {
            out.push(Output::Event(event));
        }
    }

    fn finish(&mut self, stream: StreamId, message: Bytes, failure: Option<Kind>, out: &mut Vec<Output>) {
        let Some(call) = self.calls.remove(&stream) else { return };
        self.asked.overtake(stream);
        let event = Event { stream, seq: call.sent + 1, message, failure, last: true, turn: call.attached };
        self.replay.push_answer(&event, &call.id, &call.method);
        if call.attached.is_some() {
            out.push(Output::Event(event));
        }
    }

    fn wait(&mut self, waiting: Waiting, out: &mut Vec<Output>) {
        let Err(Waiting { message, request }) = self.waiting.push(waiting, &self.limits) else { return };
        self.dropped += 1;
        if let Some(key) = request {
            self.refuse_server_request(&key, &message, out);
        }
    }

    fn refuse_server_request(&mut self, key: &IdKey, message: &Bytes, out: &mut Vec<Output>) {
        self.asked.remove(key);
        if let Ok(Message::Request(request)) = Message::parse(message) {
            let failure = Failure::new(Kind::Overloaded, "the client has no stream open and too much waits for it");
            out.push(Output::ToServer(failure.answer(Some(&request.id), None).into()));
        }
    }

    fn flush_all(&mut self, out: &mut Vec<Output>) {
        for waiting in self.waiting.take() {
            self.send_waiting(StreamId::GET, waiting, out);
        }
    }

    /// A call's stream takes the server's requests that wait, not the notifications, which are not about that call.
    fn flush_requests(&mut self, stream: StreamId, out: &mut Vec<Output>) {
        for waiting in self.waiting.take_requests() {
            self.send_waiting(stream, waiting, out);
        }
    }

    fn send_waiting(&mut self, stream: StreamId, waiting: Waiting, out: &mut Vec<Output>) {
        if let Some(key) = waiting.request {
            self.asked.insert(key, Some(stream));
        }
        self.send(stream, waiting.message, out);
    }
}
