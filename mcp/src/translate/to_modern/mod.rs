//! One client's session in front of a server that knows none.
//!
//! What a session says once, every request says there: who asks, what it can do, which log messages it wants. A result
//! that asks for more becomes questions to the client, and their answers become a second request (SEP-2322).

mod calls;
mod listen;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::calls::{Answered, Calls};
use self::listen::{Listen, Watched};
use super::{ServerIntro, Step, error, result};
use crate::envelope::{EnvelopeError, Id, Message, Request, scalar_param};
use crate::failure::Kind;
use crate::members::Members;
use crate::modern::{DISCOVER, LISTEN, meta};
use crate::revision::{self, LATEST_LEGACY, MODERN};
use crate::session::{IdKey, subscription_of};

/// Notifications of a client that have no meaning without a session.
const SAID_TO_SESSIONS: [&str; 2] = ["notifications/roots/list_changed", "notifications/progress"];

/// What the session said once.
#[derive(Debug, Default)]
struct Spoken {
    info: Option<String>,
    capabilities: Option<String>,
    revision: Option<String>,
    level: Option<String>,
}

/// The state machine. Its client's requests have ids that differ while they are under way, as
/// [`crate::session::Session`] sees to it.
#[derive(Debug, Default)]
pub struct ToModern {
    spoken: Spoken,
    server: ServerIntro,
    last: u64,
    /// Requests that ask who the server is, each with the client's `initialize` that it is for.
    introducing: Vec<(u64, Id)>,
    calls: Calls,
    listen: Listen,
}

impl ToModern {
    /// One that has heard nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn mint(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Takes a message of the client.
    ///
    /// # Errors
    /// It is not a JSON-RPC message; it changed nothing.
    pub fn client_message(&mut self, body: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match Message::parse(body)? {
            Message::Request(request) => self.client_request(&request, body, out),
            Message::Notification { method, params } => match &*method {
                "notifications/initialized" => self.listen_again(out),
                "notifications/cancelled" => {
                    if let Some(id) = params.and_then(|params| scalar_param(params, "requestId")) {
                        self.calls.cancel(&IdKey::from(&id), out);
                    }
                }
                method if SAID_TO_SESSIONS.contains(&method) => {}
                _ => out.push(Step::ToServer(body.clone())),
            },
            Message::Response { id, is_error, payload } => {
                if let Some(call) = id.and_then(|id| self.calls.client_answered(&id, is_error, payload.get(), out)) {
                    self.ask_again(call, out);
                }
            }
        }
        Ok(())
    }

    fn client_request(&mut self, request: &Request<'_>, body: &Bytes, out: &mut Vec<Step>) {
        let id = request.id.as_json();
        let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
        match &*request.method {
            "initialize" => self.introduce(&request.id, &params, out),
            "ping" => out.push(Step::ToClient(result(id, "{}"))),
            "logging/setLevel" => {
                self.spoken.level = params.get("level").map(str::to_owned);
                out.push(Step::ToClient(result(id, "{}")));
            }
            "resources/subscribe" | "resources/unsubscribe" => self.watch(request, &params, out),
            DISCOVER | LISTEN => {
                let message = format!("{} is not a method of sessions", request.method);
                out.push(Step::ToClient(error(id, Kind::UnknownMethod.code(), &message)));
            }
            _ => {
                let minted = self.mint();
                out.push(Step::ToServer(self.spoken.request(minted, &request.method, &params)));
                self.calls.begin(minted, request, body);
            }
        }
    }

    fn introduce(&mut self, id: &Id, params: &Members<'_>, out: &mut Vec<Step>) {
        let object = |name| params.get(name).filter(|json| Members::of(json).is_some()).map(str::to_owned);
        self.spoken.info = object("clientInfo");
        self.spoken.capabilities = object("capabilities");
        self.spoken.revision = params.string("protocolVersion");
        let minted = self.ask(DISCOVER, &Members::default(), out);
        self.introducing.push((minted, id.clone()));
    }

    fn ask(&mut self, method: &str, params: &Members<'_>, out: &mut Vec<Step>) -> u64 {
        let minted = self.mint();
        out.push(Step::ToServer(self.spoken.request(minted, method, params)));
        minted
    }

    fn ask_again(&mut self, call: calls::Round, out: &mut Vec<Step>) {
        let minted = self.mint();
        let Some(params) = call.params() else { return };
        out.push(Step::ToServer(self.spoken.request(minted, call.method(), &params)));
        drop(params);
        self.calls.resume(minted, call);
    }

    fn watch(&mut self, request: &Request<'_>, params: &Members<'_>, out: &mut Vec<Step>) {
        let id = request.id.as_json();
        if !self.server.says("resources", "subscribe") {
            let message = "the server announces no changes of resources";
            return out.push(Step::ToClient(error(id, Kind::UnknownMethod.code(), message)));
        }
        let Some(uri) = params.string("uri") else {
            let message = "params.uri must name the resource";
            return out.push(Step::ToClient(error(id, Kind::InvalidParams.code(), message)));
        };
        if request.method == "resources/subscribe" {
            match self.listen.watch(uri, &request.id) {
                Watched::Already => {}
                Watched::Soon => return,
                Watched::Anew => return self.listen_again(out),
                Watched::TooMany => {
                    let message = "the session watches too many resources; unsubscribe from some first";
                    return out.push(Step::ToClient(error(id, Kind::Overloaded.code(), message)));
                }
            }
        } else if self.listen.unwatch(&uri) {
            self.listen_again(out);
        }
        out.push(Step::ToClient(result(id, "{}")));
    }

    /// Opens a stream for all that the session wants to hear; the one before ends when this one has begun.
    fn listen_again(&mut self, out: &mut Vec<Step>) {
        let filter = self.listen.filter(&self.server);
        let params = Members::of(&filter).unwrap_or_default();
        let minted = if params.is_empty() {
            None
        } else {
            let mut params = Members::default();
            params.set("notifications", filter.as_str());
            Some(self.ask(LISTEN, &params, out))
        };
        self.listen.replace(minted, out);
    }

    /// Takes a message of the server.
    ///
    /// # Errors
    /// It is not a JSON-RPC message; it changed nothing.
    pub fn server_message(&mut self, body: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match Message::parse(body)? {
            Message::Response { id: Some(id), is_error, payload } => {
                if let Some(id) = number(&id) {
                    self.server_answered(id, is_error, payload.get(), out);
                }
            }
            Message::Response { id: None, .. } => {}
            Message::Request(request) => {
                let message = "a server of this revision sends no requests; answer input_required";
                out.push(Step::ToServer(error(request.id.as_json(), Kind::UnknownMethod.code(), message)));
            }
            Message::Notification { method, params } => {
                let subscription = subscription_of(body).and_then(Id::parse).as_ref().and_then(number);
                match &*method {
                    "notifications/subscriptions/acknowledged" => self.listen.acknowledged(subscription, out),
                    "notifications/cancelled" => {
                        let id = params.and_then(|params| scalar_param(params, "requestId"));
                        self.listen.ended(id.as_ref().and_then(number), None, out);
                    }
                    _ if subscription.is_some_and(|id| !self.listen.is_current(id)) => {}
                    _ => out.push(Step::ToClient(without_subscription(body).unwrap_or_else(|| body.clone()))),
                }
            }
        }
        Ok(())
    }

    fn server_answered(&mut self, id: u64, is_error: bool, payload: &str, out: &mut Vec<Step>) {
        if let Some(position) = self.introducing.iter().position(|(own, _)| *own == id) {
            let (_, client) = self.introducing.swap_remove(position);
            return self.introduced(&client, is_error, payload, out);
        }
        if self.listen.is_wanted(id) {
            return self.listen.ended(Some(id), is_error.then_some(payload), out);
        }
        match self.calls.server_answered(id, is_error, payload, out) {
            Answered::Done => {}
            Answered::Again(call) => self.ask_again(call, out),
        }
    }

    fn introduced(&mut self, client: &Id, is_error: bool, payload: &str, out: &mut Vec<Step>) {
        let client = client.as_json();
        let Some(server) = ServerIntro::of_discover(payload).filter(|_| !is_error) else {
            let unreadable = r#"{"code":-32603,"message":"the server's answer to server/discover says nothing of it"}"#;
            let error = if is_error { payload } else { unreadable };
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{client},"error":{error}}}"#);
            return out.push(Step::ToClient(answer.into()));
        };
        self.server = server;
        let asked = self.spoken.revision.as_deref().filter(|asked| revision::is_legacy(asked));
        let mut initialized = Members::default();
        initialized.set("protocolVersion", serde_json::Value::from(asked.unwrap_or(LATEST_LEGACY)).to_string());
        initialized.set("capabilities", self.server.capabilities.as_str());
        initialized.set("serverInfo", self.server.info.as_deref().unwrap_or(r#"{"name":"unnamed","version":""}"#));
        if let Some(instructions) = &self.server.instructions {
            initialized.set("instructions", instructions.as_str());
        }
        out.push(Step::ToClient(result(client, &initialized.to_string())));
    }

    /// The server did not take the request `id`, or ended its stream without an answer: what its client knows it by,
    /// where it is a client's. A stream of notifications is opened again when the session next wants another one.
    pub fn refused(&mut self, id: &Id, out: &mut Vec<Step>) -> Option<Id> {
        let id = number(id)?;
        if self.listen.is_wanted(id) || self.introducing.iter().any(|(own, _)| *own == id) {
            let message = r#"{"code":-32005,"message":"the server did not answer; ask again"}"#;
            self.server_answered(id, true, message, out);
            return None;
        }
        self.calls.refused(id)
    }
}

impl Spoken {
    /// A request that says all that the session said.
    fn request(&self, id: u64, method: &str, params: &Members<'_>) -> Bytes {
        let mut of_request = params.get("_meta").and_then(Members::of).unwrap_or_default();
        of_request.set(meta::PROTOCOL_VERSION, serde_json::Value::from(MODERN[0]).to_string());
        if let Some(info) = &self.info {
            of_request.set(meta::CLIENT_INFO, info.as_str());
        }
        of_request.set(meta::CLIENT_CAPABILITIES, self.capabilities.as_deref().unwrap_or("{}"));
        if let Some(level) = &self.level {
            of_request.set(meta::LOG_LEVEL, level.as_str());
        }
        let of_request = of_request.to_string();
        let mut params = params.clone();
        params.set("_meta", of_request);
        let method = serde_json::Value::from(method);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#).into()
    }
}

/// A notification as sessions know it: it belongs to the session, not to a request.
fn without_subscription(body: &Bytes) -> Option<Bytes> {
    subscription_of(body)?;
    let mut message = Members::of(std::str::from_utf8(body).ok()?)?;
    let mut params = Members::of(message.get("params")?)?;
    let mut of_message = Members::of(params.get("_meta")?)?;
    of_message.remove(meta::SUBSCRIPTION_ID);
    let rest = (!of_message.is_empty()).then(|| of_message.to_string());
    match rest {
        Some(rest) => params.set("_meta", rest),
        None => drop(params.remove("_meta")),
    }
    let params = params.to_string();
    message.set("params", params);
    Some(message.to_string().into())
}

fn number(id: &Id) -> Option<u64> {
    id.as_json().parse().ok()
}
