//! A server of sessions: in the middle of a call it asks its client, and waits for the answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Desk, UnderWay, owner_of};
use crate::{
    run::Run,
    wire::{self, Kind, Said},
};

/// How often a call speaks before it answers, at most.
const SPEAKS: u64 = 4;

/// A call under way.
#[derive(Debug)]
struct Call {
    owner: String,
    number: u64,
    left: u64,
    token: Value,
    /// The question that it waits for.
    waits: Option<u64>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(super) desk: Desk,
    calls: BTreeMap<String, Call>,
    /// Open questions, by their calls.
    questions: BTreeMap<u64, String>,
    /// Questions that were open when their calls ended: an answer may be on its way.
    moot: BTreeSet<u64>,
    watched: BTreeSet<String>,
    is_begun: bool,
}

impl Legacy {
    pub(super) fn new(desk: Desk) -> Self {
        let (calls, questions, moot, watched) = Default::default();
        Self { desk, calls, questions, moot, watched, is_begun: false }
    }

    pub(super) fn read(&mut self, said: Said, run: &mut Run) {
        let Said { kind, id, method, body } = said;
        if kind == Kind::Request && method != "initialize" {
            let is_open = self.is_begun || !self.desk.is_of_all();
            assert!(is_open, "a session that is opened in its client's stead is open before {method}");
        }
        match (kind, method.as_str()) {
            (Kind::Request, "initialize") => {
                let capabilities = self.desk.capabilities();
                let info = json!({"name": "server", "version": "1"});
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info});
                self.desk.answer(&id, &result);
            }
            (Kind::Request, "resources/subscribe") => {
                let uri = body["uri"].as_str().expect("a uri");
                self.watched.insert(uri.to_owned());
                self.desk.answer(&id, &json!({}));
            }
            (Kind::Request, "resources/unsubscribe") => {
                let uri = body["uri"].as_str().expect("a uri");
                self.watched.remove(uri);
                self.desk.answer(&id, &json!({}));
            }
            (Kind::Request, "logging/setLevel") => self.desk.answer(&id, &json!({})),
            (Kind::Request, "tools/call") => self.begin(id, &body, run),
            (Kind::Notification, "notifications/initialized") => self.is_begun = true,
            (Kind::Notification, "notifications/cancelled") => self.cancelled(&body["requestId"].to_string(), run),
            (Kind::Result | Kind::Error, _) => self.told(&id, &body),
            other => panic!("a client of this era does not say {other:?}"),
        }
    }

    fn begin(&mut self, id: String, params: &Value, run: &mut Run) {
        let (owner, number) = (owner_of(params), params["call"].as_u64().expect("a call has a number"));
        run.once(format!("call {number} of {owner}"));
        let of_request = &params["_meta"];
        assert!(!wire::is_introduced(of_request), "a session was introduced once: {params}");
        let token = of_request["progressToken"].clone();
        self.desk.chatter += u32::from(run.rng.bool());
        self.calls.insert(id, Call { owner, number, left: run.rng.u64(0..SPEAKS), token, waits: None });
    }

    fn cancelled(&mut self, id: &str, run: &mut Run) {
        let Some(question) = self.calls.get(id).and_then(|call| call.waits) else {
            self.calls.remove(id);
            return;
        };
        if run.rng.bool() {
            let params = json!({"requestId": question, "reason": "the call was taken back"});
            self.desk.ready.push_back(wire::notification("notifications/cancelled", &params));
        }
        self.lose(id);
    }

    pub(super) fn lose(&mut self, id: &str) {
        if let Some(question) = self.calls.remove(id).and_then(|call| call.waits) {
            self.questions.remove(&question);
            self.moot.insert(question);
        }
    }

    /// A question is answered.
    fn told(&mut self, id: &str, answer: &Value) {
        let number: u64 = id.parse().expect("questions have numbers");
        if let Some(answered) = answer["number"].as_u64() {
            assert_eq!(answered, number, "the answer to another question");
        }
        if self.moot.remove(&number) {
            return;
        }
        let call = self.questions.remove(&number).expect("an answer to something that was asked, and only one");
        self.calls.get_mut(&call).expect("a question has a call").waits = None;
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.desk.ready.is_empty() || self.desk.chatter > 0 || self.calls.values().any(|call| call.waits.is_none())
    }

    pub(super) fn speak(&mut self, run: &mut Run) -> Option<Bytes> {
        let able: Vec<String> =
            self.calls.iter().filter(|(_, call)| call.waits.is_none()).map(|(id, _)| id.clone()).collect();
        let Some(id) = run.rng.choice(able).filter(|_| self.desk.chatter == 0 || run.rng.bool()) else {
            self.desk.chatter = self.desk.chatter.checked_sub(1)?;
            return Some(self.change(run));
        };
        let call = self.calls.get_mut(&id)?;
        if call.left == 0 {
            let result = json!({"content": [], "canary": wire::canary(&call.owner), "call": call.number});
            self.calls.remove(&id);
            return Some(wire::result(&id, &result));
        }
        call.left -= 1;
        Some(match run.rng.u8(0..5) {
            0 | 1 => {
                let number = self.desk.next();
                call.waits = Some(number);
                self.questions.insert(number, id);
                wire::request(number, "elicitation/create", &wire::question(&call.owner, call.number, number))
            }
            2 if !call.token.is_null() => self.desk.progress(&call.owner, &call.token),
            2 | 3 => self.desk.log(&call.owner),
            _ => self.change(run),
        })
    }

    /// Something changed. Of resources it says so when asked to only; of something else it says that nobody listens.
    fn change(&mut self, run: &mut Run) -> Bytes {
        let (method, params) = self.desk.change(run);
        match params["uri"].as_str() {
            Some(uri) if !self.watched.contains(uri) => wire::notification("notifications/other", &params),
            _ => wire::notification(method, &params),
        }
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.keys().cloned().collect()
    }

    pub(super) fn find(&self, owner: &str, number: u64) -> Option<String> {
        let is_it = |call: &Call| call.owner == owner && call.number == number;
        self.calls.iter().find(|(_, call)| is_it(call)).map(|(id, _)| id.clone())
    }

    pub(super) fn under_way(&self) -> UnderWay {
        UnderWay { calls: self.calls.len(), questions: self.questions.len(), listens: self.watched.len() }
    }
}
