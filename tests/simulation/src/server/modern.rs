//! A server without sessions: what it wants to know it answers with, and what it needs for the next round its client
//! carries. It sends no requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use portolan_mcp::modern::meta;
use serde_json::{Value, json};

use super::{Desk, UnderWay, owner_of};
use crate::{
    run::Run,
    wire::{self, Kind, Said},
};

/// How often a call speaks before it answers, at most.
const SPEAKS: u64 = 3;
/// Rounds of a call, at most.
const ROUNDS: u64 = 3;

/// A call under way.
#[derive(Debug)]
struct Call {
    owner: String,
    number: u64,
    round: u64,
    left: u64,
    token: Value,
    hears_log: bool,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Modern {
    pub(super) desk: Desk,
    calls: BTreeMap<String, Call>,
    /// Streams of notifications, with what each is for.
    listens: BTreeMap<String, Value>,
}

impl Modern {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, calls: BTreeMap::new(), listens: BTreeMap::new() }
    }

    pub(super) fn read(&mut self, said: Said, run: &mut Run) {
        let Said { kind, id, method, body } = said;
        if kind == Kind::Request {
            assert!(wire::is_introduced(&body["_meta"]), "every request introduces its client: {body}");
        }
        match (kind, method.as_str()) {
            (Kind::Request, "server/discover") => {
                let capabilities = self.desk.capabilities();
                let result = json!({
                    "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities,
                    "_meta": {(meta::SERVER_INFO): {"name": "server", "version": "1"}},
                });
                self.desk.answer(&id, &result);
            }
            (Kind::Request, "subscriptions/listen") => self.listen(id, &body, run),
            (Kind::Request, "tools/call") => self.begin(id, &body, run),
            (Kind::Notification, "notifications/cancelled") => self.lose(&body["requestId"].to_string()),
            other => panic!("a client of this era does not say {other:?}"),
        }
    }

    fn listen(&mut self, id: String, params: &Value, run: &mut Run) {
        let mut honoured = params["notifications"].clone();
        if !self.desk.announces {
            honoured.as_object_mut().expect("a filter").remove("toolsListChanged");
        }
        let params = json!({"notifications": honoured, "_meta": subscription(&id)});
        self.desk.ready.push_back(wire::notification("notifications/subscriptions/acknowledged", &params));
        self.desk.chatter += run.rng.u32(0..3);
        self.listens.insert(id, honoured);
    }

    fn begin(&mut self, id: String, params: &Value, run: &mut Run) {
        let (owner, number) = (owner_of(params), params["call"].as_u64().expect("a call has a number"));
        let round = match params["requestState"].as_str() {
            Some(state) => {
                run.once(state.to_owned());
                resumed(&owner, number, state, &params["inputResponses"])
            }
            None => {
                run.once(format!("call {number} of {owner}"));
                0
            }
        };
        let (token, level) = (&params["_meta"]["progressToken"], &params["_meta"][meta::LOG_LEVEL]);
        let (token, hears_log) = (token.clone(), !level.is_null());
        self.desk.chatter += u32::from(run.rng.bool());
        self.calls.insert(id, Call { owner, number, round, left: run.rng.u64(0..SPEAKS), token, hears_log });
    }

    pub(super) fn lose(&mut self, id: &str) {
        self.calls.remove(id);
        self.listens.remove(id);
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.desk.ready.is_empty() || self.desk.chatter > 0 || !self.calls.is_empty()
    }

    pub(super) fn speak(&mut self, run: &mut Run) -> Option<Bytes> {
        let able: Vec<String> = self.calls.keys().cloned().collect();
        let Some(id) = run.rng.choice(able).filter(|_| self.desk.chatter == 0 || run.rng.bool()) else {
            self.desk.chatter = self.desk.chatter.checked_sub(1)?;
            return self.change(run);
        };
        let call = self.calls.get_mut(&id)?;
        if call.left == 0 {
            let call = self.calls.remove(&id)?;
            return Some(wire::result(&id, &self.outcome(&call, run)));
        }
        call.left -= 1;
        match run.rng.u8(0..3) {
            0 if !call.token.is_null() => Some(self.desk.progress(&call.owner, &call.token)),
            1 if call.hears_log => Some(self.desk.log(&call.owner)),
            _ => self.change(run),
        }
    }

    /// What a round of a call comes to.
    fn outcome(&mut self, call: &Call, run: &mut Run) -> Value {
        let owner = wire::canary(&call.owner);
        if call.round + 1 >= ROUNDS || run.rng.bool() {
            return json!({"resultType": "complete", "content": [], "canary": owner, "call": call.number});
        }
        let numbers: Vec<u64> = (0..run.rng.u8(0..3)).map(|_| self.desk.next()).collect();
        let questions: BTreeMap<String, Value> = numbers
            .iter()
            .map(|number| (format!("q{number}"), wire::question(&call.owner, call.number, *number)))
            .map(|(key, params)| (key, json!({"method": "elicitation/create", "params": params})))
            .collect();
        let asked: Vec<String> = questions.keys().cloned().collect();
        // Another process may come to the same numbers.
        let unique = run.rng.u64(..);
        let state = format!("{owner} {} {} {unique} {}", call.number, call.round + 1, asked.join(","));
        json!({"resultType": "input_required", "requestState": state, "inputRequests": questions})
    }

    /// Tells whoever listens for it.
    fn change(&mut self, run: &mut Run) -> Option<Bytes> {
        if run.mishap(8)
            && let Some((id, _)) = self.listens.pop_first()
        {
            // It ends a stream of its own accord, as is done over pipes or as an answer.
            let ended = json!({"resultType": "complete", "_meta": subscription(&id)});
            let params = json!({"requestId": serde_json::from_str::<Value>(&id).expect("JSON")});
            let cancelled = wire::notification("notifications/cancelled", &params);
            return Some(if run.rng.bool() { wire::result(&id, &ended) } else { cancelled });
        }
        let (method, params) = self.desk.change(run);
        for (id, filter) in &self.listens {
            let hears = match &params["uri"] {
                Value::Null => filter["toolsListChanged"] == true,
                uri => filter["resourceSubscriptions"].as_array().is_some_and(|all| all.contains(uri)),
            };
            if hears {
                let mut params = params.clone();
                params["_meta"] = subscription(id);
                self.desk.ready.push_back(wire::notification(method, &params));
            }
        }
        self.desk.ready.pop_front()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.keys().chain(self.listens.keys()).cloned().collect()
    }

    pub(super) fn under_way(&self) -> UnderWay {
        UnderWay { calls: self.calls.len(), questions: 0, listens: self.listens.len() }
    }
}

/// The round that `state` leads to, if what came back is what was asked for, and from whom it was asked.
fn resumed(owner: &str, number: u64, state: &str, responses: &Value) -> u64 {
    let parts: Vec<&str> = state.split(' ').collect();
    let [canary, call, round, _, asked] = parts[..] else { panic!("{state:?} is no state of this server") };
    assert_eq!((canary, call), (&*wire::canary(owner), &*number.to_string()), "the state of another call");
    for (key, response) in responses.as_object().into_iter().flatten() {
        assert!(asked.split(',').any(|asked| asked == key), "{key} was not asked: {state}");
        if let Some(answered) = response["number"].as_u64() {
            assert_eq!(format!("q{answered}"), *key, "the answer to another question");
        }
    }
    round.parse().expect("a number")
}

fn subscription(id: &str) -> Value {
    json!({(meta::SUBSCRIPTION_ID): serde_json::from_str::<Value>(id).expect("JSON")})
}
