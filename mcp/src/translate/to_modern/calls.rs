//! Calls under way, and what their client was asked in between.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{Step, error, own_id, own_number, request, result};
use crate::envelope::{Id, Message, Request};
use crate::failure::Kind;
use crate::members::Members;
use crate::modern::without_unsound_tools;
use crate::session::{IdKey, cancelled_because};

/// Rounds of one call: a server that asks more often does not come to an end.
const MAX_ROUNDS: u32 = 32;
/// Questions of one round.
const MAX_QUESTIONS: usize = 16;
/// What a server may ask.
const QUESTIONS: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];

#[derive(Debug)]
struct Call {
    id: Id,
    method: Box<str>,
    /// The request as it was made, for its next rounds.
    body: Bytes,
    rounds: u32,
}

/// What a client was asked for a call.
#[derive(Debug)]
struct Asked {
    call: Call,
    state: Option<String>,
    /// Key, number and method of questions without an answer.
    open: Vec<(String, u64, Box<str>)>,
    answers: Vec<(String, String)>,
}

/// The next round of a call.
#[derive(Debug)]
pub(super) struct Round {
    call: Call,
    state: Option<String>,
    answers: Vec<(String, String)>,
}

impl Round {
    pub(super) fn method(&self) -> &str {
        &self.call.method
    }

    /// The parameters of the call with what its client answered.
    pub(super) fn params(&self) -> Option<Members<'_>> {
        let Ok(Message::Request(request)) = Message::parse(&self.call.body) else { return None };
        let mut params = request.params.map_or_else(|| Some(Members::default()), |params| Members::of(params.get()))?;
        if !self.answers.is_empty() {
            let mut responses = Members::default();
            for (key, answer) in &self.answers {
                responses.set(key, answer.as_str());
            }
            params.set("inputResponses", responses.to_string());
        }
        if let Some(state) = &self.state {
            params.set("requestState", state.as_str());
        }
        Some(params)
    }
}

/// What came of an answer of the server.
pub(super) enum Answered {
    /// The call is over, or its client is asked.
    Done,
    /// The call goes on without its client.
    Again(Round),
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By the id that the server knows.
    at_server: BTreeMap<u64, Call>,
    at_client: Vec<Asked>,
    last_question: u64,
}

impl Calls {
    pub(super) fn begin(&mut self, minted: u64, request: &Request<'_>, body: &Bytes) {
        let call =
            Call { id: request.id.clone(), method: request.method.as_ref().into(), body: body.clone(), rounds: 0 };
        self.at_server.insert(minted, call);
    }

    pub(super) fn resume(&mut self, minted: u64, round: Round) {
        self.at_server.insert(minted, round.call);
    }

    /// The client takes its request back.
    pub(super) fn cancel(&mut self, key: &IdKey, out: &mut Vec<Step>) {
        const REASON: &str = "the request was taken back";
        if let Some(minted) = self.at_server.iter().find(|(_, call)| IdKey::from(&call.id) == *key).map(|(id, _)| *id) {
            self.at_server.remove(&minted);
            return out.push(Step::ToServer(cancelled_because(&Id::number(minted), REASON)));
        }
        let Some(position) = self.at_client.iter().position(|asked| IdKey::from(&asked.call.id) == *key) else {
            return;
        };
        for (_, number, _) in self.at_client.swap_remove(position).open {
            out.push(Step::ToClient(cancelled_because(&Id::string(own_id(number).trim_matches('"')), REASON)));
        }
    }

    /// The server did not take a call: gives the id that its client knows.
    pub(super) fn refused(&mut self, id: u64) -> Option<Id> {
        self.at_server.remove(&id).map(|call| call.id)
    }

    pub(super) fn server_answered(&mut self, id: u64, is_error: bool, payload: &str, out: &mut Vec<Step>) -> Answered {
        let Some(call) = self.at_server.remove(&id) else { return Answered::Done };
        if is_error {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{payload}}}"#, call.id.as_json());
            out.push(Step::ToClient(answer.into()));
            return Answered::Done;
        }
        let kind = Members::of(payload).and_then(|result| result.string("resultType"));
        match kind.as_deref() {
            None | Some("complete") => {
                out.push(Step::ToClient(result(call.id.as_json(), &without_modern(&call.method, payload))));
                Answered::Done
            }
            Some("input_required") => self.input_required(call, payload, out),
            Some(other) => fail(
                &call,
                &format!("the server answered with a result of type {other:?}, which sessions do not have"),
                out,
            ),
        }
    }

    fn input_required(&mut self, mut call: Call, payload: &str, out: &mut Vec<Step>) -> Answered {
        call.rounds += 1;
        if call.rounds > MAX_ROUNDS {
            return fail(&call, "the server asks for more again and again", out);
        }
        let asked = Members::of(payload).unwrap_or_default();
        let state = asked.get("requestState").map(str::to_owned);
        let questions = asked.get("inputRequests").and_then(Members::of).unwrap_or_default();
        let mut open = Vec::new();
        let mut messages = Vec::new();
        for (key, question) in questions.iter() {
            let question = Members::of(question).unwrap_or_default();
            let method = question.string("method").filter(|method| QUESTIONS.contains(&method.as_str()));
            let Some(method) = method.filter(|_| open.len() < MAX_QUESTIONS) else {
                return fail(&call, "the server asks something that no client can be asked, or too much at once", out);
            };
            self.last_question += 1;
            let params = for_session(question.get("params"), self.last_question);
            messages.push(Step::ToClient(request(&own_id(self.last_question), &method, &params)));
            open.push((key.to_owned(), self.last_question, method.into()));
        }
        if open.is_empty() {
            return Answered::Again(Round { call, state, answers: Vec::new() });
        }
        out.append(&mut messages);
        self.at_client.push(Asked { call, state, open, answers: Vec::new() });
        Answered::Done
    }

    /// The client answers a question; gives the next round of its call when that was the last one.
    pub(super) fn client_answered(
        &mut self,
        id: &Id,
        is_error: bool,
        payload: &str,
        out: &mut Vec<Step>,
    ) -> Option<Round> {
        let number = own_number(id)?;
        let has_it = |asked: &Asked| asked.open.iter().any(|(_, open, _)| *open == number);
        let position = self.at_client.iter().position(has_it)?;
        let asked = &mut self.at_client[position];
        let open = asked.open.iter().position(|(_, open, _)| *open == number)?;
        let (key, _, method) = asked.open.swap_remove(open);
        match (is_error, &*method) {
            (false, _) => asked.answers.push((key, payload.to_owned())),
            // A client that fails to ask its user has not got an answer: the server may go on without.
            (true, "elicitation/create") => asked.answers.push((key, r#"{"action":"cancel"}"#.to_owned())),
            (true, method) => {
                let asked = self.at_client.swap_remove(position);
                let message = Members::of(payload).and_then(|error| error.string("message")).unwrap_or_default();
                fail(&asked.call, &format!("the server asked for {method}, which the client refused: {message}"), out);
                return None;
            }
        }
        asked
            .open
            .is_empty()
            .then(|| self.at_client.swap_remove(position))
            .map(|Asked { call, state, answers, .. }| Round { call, state, answers })
    }
}

fn fail(call: &Call, message: &str, out: &mut Vec<Step>) -> Answered {
    out.push(Step::ToClient(error(call.id.as_json(), Kind::BadServerReply.code(), message)));
    Answered::Done
}

/// A question's parameters as sessions know them: a visit to a URL has a name there.
fn for_session(params: Option<&str>, number: u64) -> String {
    let Some(mut params) = params.and_then(Members::of) else { return "{}".to_owned() };
    if params.get("mode") == Some(r#""url""#) && params.get("elicitationId").is_none() {
        params.set("elicitationId", own_id(number));
    }
    params.to_string()
}

/// A result as sessions know it: complete without saying so, and structured content is an object there. Tools that no
/// client of this era may call are not shown.
fn without_modern(method: &str, payload: &str) -> String {
    let Some(mut result) = Members::of(payload) else { return payload.to_owned() };
    if let Some(tools) = result.get("tools").filter(|_| method == "tools/list").and_then(without_unsound_tools) {
        result.set("tools", tools);
    }
    result.remove("resultType");
    if result.get("structuredContent").is_some_and(|json| Members::of(json).is_none()) {
        result.remove("structuredContent");
    }
    result.to_string()
}
