//! The only writer of status: facts → conditions → `Ready` → one patch, and only if something changed.
//!
//! Events follow from transitions of conditions, so an unchanged object is silent.

use std::fmt::Debug;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    core::object::HasStatus,
    runtime::events::{Event, EventType},
};
use portolan_crds::{
    MCPGatewayStatus, MCPServerStatus, STATUS_MANAGER,
    conditions::{self, reasons, types},
};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::json;

use crate::{
    apply::{Applied, Resources},
    cluster::{Cluster, Namespaced},
    context::Ctx,
    error::{Class, Error},
    hex::hex,
};

/// Longest note of an Event that the API server takes.
const NOTE_BYTES: usize = 1024;
/// Longest message of a condition that the API server takes.
const MESSAGE_BYTES: usize = 32 * 1024;

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can tell yet.
    Unknown,
}

impl State {
    /// As a condition carries it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a reconcile found out for one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Condition type, of [`types`].
    pub type_: &'static str,
    /// Whether it is so.
    pub state: State,
    /// Of [`reasons`].
    pub reason: &'static str,
    /// For people: what is the matter, and the next step.
    pub message: String,
}

impl Fact {
    /// It is so.
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, state: State::True, reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, state: State::False, reason, message: message.into() }
    }

    /// Nobody can tell yet.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, state: State::Unknown, reason, message: message.into() }
    }
}

/// `Ready`: true when every fact of a type in `required` is; else what the first other one says, in the order of `required`.
#[must_use]
pub fn summarise(facts: &[Fact], required: &[&'static str], message: impl Into<String>) -> Fact {
    for type_ in required {
        match facts.iter().find(|fact| fact.type_ == *type_) {
            Some(fact) if fact.state == State::True => {}
            Some(fact) => return Fact { type_: types::READY, ..fact.clone() },
            None => return Fact::unknown(types::READY, reasons::RECONCILING, format!("{type_} is not known yet")),
        }
    }
    Fact::yes(types::READY, reasons::READY, message)
}

/// The pair that kstatus reads, for a reconcile that came to its end: still working when `pending` says at what.
#[must_use]
pub fn progress(pending: Option<(&'static str, String)>) -> [Fact; 2] {
    let reconciling = match pending {
        Some((reason, message)) => Fact::yes(types::RECONCILING, reason, message),
        None => Fact::no(types::RECONCILING, reasons::READY, "nothing is left to do"),
    };
    [reconciling, Fact::no(types::STALLED, reasons::RECONCILING, "nothing needs a person")]
}

/// The pair that kstatus reads, for a reconcile that came to its end and found what someone has to mend.
#[must_use]
pub fn stuck(reason: &'static str, message: impl Into<String>) -> [Fact; 2] {
    [Fact::no(types::RECONCILING, reason, "see Stalled"), Fact::yes(types::STALLED, reason, message)]
}

/// A condition whose status or reason is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it is now.
    pub fact: Fact,
    /// Whether its status changed (and not just the reason).
    pub flipped: bool,
}

/// `old` conditions after `facts`: the time of transition is kept where the status is, conditions that no fact speaks of
/// stay as they were.
#[must_use]
pub fn merge(
    old: &[Condition],
    facts: &[Fact],
    generation: Option<i64>,
    now: Timestamp,
) -> (Vec<Condition>, Vec<Transition>) {
    let mut merged: Vec<Condition> = old.to_vec();
    let mut transitions = Vec::new();
    for fact in facts {
        let before = conditions::find(old, fact.type_);
        let flipped = before.is_none_or(|before| before.status != fact.state.as_str());
        // Each step of a rollout is one, though it is the same reason.
        let step = |message: &str| message.split(';').next().map(str::to_owned);
        let is_step =
            |before: &Condition| fact.reason == reasons::CANARY_STEP && step(&before.message) != step(&fact.message);
        if flipped || before.is_some_and(|before| before.reason != fact.reason || is_step(before)) {
            transitions.push(Transition { fact: fact.clone(), flipped });
        }
        let last_transition_time = match before {
            Some(before) if !flipped => before.last_transition_time.clone(),
            // The API keeps seconds.
            _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        };
        let condition = Condition {
            type_: fact.type_.to_owned(),
            status: fact.state.as_str().to_owned(),
            reason: fact.reason.to_owned(),
            message: shorten(&fact.message, MESSAGE_BYTES),
            observed_generation: generation,
            last_transition_time,
        };
        match merged.iter_mut().find(|existing| existing.type_ == fact.type_) {
            Some(existing) => *existing = condition,
            None => merged.push(condition),
        }
    }
    (merged, transitions)
}

/// A status that carries conditions.
pub trait Conditioned: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
    /// Replaces them, and the generation that the status speaks of.
    fn set(&mut self, conditions: Vec<Condition>, generation: Option<i64>);
}

impl Conditioned for MCPServerStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
    fn set(&mut self, conditions: Vec<Condition>, generation: Option<i64>) {
        self.conditions = conditions;
        self.observed_generation = generation;
    }
}

impl Conditioned for MCPGatewayStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
    fn set(&mut self, conditions: Vec<Condition>, generation: Option<i64>) {
        self.conditions = conditions;
        self.observed_generation = generation;
    }
}

/// An object that reports.
pub trait Reported: Namespaced + HasStatus<Status: Conditioned> {}
impl<K: Namespaced + HasStatus<Status: Conditioned>> Reported for K {}

/// Writes what a reconcile that applied its children found. `status` holds everything but conditions, which come from
/// `facts`. Publishes Events for what transitioned, and returns it.
///
/// # Errors
/// The API server did not take the patch.
pub async fn write<K: Reported>(
    ctx: &Ctx,
    object: &K,
    _applied: &Resources<Applied>,
    status: K::Status,
    facts: &[Fact],
) -> Result<Vec<Transition>, Error> {
    put(ctx, object, status, facts).await
}

/// Writes why a reconcile did not come to its end. What was known before stays. A lost race or an API server that is
/// away says nothing about the object, so it is not written, except on an object that has no conditions yet. A patch that
/// the API server does not take is logged: `error` is what the reconcile failed with, and is tried again.
pub async fn fail<K: Reported>(ctx: &Ctx, object: &K, error: &Error) {
    let status = ctx.written.last(object).or_else(|| object.status().cloned()).unwrap_or_default();
    let no_news =
        matches!(error.reason, reasons::API_SERVER_ERROR | reasons::CONFLICT) && error.class == Class::Transient;
    if no_news && !status.conditions().is_empty() {
        return;
    }
    let facts = with_unknowns(status.conditions(), facts_of(error));
    if let Err(unwritten) = put(ctx, object, status, &facts).await {
        tracing::warn!(%error, %unwritten, "what a reconcile failed with could not be written to status");
    }
}

/// Every condition is written on first touch: a tool that finds one missing would take it for a good sign.
fn with_unknowns(before: &[Condition], mut facts: Vec<Fact>) -> Vec<Fact> {
    const ALL: [&str; 5] =
        [types::ACCEPTED, types::RESOLVED_REFS, types::PROGRAMMED, types::AVAILABLE, types::PROGRESSING];
    for type_ in ALL {
        let known = before.iter().any(|condition| condition.type_ == type_);
        if !known && !facts.iter().any(|fact| fact.type_ == type_) {
            facts.insert(0, Fact::unknown(type_, reasons::RECONCILING, "not looked at yet"));
        }
    }
    facts
}

/// What was found, overruled where `refused` speaks: a child that the API server does not take.
#[must_use]
pub fn overrule(mut facts: Vec<Fact>, refused: Option<&Error>) -> Vec<Fact> {
    for fact in refused.map(facts_of).unwrap_or_default() {
        facts.retain(|other| other.type_ != fact.type_);
        facts.push(fact);
    }
    facts
}

fn facts_of(error: &Error) -> Vec<Fact> {
    let (reconciling, stalled) = match error.class {
        Class::Stalled => (
            Fact::no(types::RECONCILING, error.reason, "see Stalled"),
            Fact::yes(types::STALLED, error.reason, error.message.clone()),
        ),
        Class::Transient | Class::Waiting(_) => (
            Fact::yes(types::RECONCILING, error.reason, error.message.clone()),
            Fact::no(types::STALLED, reasons::RECONCILING, "nothing needs a person"),
        ),
    };
    let own = error.condition.map(|type_| Fact::no(type_, error.reason, error.message.clone()));
    let ready = Fact::no(types::READY, error.reason, error.message.clone());
    own.into_iter().chain([ready, reconciling, stalled]).collect()
}

async fn put<K: Reported>(ctx: &Ctx, object: &K, status: K::Status, facts: &[Fact]) -> Result<Vec<Transition>, Error> {
    let told = ctx.written.last(object);
    let Some((wanted, transitions)) = next(object, told.as_ref().map(Conditioned::conditions), status, facts) else {
        ctx.metrics.status_patch("unchanged");
        return Ok(Vec::new());
    };
    match patch(&ctx.cluster, object, &wanted).await {
        Ok(()) => {
            ctx.metrics.status_patch("written");
            ctx.written.remember(object, wanted);
        }
        Err(error) => {
            ctx.metrics.status_patch("failed");
            return Err(error);
        }
    }
    publish(ctx, object, &transitions).await;
    Ok(transitions)
}

/// The status to write; `None` when it is there already. `told` are the conditions that were written last, which `object`
/// may not show yet.
fn next<K: Reported>(
    object: &K,
    told: Option<&[Condition]>,
    mut status: K::Status,
    facts: &[Fact],
) -> Option<(K::Status, Vec<Transition>)> {
    let old = object.status();
    let generation = object.meta().generation;
    let before = told.unwrap_or_else(|| old.map(Conditioned::conditions).unwrap_or_default());
    let (conditions, transitions) = merge(before, facts, generation, Timestamp::now());
    status.set(conditions, generation);
    (old != Some(&status)).then_some((status, transitions))
}

async fn patch<K: Reported>(cluster: &Cluster, object: &K, status: &K::Status) -> Result<(), Error> {
    let meta = object.meta();
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // The uid makes it a conflict if the object was made anew meanwhile.
        "metadata": {"name": name, "uid": meta.uid},
        "status": status,
    });
    cluster.apply_status::<K>(namespace, name, &patch, STATUS_MANAGER).await.map(drop)
}

/// Abnormal when true, as kstatus has it; what merely has not happened yet is not bad.
fn is_bad(fact: &Fact) -> bool {
    const UNDERWAY: [&str; 6] = [
        reasons::PENDING,
        reasons::RECONCILING,
        reasons::ROLLOUT_IN_PROGRESS,
        reasons::ROLLOUT_PAUSED,
        reasons::CANARY_STEP,
        reasons::NOT_LOADED,
    ];
    match fact.type_ {
        _ if UNDERWAY.contains(&fact.reason) => false,
        types::STALLED => fact.state == State::True,
        types::RECONCILING | types::PROGRESSING => false,
        _ => fact.state == State::False,
    }
}

async fn publish<K: Reported>(ctx: &Ctx, object: &K, transitions: &[Transition]) {
    let reference = object.object_ref(&());
    // What makes an object not ready is also said of Ready; say it once.
    let mut told: Vec<&str> = Vec::new();
    for Transition { fact, .. } in transitions.iter().filter(|transition| is_worth_an_event(transition)) {
        if told.contains(&fact.message.as_str()) {
            continue;
        }
        told.push(&fact.message);
        let note = shorten(&format!("{} is {}: {}", fact.type_, fact.state.as_str(), fact.message), NOTE_BYTES);
        let event = Event {
            type_: if is_bad(fact) { EventType::Warning } else { EventType::Normal },
            reason: fact.reason.to_owned(),
            // The recorder takes Events that differ in nothing but their note for one, and shows the first note for all of them.
            action: format!("Reconcile-{}", short_digest(&note)),
            note: Some(note),
            secondary: None,
        };
        let call = ctx.recorder.publish(&event, &reference);
        // An Event is a courtesy; the condition already says it.
        let taken = match tokio::time::timeout(crate::cluster::CALL_TIMEOUT, call).await {
            Ok(taken) => taken.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        if let Err(error) = taken {
            ctx.metrics.refused("event");
            tracing::warn!(error, "an Event was not taken");
        }
    }
}

fn short_digest(text: &str) -> String {
    hex(&digest(&SHA256, text.as_bytes()).as_ref()[..4])
}

fn is_worth_an_event(Transition { fact, flipped }: &Transition) -> bool {
    match fact.type_ {
        types::RECONCILING => false,
        types::STALLED => fact.state == State::True,
        types::READY | types::PROGRESSING => fact.state != State::Unknown,
        _ => is_bad(fact) || (*flipped && fact.state == State::True && fact.type_ == types::AVAILABLE),
    }
}

fn shorten(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
