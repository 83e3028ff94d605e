//! A client without sessions: each of its requests stands alone, goes through any replica, and is taken back when its
//! connection closes. What a server wants to know it brings with another request. It asks one server, or all of them at
//! their endpoint.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Act, At, Mood, Told};
use crate::{
    cluster::SERVERS,
    network::{Ask, ConnectionId, Frame, Purpose},
    run::{Name, Named, Run},
    server::RESOURCES,
    tally::Seen,
    wire::{self, Kind, Said},
};

/// Calls at a time.
const MAX_CALLS: usize = 3;
/// What every name of a parked call begins with.
const OURS: &str = "ptl1.";

/// One client.
#[derive(Debug)]
pub(crate) struct Caller {
    number: usize,
    pub(crate) name: String,
    pub(crate) at: At,
    /// Every client counts from 1, so all have the same ids and tokens.
    last_id: u64,
    last_call: u64,
    calls: BTreeMap<u64, Call>,
    /// Calls that wait for what their server wants to know.
    asked: Vec<Asked>,
    /// Those that it does not mean to come back for.
    forgotten: Vec<Asked>,
    listens: BTreeMap<u64, Listen>,
    pub(crate) served: u64,
}

/// A call under way, by the id of its request.
#[derive(Debug)]
struct Call {
    number: u64,
    server: usize,
    /// Which of two programs of this user asks.
    other: bool,
    replica: usize,
    /// What was handed back with it, and whether by the other program or to another server.
    round: Option<(Asked, bool)>,
}

/// What a call waits for.
#[derive(Clone, Debug)]
struct Asked {
    call: u64,
    server: usize,
    other: bool,
    replica: usize,
    state: Option<String>,
    questions: Vec<(String, u64)>,
}

/// A stream of notifications.
#[derive(Debug)]
struct Listen {
    connection: Option<ConnectionId>,
    wanted: Value,
    /// What the server said that it tells.
    honoured: Option<Value>,
    heard: BTreeSet<u64>,
}

impl Caller {
    pub(super) fn new(number: usize, at: At) -> Self {
        let (calls, asked, forgotten, listens) = Default::default();
        let (last_id, last_call, served) = Default::default();
        let name = format!("m{number}");
        Self { number, name, at, last_id, last_call, calls, asked, forgotten, listens, served }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty()
    }

    pub(super) fn means_to_come_back(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn leave(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.listens).into_values().filter_map(|listen| listen.connection).collect()
    }

    pub(super) fn act(&mut self, mood: Mood, run: &mut Run) -> Option<Act> {
        if !self.asked.is_empty() && run.chance(if run.chaos { 6 } else { 2 }) {
            let asked = self.asked.swap_remove(run.rng.usize(0..self.asked.len()));
            if run.mishap(6) {
                self.forgotten.push(asked);
                return None;
            }
            return Some(self.come_back(asked, run));
        }
        if mood == Mood::Busy {
            if !self.forgotten.is_empty() && run.chance(10) {
                let late = self.forgotten.swap_remove(run.rng.usize(0..self.forgotten.len()));
                return Some(self.come_back(late, run));
            }
            // Of the lists of all servers a replica tells by itself.
            if self.at.one().is_some() && run.chance(6) {
                return Some(self.listen(run));
            }
        }
        let has_room = self.calls.len() + self.asked.len() < MAX_CALLS;
        (mood != Mood::Finishing && has_room).then(|| self.call(run))
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn call(&mut self, run: &mut Run) -> Act {
        self.last_call += 1;
        let (id, number, other) = (self.id(), self.last_call, run.mishap(8));
        let server = match &self.at {
            At::One(server) => *server,
            At::All(servers) => *run.rng.choice(servers).expect("one is there"),
        };
        self.calls.insert(id, Call { number, server, other, replica: 0, round: None });
        self.post(id, &json!({}))
    }

    fn come_back(&mut self, asked: Asked, run: &mut Run) -> Act {
        let id = self.id();
        let mut responses = Map::new();
        for (key, number) in &asked.questions {
            match run.rng.u8(0..if run.chaos { 8 } else { 6 }) {
                // It is asked for this again.
                7 => None,
                6 => responses.insert(key.clone(), json!({"action": "cancel"})),
                _ => responses.insert(key.clone(), wire::answer(&self.name, *number)),
            };
        }
        let mut more = json!({"inputResponses": responses});
        if let Some(state) = &asked.state {
            more["requestState"] = state.as_str().into();
        }
        let (is_others, elsewhere) = (run.mishap(12), self.elsewhere(&asked, run));
        let strays = is_others || elsewhere.is_some();
        let (number, other, server) = (asked.call, asked.other != is_others, elsewhere.unwrap_or(asked.server));
        self.calls.insert(id, Call { number, server, other, replica: 0, round: Some((asked, strays)) });
        self.post(id, &more)
    }

    /// Another server, to which it brings what this one asked; now and then, where that can be told.
    fn elsewhere(&self, asked: &Asked, run: &mut Run) -> Option<usize> {
        let At::All(servers) = &self.at else { return None };
        let is_ours = asked.state.as_ref().is_some_and(|state| state.starts_with(OURS));
        let other = servers.iter().copied().find(|server| *server != asked.server);
        other.filter(|_| is_ours && run.chance(4)).inspect(|_| run.saw(Seen::Elsewhere))
    }

    /// The request `id`, as it was noted, with `more` parameters.
    fn post(&self, id: u64, more: &Value) -> Act {
        let Call { number, server, other, .. } = self.calls[&id];
        let name = self.tool(server);
        let mut params = json!({
            "name": name, "canary": wire::canary(&self.name), "call": number, "_meta": wire::introduction(other, id),
        });
        for (member, value) in more.as_object().into_iter().flatten() {
            params[member] = value.clone();
        }
        Act::Ask(Purpose::Call(id), Ask::Alone(wire::request(id, "tools/call", &params)))
    }

    fn tool(&self, server: usize) -> String {
        match self.at {
            At::One(_) => "tool".to_owned(),
            At::All(_) => wire::server_tool(SERVERS[server]),
        }
    }

    /// Opens a stream of notifications, or lets one go to open another.
    fn listen(&mut self, run: &mut Run) -> Act {
        if let Some((id, connection)) = self.listens.iter().find_map(|(id, listen)| Some((*id, listen.connection?)))
            && run.rng.bool()
        {
            self.listens.remove(&id);
            return Act::HangUp(connection);
        }
        let id = self.id();
        let resources: Vec<&str> = RESOURCES.into_iter().filter(|_| run.rng.bool()).collect();
        let mut wanted = json!({"promptsListChanged": true});
        if run.rng.bool() {
            wanted["toolsListChanged"] = true.into();
        }
        if !resources.is_empty() {
            wanted["resourceSubscriptions"] = resources.into();
        }
        let params = json!({"notifications": wanted, "_meta": wire::introduction(false, id)});
        let (connection, honoured, heard) = Default::default();
        self.listens.insert(id, Listen { connection, wanted, honoured, heard });
        Act::Ask(Purpose::Changes(id), Ask::Alone(wire::request(id, "subscriptions/listen", &params)))
    }

    pub(super) fn sent(&mut self, purpose: Purpose, connection: ConnectionId, replica: usize) {
        match purpose {
            Purpose::Call(id) => {
                self.calls.entry(id).and_modify(|call| call.replica = replica);
            }
            Purpose::Changes(id) => {
                self.listens.entry(id).and_modify(|listen| listen.connection = Some(connection));
            }
            _ => {}
        }
    }

    pub(super) fn take(&mut self, purpose: Purpose, frame: Frame, run: &mut Run) -> Told {
        match (purpose, frame) {
            (purpose, Frame::Event { message: Some(message), .. }) => {
                wire::assert_is_of(&self.name, &message, "at the client");
                let said = wire::read(&message);
                match purpose {
                    Purpose::Call(id) => return self.hear(id, said, run),
                    Purpose::Changes(id) => self.hear_change(id, said, run),
                    _ => panic!("{}: {said:?} on a stream of {purpose:?}", self.name),
                }
            }
            (Purpose::Call(id), Frame::End) => {
                assert!(!self.calls.contains_key(&id), "{}: request {id} ended without an answer", self.name);
            }
            (Purpose::Call(id), Frame::Refused(400)) => return self.is_stale(id, run),
            (Purpose::Call(id), Frame::Refused(_)) => {
                if let Some((asked, _)) = self.calls.remove(&id).and_then(|call| call.round) {
                    // Nobody took it, so it can be brought again.
                    self.asked.push(asked);
                }
            }
            (Purpose::Call(id), Frame::Broken) => {
                if self.calls.remove(&id).is_some() {
                    run.saw(Seen::Lost);
                }
            }
            (Purpose::Changes(id), Frame::End | Frame::Broken | Frame::Refused(_)) => drop(self.listens.remove(&id)),
            (purpose, frame) => panic!("{}: {frame:?} on a stream of {purpose:?}", self.name),
        }
        Told::Nothing
    }

    /// A message that belongs to the call of request `id`.
    fn hear(&mut self, id: u64, said: Said, run: &mut Run) -> Told {
        let Said { kind, id: answered, method, body } = said;
        let Some(call) = self.calls.get(&id) else { panic!("{}: {body} after the answer to {id}", self.name) };
        match kind {
            Kind::Notification => {
                if method == "notifications/progress" {
                    assert_eq!(body["progressToken"], id, "{}: progress of another request", self.name);
                }
                return Told::Nothing;
            }
            Kind::Request => panic!("{}: a client without sessions is asked {method}", self.name),
            Kind::Result | Kind::Error => assert_eq!(answered, id.to_string(), "{}: another's answer", self.name),
        }
        if kind == Kind::Error && body["code"] == -32602 && call.round.is_some() {
            return self.is_stale(id, run);
        }
        let Some(call) = self.calls.remove(&id) else { return Told::Nothing };
        if let Some((asked, _)) = &call.round
            && asked.replica != call.replica
            && asked.state.as_ref().is_some_and(|state| state.starts_with(OURS))
        {
            run.saw(Seen::Found);
        }
        if body["resultType"] == "input_required" {
            self.is_asked(&call, &body, run);
        } else {
            run.saw(Seen::Answered);
            if let Some(number) = body["call"].as_u64() {
                assert_eq!(number, call.number, "{}: the answer to another call", self.name);
                self.served += 1;
            }
        }
        Told::Nothing
    }

    fn is_asked(&mut self, call: &Call, body: &Value, run: &mut Run) {
        let state = body["requestState"].as_str().map(str::to_owned);
        if let Some(state) = state.clone().filter(|state| state.starts_with(OURS)) {
            run.saw(Seen::Parked);
            run.once(format!("parked under {state}"));
            let (tool, server) = (self.tool(call.server), self.at.one());
            run.names.push(Named { owner: self.number, server, name: Name::Parked { state, tool } });
        } else {
            run.saw(Seen::Round);
        }
        let number = |question: &Value| question["params"]["number"].as_u64().expect("questions have numbers");
        let questions = body["inputRequests"].as_object().into_iter().flatten();
        let questions = questions.map(|(key, question)| (key.clone(), number(question))).collect();
        let Call { number: call, server, other, replica, .. } = *call;
        self.asked.push(Asked { call, server, other, replica, state, questions });
    }

    /// Nothing waits for what it brought.
    fn is_stale(&mut self, id: u64, run: &mut Run) -> Told {
        let Some(call) = self.calls.remove(&id) else { return Told::Nothing };
        let Some((asked, strays)) = call.round else { panic!("{}: request {id} is no second round", self.name) };
        if strays {
            // Its other program or the other server has no such call, and it may come back as it should.
            self.asked.push(asked);
            return Told::Nothing;
        }
        run.saw(Seen::Stale);
        Told::Stale(call.number)
    }

    fn hear_change(&mut self, id: u64, said: Said, run: &mut Run) {
        let Some(listen) = self.listens.get_mut(&id) else { return };
        let Said { kind, method, body, .. } = said;
        if kind != Kind::Notification {
            drop(self.listens.remove(&id));
            return;
        }
        let subscription = &body["_meta"][portolan_mcp::modern::meta::SUBSCRIPTION_ID];
        assert_eq!(*subscription, id, "{}: {method} of another stream: {body}", self.name);
        let Some(honoured) = &listen.honoured else {
            assert_eq!(method, "notifications/subscriptions/acknowledged", "that comes first");
            let honoured = body["notifications"].clone();
            for (member, value) in honoured.as_object().into_iter().flatten() {
                assert_eq!(*value, listen.wanted[member], "{}: nobody asked for {member}", self.name);
            }
            listen.honoured = Some(honoured);
            return run.saw(Seen::Listening);
        };
        let is_wanted = match (method.as_str(), &body["uri"]) {
            ("notifications/tools/list_changed", _) => honoured["toolsListChanged"] == true,
            ("notifications/resources/updated", uri) => {
                honoured["resourceSubscriptions"].as_array().is_some_and(|all| all.contains(uri))
            }
            _ => false,
        };
        assert!(is_wanted, "{}: nobody asked for {method}: {body}", self.name);
        let number = body["number"].as_u64().expect("changes have numbers");
        assert!(listen.heard.insert(number), "{}: came twice: {body}", self.name);
        run.saw(Seen::Change);
    }
}
