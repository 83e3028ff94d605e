//! Clients of the sessionless era in front of a server that wants a session: one caller's, opened here.
//!
//! A question that the server asks in the middle of a call becomes the answer to that call (SEP-2322): the call waits
//! here, under a sealed name, until its client comes back with what was asked for.

mod answer;
mod calls;
mod listen;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use self::calls::{Call, Calls};
use self::listen::Listens;
use super::{ServerIntro, Step, error, notification, own_id, own_number, request, result};
use crate::envelope::{EnvelopeError, Id, Message, Request, scalar_param};
use crate::failure::{Failure, Kind};
use crate::members::Members;
use crate::modern::{DISCOVER, Head, LISTEN, REMOVED, meta};
use crate::parked::ParkingKey;
use crate::revision::LATEST_LEGACY;
use crate::token::SessionKey;

pub(super) use self::answer::discover;

/// A client that does not say who it is.
const UNNAMED: &str = r#"{"name":"unnamed","version":""}"#;

/// What names parked calls: the key that seals, the pod, and whose they are.
#[derive(Debug)]
pub struct Parking {
    /// Seals names.
    pub key: ParkingKey,
    /// UID of this pod.
    pub pod: Box<str>,
    /// Whose calls these are.
    pub caller: SessionKey,
}

/// What the caller said of itself, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Introduction {
    /// `clientInfo`, an object.
    pub info: Box<str>,
    /// `clientCapabilities`, an object.
    pub capabilities: Box<str>,
}

impl Introduction {
    /// What tells it from others.
    #[must_use]
    pub fn digest(&self) -> Vec<u8> {
        [self.info.as_bytes(), b"\n", self.capabilities.as_bytes()].concat()
    }

    /// Of someone who stands for several callers, so that none of them is asked anything.
    #[must_use]
    pub fn of_many() -> Self {
        Self { info: UNNAMED.into(), capabilities: "{}".into() }
    }

    /// What a request says of its sender.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        Self {
            info: object(head.client_info).unwrap_or(UNNAMED).into(),
            capabilities: object(head.capabilities).unwrap_or("{}").into(),
        }
    }
}

fn object(raw: Option<&serde_json::value::RawValue>) -> Option<&str> {
    raw.map(serde_json::value::RawValue::get).filter(|json| Members::of(json).is_some())
}

#[derive(Debug)]
enum Phase {
    /// There was no session to be had: the next request asks for one again.
    Closed,
    /// Requests wait for the session, in their order.
    Opening(VecDeque<Bytes>),
    Open,
}

/// The state machine. Its client's requests have numbers for ids, each its own, as [`crate::modern::Mux`] gives them.
#[derive(Debug)]
pub struct ToLegacy {
    phase: Phase,
    introduction: Introduction,
    server: ServerIntro,
    /// Which request of its own opens the session; of what the others come to nothing depends.
    opening: u64,
    last_own: u64,
    level: Option<String>,
    calls: Calls,
    listens: Listens,
}

impl ToLegacy {
    /// One whose session is not open yet. What it needs from the server is asked for at once.
    #[must_use]
    pub fn new(introduction: Introduction, parking: Parking, out: &mut Vec<Step>) -> Self {
        let mut this = Self {
            phase: Phase::Opening(VecDeque::new()),
            introduction,
            server: ServerIntro::default(),
            opening: 0,
            last_own: 0,
            level: None,
            calls: Calls::new(parking),
            listens: Listens::default(),
        };
        this.initialize(out);
        this
    }

    fn initialize(&mut self, out: &mut Vec<Step>) {
        let Introduction { info, capabilities } = &self.introduction;
        let params =
            format!(r#"{{"protocolVersion":"{LATEST_LEGACY}","capabilities":{capabilities},"clientInfo":{info}}}"#);
        self.opening = self.ask("initialize", &params, out);
    }

    /// Calls that wait for their clients to come back.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.calls.parked()
    }

    fn ask(&mut self, method: &str, params: &str, out: &mut Vec<Step>) -> u64 {
        self.last_own += 1;
        out.push(Step::ToServer(request(&own_id(self.last_own), method, params)));
        self.last_own
    }

    /// Takes a message of the client.
    ///
    /// # Errors
    /// It is not a JSON-RPC message; it changed nothing.
    pub fn client_message(&mut self, body: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match (Message::parse(body)?, &mut self.phase) {
            (Message::Request(_), Phase::Opening(waiting)) => waiting.push_back(body.clone()),
            (Message::Request(_), Phase::Closed) => {
                self.phase = Phase::Opening(VecDeque::from([body.clone()]));
                self.initialize(out);
            }
            (Message::Request(request), Phase::Open) => self.client_request(&request, body, out),
            (Message::Notification { method, params }, _) => {
                if method == "notifications/cancelled" {
                    let id = params.and_then(|params| scalar_param(params, "requestId"));
                    self.client_cancelled(id.as_ref().and_then(number), out);
                } else if matches!(self.phase, Phase::Open) {
                    out.push(Step::ToServer(body.clone()));
                }
            }
            // Clients of this era answer with a new request.
            (Message::Response { .. }, _) => {}
        }
        Ok(())
    }

    fn client_request(&mut self, request: &Request<'_>, body: &Bytes, out: &mut Vec<Step>) {
        let (id, method) = (request.id.as_json(), &*request.method);
        if REMOVED.contains(&method) {
            let message = format!("{method} is not a method of this revision");
            return out.push(Step::ToClient(error(id, Kind::UnknownMethod.code(), &message)));
        }
        match method {
            DISCOVER => out.push(Step::ToClient(result(id, &answer::discover(&self.server)))),
            LISTEN => self.listen(request, out),
            _ => self.call(request, body, out),
        }
    }

    fn call(&mut self, request: &Request<'_>, body: &Bytes, out: &mut Vec<Step>) {
        let head = Head::of_request(request);
        let Some(id) = number(&request.id) else { return };
        if let Some(state) = &head.request_state {
            let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
            return self.calls.come_back(id, &head, state, &params, &self.server, out);
        }
        self.set_level(head.log_level.and_then(|level| serde_json::from_str(level.get()).ok()), out);
        self.calls.begin(id, Call::new(id, &head));
        out.push(Step::ToServer(without_modern(body).unwrap_or_else(|| body.clone())));
    }

    /// A level is the session's there and a request's here: the newest request that wants any decides.
    fn set_level(&mut self, level: Option<String>, out: &mut Vec<Step>) {
        if level.is_none() || level == self.level || !self.server.has("logging") {
            return;
        }
        let name = serde_json::Value::from(level.as_deref());
        self.ask("logging/setLevel", &format!(r#"{{"level":{name}}}"#), out);
        self.level = level;
    }

    fn listen(&mut self, request: &Request<'_>, out: &mut Vec<Step>) {
        let Some(id) = number(&request.id) else { return };
        let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
        let Some(filter) = params.get("notifications").and_then(Members::of) else {
            let message = "params.notifications must say what to listen for, such as {\"toolsListChanged\": true}";
            return out.push(Step::ToClient(error(request.id.as_json(), Kind::InvalidParams.code(), message)));
        };
        let begun = self.listens.begin(id, &filter, &self.server);
        out.push(Step::ToClient(begun.acknowledgement));
        for uri in begun.subscribe {
            self.ask("resources/subscribe", &uri_params(&uri), out);
        }
    }

    fn client_cancelled(&mut self, id: Option<u64>, out: &mut Vec<Step>) {
        let Some(id) = id else { return };
        if let Phase::Opening(waiting) = &mut self.phase {
            waiting
                .retain(|body| !matches!(Message::parse(body), Ok(Message::Request(r)) if number(&r.id) == Some(id)));
        }
        for uri in self.listens.end(id) {
            self.ask("resources/unsubscribe", &uri_params(&uri), out);
        }
        self.calls.cancel(id, out);
    }

    /// Takes a message of the server.
    ///
    /// # Errors
    /// It is not a JSON-RPC message; it changed nothing.
    pub fn server_message(&mut self, body: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match Message::parse(body)? {
            Message::Response { id: Some(id), is_error, payload } => match own_number(&id) {
                Some(number) => self.own_answered(number, is_error, payload.get(), out),
                None => self.calls.answered(number(&id), is_error, payload.get(), &self.server, out),
            },
            Message::Response { id: None, .. } => {}
            Message::Request(request) => self.server_request(&request, out),
            Message::Notification { method, params } => {
                self.server_notification(&method, params.map(serde_json::value::RawValue::get), body, out);
            }
        }
        Ok(())
    }

    fn own_answered(&mut self, number: u64, is_error: bool, payload: &str, out: &mut Vec<Step>) {
        if number != self.opening {
            return;
        }
        let Phase::Opening(waiting) = &mut self.phase else { return };
        let waiting = std::mem::take(waiting);
        match ServerIntro::of_initialize(payload).filter(|_| !is_error) {
            Some(server) => {
                self.server = server;
                out.push(Step::ToServer(notification("notifications/initialized", "{}")));
                self.phase = Phase::Open;
                for body in waiting {
                    // They were read before they were put here.
                    let _read_before = self.client_message(&body, out);
                }
            }
            None => {
                self.phase = Phase::Closed;
                let message = Members::of(payload).and_then(|error| error.string("message")).unwrap_or_default();
                let message = format!("the server refused to open a session for this caller: {message}");
                fail_all(&waiting, &Failure::new(Kind::BadServerReply, message), out);
            }
        }
    }

    fn server_request(&mut self, request: &Request<'_>, out: &mut Vec<Step>) {
        let id = request.id.as_json();
        let capability = match &*request.method {
            "ping" => return out.push(Step::ToServer(result(id, "{}"))),
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => "",
        };
        let can = Members::of(&self.introduction.capabilities).is_some_and(|all| all.get(capability).is_some());
        if !can {
            let message = "the client behind this session cannot do that";
            return out.push(Step::ToServer(error(id, Kind::UnknownMethod.code(), message)));
        }
        self.calls.asked(request, out);
    }

    fn server_notification(&mut self, method: &str, params: Option<&str>, body: &Bytes, out: &mut Vec<Step>) {
        match method {
            "notifications/progress" => self.calls.progress(params, out),
            "notifications/cancelled" => {
                let id = params.and_then(Members::of).and_then(|params| params.get("requestId").map(str::to_owned));
                self.calls.question_withdrawn(id.as_deref());
            }
            // What it announced, nobody waits for: the client asks again by itself.
            "notifications/elicitation/complete" => {}
            _ if listen::is_change(method) => self.listens.changed(method, params, out),
            _ => out.push(Step::ToClient(body.clone())),
        }
    }

    /// The server did not take the request `id`, so it will not answer it: what its client knows it by, where it is a
    /// client's.
    pub fn refused(&mut self, id: &Id, out: &mut Vec<Step>) -> Option<Id> {
        match own_number(id) {
            Some(number) => {
                let message = r#"{"message":"it does not take the request"}"#;
                self.own_answered(number, true, message, out);
                None
            }
            None => number(id).and_then(|id| self.calls.refused(id, out)).map(Id::number),
        }
    }

    /// The client of the parked call `name` did not come back: its questions are refused and the server is told.
    pub fn expire(&mut self, name: &str, out: &mut Vec<Step>) {
        self.calls.expire(name, out);
    }
}

fn fail_all(requests: &VecDeque<Bytes>, failure: &Failure, out: &mut Vec<Step>) {
    for body in requests {
        if let Ok(Message::Request(request)) = Message::parse(body) {
            out.push(Step::ToClient(failure.answer(Some(&request.id), Some(&request.method)).into()));
        }
    }
}

/// Parameters that name a resource.
fn uri_params(uri: &str) -> String {
    format!(r#"{{"uri":{}}}"#, serde_json::Value::from(uri))
}

fn number(id: &Id) -> Option<u64> {
    id.as_json().parse().ok()
}

/// A request as a server of the other era knows it: what it says of revision and client is the session's there. `None`
/// where it says nothing of that.
#[must_use]
pub fn without_modern(body: &Bytes) -> Option<Bytes> {
    let mut message = Members::of(std::str::from_utf8(body).ok()?)?;
    let mut params = Members::of(message.get("params")?)?;
    params.retain(|name| name != "inputResponses");
    if let Some(mut of_request) = params.get("_meta").and_then(Members::of) {
        of_request.retain(|name| {
            ![meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES, meta::LOG_LEVEL].contains(&name)
        });
        if of_request.is_empty() {
            params.remove("_meta");
        } else {
            params.set("_meta", of_request.to_string());
        }
    }
    let params = params.to_string();
    message.set("params", params);
    Some(message.to_string().into())
}
