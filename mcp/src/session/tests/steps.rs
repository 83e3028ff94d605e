//! Sessions under steps in any order.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    Answer(usize),
    AnswerTwice(usize),
    ServerAsks,
    ClientAnswers(usize),
    Notify,
    Open,
    Resume(usize),
    Close(usize),
    GiveUp(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Ask),
        3 => (0usize..8).prop_map(Step::Answer),
        1 => (0usize..8).prop_map(Step::AnswerTwice),
        1 => Just(Step::ServerAsks),
        1 => (0usize..8).prop_map(Step::ClientAnswers),
        2 => Just(Step::Notify),
        1 => Just(Step::Open),
        1 => (0usize..8).prop_map(Step::Resume),
        2 => (0usize..8).prop_map(Step::Close),
        1 => (0usize..8).prop_map(Step::GiveUp),
    ];
    proptest::collection::vec(step, 0..120)
}

/// A driver that remembers everything which left the machine.
#[derive(Default)]
struct World {
    ids: u64,
    pending: BTreeMap<u64, StreamId>,
    held: Vec<Attachment>,
    asked: Vec<u64>,
    passed: HashSet<u64>,
    seen: HashMap<(StreamId, u64), usize>,
    lasts: HashMap<StreamId, usize>,
    last_ids: Vec<String>,
}

impl World {
    /// Takes what left the machine; `resumed` is the stream on which sending again is the point.
    fn take(&mut self, out: Vec<Output>, resumed: bool) {
        for output in out {
            let Output::Event(event) = output else { continue };
            let times = self.seen.entry((event.stream, event.seq)).or_default();
            *times += 1;
            assert!(*times == 1 || resumed, "event {} was delivered twice", event.id());
            self.last_ids.push(event.id());
            if event.last && *times == 1 {
                *self.lasts.entry(event.stream).or_default() += 1;
            }
        }
    }

    fn step(&mut self, session: &mut Session, step: Step) {
        let mut out = Vec::new();
        let mut resumed = false;
        match step {
            Step::Ask => {
                self.ids += 1;
                let body = request(&self.ids.to_string(), "tools/call");
                let message = Message::parse(&body).expect("a message");
                if let Ok(Accepted::Call(attachment)) = session.accept(&message, &body, &mut out) {
                    self.pending.insert(self.ids, attachment.stream);
                    self.held.push(attachment);
                }
            }
            Step::Answer(n) | Step::AnswerTwice(n) => {
                let Some((&id, _)) = self.pending.iter().nth(n) else { return };
                for _ in 0..if matches!(step, Step::Answer(_)) { 1 } else { 2 } {
                    session.server_line(&answer(&id.to_string()), &mut out).expect("a message");
                }
                self.pending.remove(&id);
            }
            Step::ServerAsks => {
                self.ids += 1;
                session.server_line(&request(&self.ids.to_string(), "roots/list"), &mut out).expect("a message");
                self.asked.push(self.ids);
            }
            Step::ClientAnswers(n) => {
                let Some(&id) = self.asked.get(n) else { return };
                let body = answer(&id.to_string());
                let message = Message::parse(&body).expect("a message");
                session.accept(&message, &body, &mut out).expect("an answer is never refused");
                let passed = out.iter().any(|output| *output == Output::ToServer(body.clone()));
                assert!(!passed || self.passed.insert(id), "answer {id} reached the server twice");
            }
            Step::Notify => {
                session.server_line(&notification("notifications/message"), &mut out).expect("a message");
            }
            Step::Open => self.held.push(session.open(None, &mut out).expect("there is always a standing stream")),
            Step::Resume(n) => {
                let Some(last) = self.last_ids.iter().rev().nth(n).cloned() else { return };
                resumed = true;
                self.held.extend(session.open(Some(&last), &mut out));
            }
            Step::Close(n) => {
                if n < self.held.len() {
                    session.closed(self.held.swap_remove(n));
                }
            }
            Step::GiveUp(n) => {
                let Some((&id, &stream)) = self.pending.iter().nth(n) else { return };
                assert!(session.give_up(stream, &Failure::new(Kind::RequestTimeout, "slow"), &mut out));
                self.pending.remove(&id);
            }
        }
        self.take(out, resumed);
    }
}

proptest! {
    #[test]
    fn every_call_is_answered_once_and_nothing_is_delivered_twice(steps in steps()) {
        let limits = Limits { replay_events: 10_000, replay_bytes: 1 << 24, ..Limits::default() };
        let mut session = Session::new(limits);
        let mut world = World::default();
        for step in steps {
            world.step(&mut session, step);
        }
        prop_assert_eq!(session.in_flight(), world.pending.len());
        let mut out = Vec::new();
        session.end(&Failure::new(Kind::ServerExited, "gone"), &mut out);
        world.take(out, false);
        prop_assert_eq!(session.in_flight(), 0);
        // An answer whose connection had gone is still there to be fetched.
        for stream in 1..=session.last_stream {
            let stream = StreamId(stream);
            let kept = session.replay.after(stream, 0).iter().filter(|event| event.last).count();
            prop_assert_eq!(kept, 1, "stream {:?} has exactly one answer", stream);
            prop_assert!(world.lasts.get(&stream).copied().unwrap_or(0) <= 1);
        }
    }
}
