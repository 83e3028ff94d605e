//! Requests of the sessionless era that share one connection to a server: no clock, no sockets.
//!
//! Clients choose ids and progress tokens without knowing of each other, so the server is given others, and each of its
//! messages goes to the one request that it belongs to.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Head, LISTEN};
use crate::envelope::{EnvelopeError, Id, Message, Request, scalar_param};
use crate::failure::{Failure, Kind};
use crate::session::{
    Refusal, cancelled, cancelled_because, single_line, subscription_of, with_id, with_progress_token_asked,
    with_progress_token_told, with_subscription_id,
};

/// Names a request whose answer is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply(u64);

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MuxOutput {
    /// Write this line to the server.
    ToServer(Bytes),
    /// Send this message to whoever asked.
    Message {
        /// The request that it belongs to.
        reply: Reply,
        /// The JSON-RPC message.
        message: Bytes,
        /// Set where this answer was made in the server's stead.
        failure: Option<Kind>,
        /// Whether it is the answer: nothing more will come.
        last: bool,
    },
    /// The server ended this stream without an answer.
    Close(Reply),
}

#[derive(Debug)]
struct Call {
    id: Id,
    method: Box<str>,
    progress: Option<Id>,
    hears_log: bool,
}

/// The state machine.
#[derive(Debug)]
pub struct Mux {
    max_calls: usize,
    is_shared: bool,
    last: u64,
    calls: BTreeMap<u64, Call>,
    dropped: u64,
}

impl Mux {
    /// One with no request under way, and never more than `max_calls`. Streams of notifications, which last, are at most half
    /// of them, so that there is always room for what is answered soon.
    #[must_use]
    pub fn new(max_calls: usize) -> Self {
        Self { max_calls, is_shared: false, last: 0, calls: BTreeMap::new(), dropped: 0 }
    }

    /// Like [`Self::new`], for requests of several callers: what does not say to which of them it belongs is nobody's.
    #[must_use]
    pub fn shared(max_calls: usize) -> Self {
        Self { is_shared: true, ..Self::new(max_calls) }
    }

    /// Requests under way, streams of notifications included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    fn listens(&self) -> usize {
        self.calls.values().filter(|call| &*call.method == LISTEN).count()
    }

    /// Whether `reply` is still under way.
    #[must_use]
    pub fn is_open(&self, reply: Reply) -> bool {
        self.calls.contains_key(&reply.0)
    }

    /// Messages that belonged to no request, since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes a client's request; `body` is what `request` was read from.
    ///
    /// # Errors
    /// Too many are under way; nothing changed then.
    pub fn ask(&mut self, request: &Request<'_>, body: &Bytes, out: &mut Vec<MuxOutput>) -> Result<Reply, Refusal> {
        if self.calls.len() >= self.max_calls || request.method == LISTEN && self.listens() >= self.max_calls / 2 {
            return Err(Refusal::TooManyCalls);
        }
        self.last += 1;
        let minted = Id::number(self.last);
        let head = Head::of_request(request);
        let mut line = with_id(body, &minted).unwrap_or_else(|| body.clone());
        if head.progress_token.is_some() {
            line = with_progress_token_asked(&line, &minted).unwrap_or(line);
        }
        let call = Call {
            id: request.id.clone(),
            method: request.method.as_ref().into(),
            progress: head.progress_token,
            hears_log: head.log_level.is_some(),
        };
        self.calls.insert(self.last, call);
        out.push(MuxOutput::ToServer(single_line(&line)));
        Ok(Reply(self.last))
    }

    /// Takes one line of the server.
    ///
    /// # Errors
    /// The line is not a JSON-RPC message; it changed nothing.
    pub fn server_line(&mut self, line: &Bytes, out: &mut Vec<MuxOutput>) -> Result<(), EnvelopeError> {
        match Message::parse(line)? {
            Message::Response { id: Some(id), .. } => self.answer(&id, line, out),
            Message::Response { id: None, .. } => self.dropped += 1,
            Message::Request(request) => refuse(&request, out),
            Message::Notification { method, params } => {
                let scalar = |member| params.and_then(|params| scalar_param(params, member));
                match method.as_ref() {
                    "notifications/progress" => self.progress(scalar("progressToken").as_ref(), line, out),
                    "notifications/cancelled" => self.ended_by_server(scalar("requestId").as_ref(), out),
                    "notifications/message" => self.log(line, out),
                    _ => self.notification(line, out),
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: &Id, line: &Bytes, out: &mut Vec<MuxOutput>) {
        let Some((reply, call)) = number(id).and_then(|minted| Some((Reply(minted), self.calls.remove(&minted)?)))
        else {
            return;
        };
        let answer = with_id(line, &call.id).unwrap_or_else(|| line.clone());
        let message = with_subscription_id(&answer, &call.id).filter(|_| &*call.method == LISTEN).unwrap_or(answer);
        out.push(MuxOutput::Message { reply, message, failure: None, last: true });
    }

    fn progress(&mut self, token: Option<&Id>, line: &Bytes, out: &mut Vec<MuxOutput>) {
        let Some((minted, call)) = token.and_then(number).and_then(|minted| Some((minted, self.calls.get(&minted)?)))
        else {
            // Of a request that was answered or given up: nobody waits for it.
            return;
        };
        if let Some(message) = call.progress.as_ref().and_then(|token| with_progress_token_told(line, token)) {
            out.push(MuxOutput::Message { reply: Reply(minted), message, failure: None, last: false });
        }
    }

    /// Over pipes this is how a server ends a stream of notifications; it cancels nothing else (2026-07-28,
    /// "CancelledNotification").
    fn ended_by_server(&mut self, id: Option<&Id>, out: &mut Vec<MuxOutput>) {
        let listens = |minted: &u64| self.calls.get(minted).is_some_and(|call| &*call.method == LISTEN);
        if let Some(minted) = id.and_then(number).filter(listens) {
            self.calls.remove(&minted);
            out.push(MuxOutput::Close(Reply(minted)));
        }
    }

    /// Log messages do not say what they belong to: the newest request that wants any is told. A stream of notifications
    /// carries only what it was opened for.
    fn log(&mut self, line: &Bytes, out: &mut Vec<MuxOutput>) {
        let hears = |call: &Call| call.hears_log && &*call.method != LISTEN && !self.is_shared;
        let newest = self.calls.iter().rev().find(|(_, call)| hears(call)).map(|(minted, _)| *minted);
        self.pass(newest, line.clone(), out);
    }

    fn notification(&mut self, line: &Bytes, out: &mut Vec<MuxOutput>) {
        if let Some(subscription) = subscription_of(line).and_then(Id::parse) {
            let known = number(&subscription).and_then(|minted| Some((minted, self.calls.get(&minted)?)));
            let Some((minted, call)) = known else { return };
            let message = with_subscription_id(line, &call.id).unwrap_or_else(|| line.clone());
            return self.pass(Some(minted), message, out);
        }
        // What belongs to no subscription belongs to a request: with one under way it is clear to which.
        let mut requests = self.calls.iter().filter(|(_, call)| &*call.method != LISTEN).map(|(minted, _)| *minted);
        let only = requests.next().filter(|_| requests.next().is_none() && !self.is_shared);
        self.pass(only, line.clone(), out);
    }

    fn pass(&mut self, to: Option<u64>, message: Bytes, out: &mut Vec<MuxOutput>) {
        match to {
            Some(minted) => {
                out.push(MuxOutput::Message { reply: Reply(minted), message, failure: None, last: false });
            }
            None => self.dropped += 1,
        }
    }

    /// Whoever asked has hung up, which in this era takes the request back.
    pub fn hung_up(&mut self, reply: Reply, out: &mut Vec<MuxOutput>) {
        if self.calls.remove(&reply.0).is_some() {
            out.push(MuxOutput::ToServer(cancelled_because(&Id::number(reply.0), "the client closed the request")));
        }
    }

    /// The request has waited long enough: it is answered with `failure` and the server is told. Returns whether there
    /// was such a request.
    pub fn give_up(&mut self, reply: Reply, failure: &Failure, out: &mut Vec<MuxOutput>) -> bool {
        let Some(call) = self.calls.remove(&reply.0) else { return false };
        out.push(fail(reply, &call, failure));
        out.push(MuxOutput::ToServer(cancelled(&Id::number(reply.0))));
        true
    }

    /// The server did not take the request that it knows as `id`: it is answered with `failure`. Returns whether there was
    /// such a request.
    pub fn refused(&mut self, id: &Id, failure: &Failure, out: &mut Vec<MuxOutput>) -> bool {
        let Some((minted, call)) = number(id).and_then(|minted| Some((minted, self.calls.remove(&minted)?))) else {
            return false;
        };
        out.push(fail(Reply(minted), &call, failure));
        true
    }

    /// The server is gone: every request is answered with `failure`.
    pub fn end(&mut self, failure: &Failure, out: &mut Vec<MuxOutput>) {
        for (minted, call) in std::mem::take(&mut self.calls) {
            out.push(fail(Reply(minted), &call, failure));
        }
    }
}

fn fail(reply: Reply, call: &Call, failure: &Failure) -> MuxOutput {
    let message = failure.answer(Some(&call.id), Some(&call.method)).into();
    MuxOutput::Message { reply, message, failure: Some(failure.kind), last: true }
}

/// Servers of this era ask nothing ("Receiving Messages"); one that does is told, so that it does not wait.
fn refuse(request: &Request<'_>, out: &mut Vec<MuxOutput>) {
    let failure =
        Failure::new(Kind::UnknownMethod, "a server of this revision sends no requests; answer input_required");
    out.push(MuxOutput::ToServer(failure.answer(Some(&request.id), None).into()));
}

fn number(id: &Id) -> Option<u64> {
    id.as_json().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(mux: &mut Mux, body: &str) -> (Reply, String) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let Ok(Message::Request(request)) = Message::parse(&body) else { panic!("a request") };
        let mut out = Vec::new();
        let reply = mux.ask(&request, &body, &mut out).expect("room");
        let [MuxOutput::ToServer(line)] = &out[..] else { panic!("{out:?}") };
        (reply, String::from_utf8_lossy(line).into_owned())
    }

    fn hear(mux: &mut Mux, line: &'static str) -> Vec<MuxOutput> {
        let mut out = Vec::new();
        mux.server_line(&Bytes::from_static(line.as_bytes()), &mut out).expect("a message");
        out
    }

    fn message(reply: Reply, text: &'static str, last: bool) -> MuxOutput {
        MuxOutput::Message { reply, message: Bytes::from_static(text.as_bytes()), failure: None, last }
    }

    #[test]
    fn two_clients_that_chose_the_same_id_and_token_each_get_their_own() {
        let mut mux = Mux::new(8);
        let body =
            r#"{"id":"a", "method":"tools/call","params":{"x":1.50,"_meta":{"progressToken":"t"}},"jsonrpc":"2.0"}"#;
        let (one, line) = ask(&mut mux, body);
        assert_eq!(
            line,
            r#"{"id":1, "method":"tools/call","params":{"x":1.50,"_meta":{"progressToken":1}},"jsonrpc":"2.0"}"#
        );
        let (other, _) = ask(&mut mux, body);
        let told = hear(
            &mut mux,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}}"#,
        );
        let text = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
        assert_eq!(told, [message(other, text, false)]);
        let told = hear(&mut mux, r#"{"jsonrpc":"2.0","id":1,"result":{"n":1e400}}"#);
        assert_eq!(told, [message(one, r#"{"jsonrpc":"2.0","id":"a","result":{"n":1e400}}"#, true)]);
        assert!(!mux.is_open(one) && mux.is_open(other));
        assert_eq!(hear(&mut mux, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), []);
    }

    #[test]
    fn a_stream_of_notifications_is_named_by_the_id_that_its_client_chose() {
        let mut mux = Mux::new(8);
        let (listen, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{}}"#);
        let (call, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#);
        let told = hear(
            &mut mux,
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#,
        );
        let text = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"l"}}}"#;
        assert_eq!(told, [message(listen, text, false)]);
        // What belongs to no subscription is the one call's.
        let told = hear(&mut mux, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!(told, [message(call, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, false)]);
        // A server ends its stream, and cancels nothing else.
        assert_eq!(
            hear(&mut mux, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#),
            []
        );
        let told = hear(&mut mux, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
        assert_eq!(told, [MuxOutput::Close(listen)]);
        let (again, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":"m","method":"subscriptions/listen","params":{}}"#);
        let told = hear(
            &mut mux,
            r#"{"jsonrpc":"2.0","id":3,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":3}}}"#,
        );
        let text = r#"{"jsonrpc":"2.0","id":"m","result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"m"}}}"#;
        assert_eq!(told, [message(again, text, true)]);
    }

    #[test]
    fn whoever_hangs_up_takes_the_request_back_and_whoever_waits_too_long_is_answered() {
        let mut mux = Mux::new(2);
        let (one, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
        let (other, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#);
        let Ok(Message::Request(third)) = Message::parse(&body) else { panic!("a request") };
        assert_eq!(mux.ask(&third, &body, &mut Vec::new()), Err(Refusal::TooManyCalls));
        let mut out = Vec::new();
        mux.hung_up(one, &mut out);
        mux.hung_up(one, &mut out);
        assert_eq!(out, [MuxOutput::ToServer(cancelled_because(&Id::number(1), "the client closed the request"))]);
        out.clear();
        assert!(mux.give_up(other, &Failure::new(Kind::RequestTimeout, "late"), &mut out));
        assert!(matches!(&out[0], MuxOutput::Message { failure: Some(Kind::RequestTimeout), last: true, .. }));
        assert_eq!(out[1], MuxOutput::ToServer(cancelled(&Id::number(2))));
        assert_eq!(mux.in_flight(), 0);
        let (refused, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
        out.clear();
        assert!(mux.refused(&Id::number(3), &Failure::new(Kind::BadServerReply, "no"), &mut out));
        assert!(matches!(&out[..], [MuxOutput::Message { reply, last: true, .. }] if *reply == refused), "{out:?}");
        assert!(!mux.refused(&Id::number(3), &Failure::new(Kind::BadServerReply, "no"), &mut out));
    }

    #[test]
    fn streams_of_notifications_leave_room_for_calls() {
        let mut mux = Mux::new(2);
        let listen = r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{}}"#;
        ask(&mut mux, listen);
        let body = Bytes::from_static(listen.as_bytes());
        let Ok(Message::Request(request)) = Message::parse(&body) else { panic!("a request") };
        assert_eq!(mux.ask(&request, &body, &mut Vec::new()), Err(Refusal::TooManyCalls));
        ask(&mut mux, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
    }

    #[test]
    fn log_messages_go_to_the_newest_request_that_wants_them() {
        let mut mux = Mux::new(8);
        let (quiet, _) = ask(&mut mux, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
        let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
        ask(
            &mut mux,
            r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/logLevel":"info"}}}"#,
        );
        assert_eq!(hear(&mut mux, log), []);
        assert_eq!(mux.take_dropped(), 1);
        let (wants, _) = ask(
            &mut mux,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/logLevel":"info"}}}"#,
        );
        assert_eq!(hear(&mut mux, log), [message(wants, log, false)]);
        let mut out = Vec::new();
        mux.end(&Failure::new(Kind::ServerExited, "gone"), &mut out);
        assert_eq!(out.len(), 3);
        assert!(!mux.is_open(quiet));
    }

    #[test]
    fn what_does_not_say_whose_it_is_goes_to_none_of_several_callers() {
        let mut mux = Mux::shared(8);
        let loud = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/logLevel":"info","progressToken":1}}}"#;
        let (only, _) = ask(&mut mux, loud);
        for line in [
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"someone's"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/x"}"#,
        ] {
            assert_eq!(hear(&mut mux, line), []);
        }
        assert_eq!(mux.take_dropped(), 2);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#;
        assert_eq!(hear(&mut mux, progress), [message(only, progress, false)]);
    }
}
