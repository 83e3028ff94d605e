//! Calls under way, and those that wait for their clients to come back.

use std::collections::BTreeMap;

use super::super::{ServerIntro, Step, error, notification, result};
use super::{Parking, answer};
use crate::envelope::{Id, Request};
use crate::failure::Kind;
use crate::members::Members;
use crate::modern::{Head, NAMED};
use crate::parked::{Opened, Parked};
use crate::session::{IdKey, cancelled_because};
use crate::token::SessionKey;

/// Calls that may wait at once; of more, the one that waits longest is given up.
const MAX_PARKED: usize = 32;
/// Questions of one call that may wait for their answers.
const MAX_QUESTIONS: usize = 16;

/// A question of the server in the middle of a call.
#[derive(Debug)]
struct Question {
    key: String,
    id: Id,
    method: Box<str>,
    params: Option<Box<str>>,
    told: bool,
}

/// A call, by the id under which the server knows it.
#[derive(Debug)]
pub(super) struct Call {
    /// Under which id its client waits now.
    client_id: u64,
    method: Box<str>,
    name: Option<Box<str>>,
    questions: Vec<Question>,
    asked: u64,
    /// Its name while it waits for its client, and the answer where it came meanwhile.
    parked: Option<Name>,
    answer: Option<Answer>,
}

/// The names of parked calls: numbers, so that they have an order.
type Name = u64;

#[derive(Debug)]
struct Answer {
    is_error: bool,
    payload: Box<str>,
}

impl Call {
    pub(super) fn new(id: u64, head: &Head<'_>) -> Self {
        Self {
            client_id: id,
            method: head.method.as_ref().into(),
            name: head.name.as_deref().map(Into::into),
            questions: Vec::new(),
            asked: 0,
            parked: None,
            answer: None,
        }
    }

    fn may_ask(&self) -> bool {
        NAMED.iter().any(|(method, _)| **method == *self.method)
    }

    fn ask(&mut self, question: Question) {
        self.asked += 1;
        let key = format!("{}-{}", question.method.rsplit('/').next().unwrap_or_default(), self.asked);
        self.questions.push(Question { key, told: false, ..question });
    }

    /// What its client is told to bring.
    fn tell(&mut self, state: Option<&str>) -> String {
        for question in &mut self.questions {
            question.told = true;
        }
        let questions =
            self.questions.iter().map(|question| (&*question.key, &*question.method, question.params.as_deref()));
        answer::input_required(questions, state)
    }
}

/// All calls of one caller.
#[derive(Debug)]
pub(super) struct Calls {
    parking: Parking,
    calls: BTreeMap<u64, Call>,
    /// Parked calls by name, the longest parked first, with their ids at the server.
    parked: BTreeMap<Name, u64>,
    last_name: Name,
    /// Part of every name: the same caller's next session, or another one of its programs, begins to count again.
    session: Option<SessionKey>,
}

impl Calls {
    pub(super) fn new(parking: Parking) -> Self {
        let session = SessionKey::generate().ok();
        Self { parking, calls: BTreeMap::new(), parked: BTreeMap::new(), last_name: 0, session }
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn begin(&mut self, id: u64, call: Call) {
        self.calls.insert(id, call);
    }

    /// The client takes its request back.
    pub(super) fn cancel(&mut self, id: u64, out: &mut Vec<Step>) {
        let waits = |call: &Call| call.client_id == id && call.parked.is_none();
        let Some(at_server) = self.calls.iter().find(|(_, call)| waits(call)).map(|(id, _)| *id) else { return };
        self.calls.remove(&at_server);
        out.push(Step::ToServer(cancelled_because(&Id::number(at_server), "the client closed the request")));
    }

    /// The server answers.
    pub(super) fn answered(
        &mut self,
        id: Option<u64>,
        is_error: bool,
        payload: &str,
        server: &ServerIntro,
        out: &mut Vec<Step>,
    ) {
        let Some((id, call)) = id.and_then(|id| Some((id, self.calls.get_mut(&id)?))) else { return };
        let answer = Answer { is_error, payload: payload.into() };
        if call.parked.is_some() {
            // Whoever comes back gets it.
            call.answer = Some(answer);
            let questions = std::mem::take(&mut call.questions);
            return self.ask_elsewhere(questions, out);
        }
        if let Some(call) = self.calls.remove(&id) {
            out.push(Step::ToClient(translated(&call, &answer, server)));
        }
    }

    /// The server did not take a call, or will not answer it any more: gives the id under which its client waits.
    pub(super) fn refused(&mut self, id: u64, out: &mut Vec<Step>) -> Option<u64> {
        let call = self.calls.remove(&id)?;
        self.ask_elsewhere(call.questions, out);
        if let Some(name) = call.parked {
            // Its client waits for nothing now, and is told when it comes back.
            self.parked.remove(&name);
            out.push(Step::Unparked(self.written(name)));
            return None;
        }
        Some(call.client_id)
    }

    /// The call is over that was thought to be the one that the server asks for.
    fn ask_elsewhere(&mut self, questions: Vec<Question>, out: &mut Vec<Step>) {
        for question in questions {
            self.ask(question, out);
        }
    }

    /// The server asks.
    pub(super) fn asked(&mut self, request: &Request<'_>, out: &mut Vec<Step>) {
        let question = Question {
            key: String::new(),
            id: request.id.clone(),
            method: request.method.as_ref().into(),
            params: request.params.map(|params| params.get().into()),
            told: false,
        };
        self.ask(question, out);
    }

    /// A server does not say in the middle of which call it asks: the newest that may ask is taken.
    fn ask(&mut self, question: Question, out: &mut Vec<Step>) {
        let newest = |parked: bool| {
            let fits = |call: &Call| call.may_ask() && call.answer.is_none() && call.parked.is_some() == parked;
            self.calls.iter().rev().find(|(_, call)| fits(call)).map(|(id, _)| *id)
        };
        let found = newest(false).or_else(|| newest(true)).and_then(|id| Some((id, self.calls.get_mut(&id)?)));
        let Some((id, call)) = found.filter(|(_, call)| call.questions.len() < MAX_QUESTIONS) else {
            let message = "no call of this session is under way in which its client could be asked";
            return out.push(Step::ToServer(error(question.id.as_json(), Kind::InvalidRequest.code(), message)));
        };
        call.ask(question);
        if call.parked.is_none() {
            self.park(id, out);
        }
    }

    fn park(&mut self, id: u64, out: &mut Vec<Step>) {
        if self.parked.len() >= MAX_PARKED
            && let Some(oldest) = self.parked.keys().next().copied()
        {
            self.give_up(oldest, out);
            out.push(Step::Unparked(self.written(oldest)));
        }
        self.last_name += 1;
        let name = self.last_name;
        let parked = Parked { pod: self.parking.pod.clone(), call: self.written(name) };
        let Some(state) = self.parking.key.seal(&parked, &self.parking.caller) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        let told = call.tell(Some(&state));
        out.push(Step::ToClient(result(&call.client_id.to_string(), &told)));
        call.parked = Some(name);
        self.parked.insert(name, id);
        out.push(Step::Parked(parked.call));
    }

    /// A name as others have it.
    fn written(&self, name: Name) -> Box<str> {
        let session = self.session.as_ref().map(SessionKey::as_str).unwrap_or_default();
        format!("{name}.{session}").into()
    }

    fn read(&self, name: &str) -> Option<Name> {
        let number = name.split('.').next()?.parse().ok()?;
        (*self.written(number) == *name).then_some(number)
    }

    /// A client comes back with `params` for a parked call.
    pub(super) fn come_back(
        &mut self,
        client_id: u64,
        head: &Head<'_>,
        state: &str,
        params: &Members<'_>,
        server: &ServerIntro,
        out: &mut Vec<Step>,
    ) {
        let id = match self.parking.key.open(state, &self.parking.caller) {
            Opened::Ours(Parked { pod, call }) if pod == self.parking.pod => {
                self.read(&call).and_then(|name| self.parked.get(&name).copied())
            }
            _ => None,
        };
        let found = id.and_then(|id| Some((id, self.calls.get_mut(&id)?)));
        // A name is good for the request that it was made for only.
        let found =
            found.filter(|(_, call)| *call.method == *head.method && call.name.as_deref() == head.name.as_deref());
        let Some((id, call)) = found else {
            let message = "no call waits under this requestState; make the call again without requestState";
            return out.push(Step::ToClient(error(&client_id.to_string(), Kind::InvalidParams.code(), message)));
        };
        let name = call.parked.take();
        call.client_id = client_id;
        if let Some(name) = name {
            self.parked.remove(&name);
            out.push(Step::Unparked(self.written(name)));
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Some(answer) = call.answer.take() {
            out.push(Step::ToClient(translated(call, &answer, server)));
            self.calls.remove(&id);
            return;
        }
        let given = params.get("inputResponses").and_then(Members::of).unwrap_or_default();
        call.questions.retain(|question| match given.get(&question.key).filter(|_| question.told) {
            Some(response) => {
                out.push(Step::ToServer(result(question.id.as_json(), response)));
                false
            }
            None => true,
        });
        if call.questions.is_empty() {
            self.take_over(id);
        }
        if self.calls.get(&id).is_some_and(|call| !call.questions.is_empty()) {
            self.park(id, out);
        }
    }

    /// The client of this call is here: it can be told what waits for clients that may never come back.
    fn take_over(&mut self, id: u64) {
        let parked = self.calls.values_mut().filter(|call| call.parked.is_some());
        let untold: Vec<Question> = parked
            .flat_map(|call| call.questions.extract_if(.., |question| !question.told))
            .take(MAX_QUESTIONS)
            .collect();
        if let Some(call) = self.calls.get_mut(&id) {
            untold.into_iter().for_each(|question| call.ask(question));
        }
    }

    /// The server does not want its question answered any more.
    pub(super) fn question_withdrawn(&mut self, id: Option<&str>) {
        let Some(key) = id.and_then(|id| serde_json::from_str(id).ok()).and_then(Id::parse).map(|id| IdKey::from(&id))
        else {
            return;
        };
        for call in self.calls.values_mut() {
            call.questions.retain(|question| IdKey::from(&question.id) != key);
        }
    }

    /// Progress of a call whose client may wait under another id by now.
    pub(super) fn progress(&self, params: Option<&str>, out: &mut Vec<Step>) {
        let Some(mut params) = params.and_then(Members::of) else { return };
        let token = params.get("progressToken").and_then(|token| token.parse().ok());
        let Some(call) = token.and_then(|token: u64| self.calls.get(&token)) else { return };
        if call.parked.is_none() {
            params.set("progressToken", call.client_id.to_string());
            out.push(Step::ToClient(notification("notifications/progress", &params.to_string())));
        }
    }

    pub(super) fn expire(&mut self, name: &str, out: &mut Vec<Step>) {
        if let Some(name) = self.read(name) {
            self.give_up(name, out);
        }
    }

    fn give_up(&mut self, name: Name, out: &mut Vec<Step>) {
        let Some((id, call)) = self.parked.remove(&name).and_then(|id| Some((id, self.calls.remove(&id)?))) else {
            return;
        };
        for question in &call.questions {
            let message = "the client did not come back with an answer";
            out.push(Step::ToServer(error(question.id.as_json(), Kind::Cancelled.code(), message)));
        }
        if call.answer.is_none() {
            out.push(Step::ToServer(cancelled_because(&Id::number(id), "the client did not come back with an answer")));
        }
    }
}

fn translated(call: &Call, answer: &Answer, server: &ServerIntro) -> bytes::Bytes {
    let id = call.client_id;
    if !answer.is_error {
        return result(&id.to_string(), &answer::complete(&call.method, &answer.payload, server));
    }
    match answer::error(&answer.payload) {
        answer::Translated::InputRequired(told) if call.may_ask() => result(&id.to_string(), &told),
        answer::Translated::InputRequired(_) => {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, answer.payload).into()
        }
        answer::Translated::Error(payload) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{payload}}}"#).into(),
    }
}
