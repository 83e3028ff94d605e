//! A session under any order of events: every call is answered once, nothing comes twice or to the wrong hold, and the
//! bounds hold.
//!
//! The input is a script, one event a line: `>` and what the client posts, `<` and what the server writes, `+` and the
//! `Last-Event-ID` with which the client opens a stream (nothing: the standing one), `-` and the number of a hold whose
//! connection is gone, `!` and the number of a call that is given up. Any other line is none.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use portolan_mcp::envelope::{Message, scalar_param};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::session::{
    Accepted, Attachment, Event, IdKey, Limits, Output, Refusal, Session, StreamId, single_line,
};

/// Small enough to be reached.
const LIMITS: Limits =
    Limits { calls: 3, server_requests: 3, queued: 4, queued_bytes: 300, replay_events: 6, replay_bytes: 600 };
const MAX_ABANDONED: usize = 64;

/// `script` is what happens.
pub fn check(script: &[u8]) {
    let mut world = World::new();
    for line in script.split(|byte| *byte == b'\n') {
        let Some((what, rest)) = line.split_first() else { continue };
        let number = || std::str::from_utf8(rest).ok()?.trim().parse::<usize>().ok();
        match what {
            b'>' => world.client_posts(&Bytes::copy_from_slice(rest)),
            b'<' => world.server_writes(&Bytes::copy_from_slice(rest)),
            b'+' => world.client_opens(&String::from_utf8_lossy(rest)),
            b'-' => number().into_iter().for_each(|number| world.client_goes(number)),
            b'!' => number().into_iter().for_each(|number| world.call_is_given_up(number)),
            _ => {}
        }
        world.holds_its_bounds();
    }
    world.server_ends();
}

/// One connection's hold on a stream, as its driver sees it.
struct Hold {
    attachment: Attachment,
    seen: u64,
    is_over: bool,
}

struct Waiting {
    stream: StreamId,
    may_be_cancelled: bool,
}

struct World {
    session: Session,
    holds: Vec<Hold>,
    /// Calls without an answer, in the order in which they came.
    calls: Vec<(IdKey, Waiting)>,
    abandoned: VecDeque<IdKey>,
    /// Everything that the server wrote.
    written: HashSet<Bytes>,
    asked: HashMap<IdKey, usize>,
    answered: HashMap<IdKey, usize>,
}

impl World {
    fn new() -> Self {
        Self {
            session: Session::new(LIMITS),
            holds: Vec::new(),
            calls: Vec::new(),
            abandoned: VecDeque::new(),
            written: HashSet::new(),
            asked: HashMap::new(),
            answered: HashMap::new(),
        }
    }

    fn client_posts(&mut self, body: &Bytes) {
        let Ok(message) = Message::parse(body) else { return };
        let mut out = Vec::new();
        let accepted = self.session.accept(&message, body, &mut out);
        let passed = out.iter().any(|output| *output == Output::ToServer(single_line(body)));
        match &message {
            Message::Request(request) => {
                let key = IdKey::from(&request.id);
                let is_known = self.abandoned.contains(&key) || self.calls.iter().any(|(known, _)| *known == key);
                let is_full = self.calls.len() >= LIMITS.calls;
                match accepted {
                    Ok(Accepted::Call(attachment)) => {
                        assert!(!is_known && !is_full && passed);
                        self.hold(attachment);
                        let may_be_cancelled = request.method != "initialize";
                        self.calls.push((key, Waiting { stream: attachment.stream, may_be_cancelled }));
                    }
                    Err(refusal) => {
                        assert_eq!(out, [], "what is refused changes nothing");
                        let expected = if is_known { Refusal::DuplicateId } else { Refusal::TooManyCalls };
                        assert!(is_known || is_full);
                        assert_eq!(refusal, expected);
                    }
                    Ok(Accepted::Done) => panic!("a request has a stream"),
                }
            }
            Message::Notification { method, params } => {
                assert!(passed && accepted == Ok(Accepted::Done));
                let request = params.and_then(|params| scalar_param(params, "requestId")).as_ref().map(IdKey::from);
                if let Some(key) = request.filter(|_| method == "notifications/cancelled") {
                    let answered = self.remove(|known, call| *known == key && call.may_be_cancelled);
                    self.abandon(answered.is_some().then_some(key));
                    return self.take(out, answered);
                }
            }
            Message::Response { id, .. } => {
                assert_eq!(accepted, Ok(Accepted::Done));
                if passed {
                    let key = IdKey::from(id.as_ref().expect("only what the server asked is answered"));
                    let answers = self.answered.entry(key.clone()).or_default();
                    *answers += 1;
                    assert!(*answers <= self.asked.get(&key).copied().unwrap_or_default(), "{key:?} is answered twice");
                }
            }
        }
        self.take(out, None);
    }

    fn server_writes(&mut self, line: &Bytes) {
        let mut out = Vec::new();
        self.written.insert(line.clone());
        let taken = self.session.server_line(line, &mut out);
        let Ok(message) = Message::parse(line) else {
            assert!(taken.is_err() && out.is_empty());
            return;
        };
        assert_eq!(taken, Ok(()));
        let mut answered = None;
        match message {
            Message::Response { id: Some(id), .. } => {
                let key = IdKey::from(&id);
                answered = self.remove(|known, _| *known == key);
                if answered.is_none() {
                    self.abandoned.retain(|known| *known != key);
                }
            }
            Message::Request(request) => *self.asked.entry(IdKey::from(&request.id)).or_default() += 1,
            _ => {}
        }
        self.take(out, answered);
    }

    fn client_opens(&mut self, last: &str) {
        let mut out = Vec::new();
        let last = Some(last).filter(|last| !last.is_empty());
        let Ok(attachment) = self.session.open(last, &mut out) else {
            assert_eq!(out, [], "what is refused changes nothing");
            assert!(last.is_some(), "there is always a standing stream");
            return;
        };
        let sizes: Vec<usize> = events(&out).map(|event| event.message.len()).collect();
        // Who names no event is only told what waited for a stream.
        let (kept, kept_bytes) = last.map_or((0, 0), |_| (LIMITS.replay_events, LIMITS.replay_bytes));
        assert!(sizes.len() <= kept + LIMITS.queued, "{} events were kept", sizes.len());
        assert!(sizes.iter().sum::<usize>() <= kept_bytes + LIMITS.queued_bytes, "{sizes:?} bytes were kept");
        // Whoever held it is told first; then the stream is the new one's.
        if self.holder(attachment.stream).is_some() {
            assert_eq!(out.first(), Some(&Output::Close(attachment.stream)));
            out.remove(0);
        }
        self.hold(attachment);
        let is_answered = attachment.stream != StreamId::GET && !self.session.is_open(attachment.stream);
        self.take(out, None);
        let is_over = self.holds.last().expect("one was pushed").is_over;
        assert_eq!(is_over, is_answered, "a stream ends when its answer was sent, not before and not later");
    }

    fn client_goes(&mut self, number: usize) {
        if number < self.holds.len() {
            let hold = self.holds.swap_remove(number);
            self.session.closed(hold.attachment);
        }
    }

    fn call_is_given_up(&mut self, number: usize) {
        let Some(stream) = self.calls.get(number).map(|(_, call)| call.stream) else { return };
        let mut out = Vec::new();
        assert!(self.session.give_up(stream, &Failure::new(Kind::RequestTimeout, "slow"), &mut out));
        let (key, call) = self.calls.remove(number);
        let cancels = out.iter().filter(|output| matches!(output, Output::ToServer(_))).count();
        assert_eq!(cancels, usize::from(call.may_be_cancelled), "the server is told, unless it is initialize");
        self.abandon(Some(key.clone()));
        self.take(out, Some((key, call)));
        assert!(!self.session.give_up(stream, &Failure::new(Kind::RequestTimeout, "slow"), &mut Vec::new()));
    }

    fn server_ends(mut self) {
        let mut out = Vec::new();
        self.session.end(&Failure::new(Kind::ServerExited, "gone"), &mut out);
        let held: Vec<StreamId> =
            self.calls.iter().map(|(_, call)| call.stream).filter(|stream| self.holder(*stream).is_some()).collect();
        let lasts: HashSet<StreamId> = events(&out).filter(|event| event.last).map(|event| event.stream).collect();
        assert_eq!(lasts, held.into_iter().collect(), "every call that somebody waits for is answered");
        for output in out {
            match output {
                Output::Event(event) => self.event(&event),
                Output::Close(stream) => self.close(stream),
                Output::ToServer(_) => panic!("the server is gone"),
                Output::NeverOpened => panic!("it is over"),
            }
        }
        assert_eq!(self.session.in_flight(), 0);
        assert!(self.holds.iter().all(|hold| hold.is_over), "every stream ends");
    }

    fn holds_its_bounds(&mut self) {
        assert!(self.calls.len() <= LIMITS.calls);
        assert_eq!(self.session.in_flight(), self.calls.len());
        assert!(self.calls.iter().all(|(_, call)| self.session.is_open(call.stream)));
        self.session.take_dropped();
        assert_eq!(self.session.take_dropped(), 0, "what was dropped is told once");
    }

    /// Takes what left the machine; `answered` is the call to which that must have been the answer.
    fn take(&mut self, out: Vec<Output>, answered: Option<(IdKey, Waiting)>) {
        if let Some((key, call)) = answered {
            let answers: Vec<&Event> = events(&out).filter(|event| event.last).collect();
            assert_eq!(answers.len(), usize::from(self.holder(call.stream).is_some()), "one answer to whoever waits");
            for event in answers {
                let Ok(Message::Response { id: Some(id), .. }) = Message::parse(&event.message) else {
                    panic!("{event:?} answers nothing")
                };
                assert_eq!((event.stream, IdKey::from(&id)), (call.stream, key.clone()));
            }
        }
        for output in out {
            match output {
                Output::Event(event) => self.event(&event),
                Output::Close(stream) => self.close(stream),
                Output::ToServer(line) => {
                    assert!(!line.contains(&b'\n'));
                    Message::parse(&line).expect("the server is told messages");
                }
                // A driver ends the session here; what a machine does that goes on is of interest too.
                Output::NeverOpened => {}
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let own = event.failure.is_some();
        assert!(own || self.written.contains(&event.message), "the server did not write {event:?}");
        assert!(!event.last || event.stream != StreamId::GET);
        let mut holds = self.holds.iter_mut().filter(|hold| event.is_for(&hold.attachment));
        let hold = holds.next().expect("it is for somebody who is there");
        assert!(!hold.is_over, "{event:?} comes on a stream that is over");
        assert!(event.seq > hold.seen, "{event:?} comes after {}", hold.seen);
        hold.seen = event.seq;
        hold.is_over = event.last;
    }

    fn close(&mut self, stream: StreamId) {
        let hold = self.holder(stream).expect("only what is held is closed");
        self.holds[hold].is_over = true;
    }

    fn hold(&mut self, attachment: Attachment) {
        for hold in self.holds.iter_mut().filter(|hold| hold.attachment.stream == attachment.stream) {
            hold.is_over = true;
        }
        let after = attachment.event_id();
        let seen = after.split_once('-').and_then(|(_, seq)| seq.parse().ok()).expect("stream and number");
        self.holds.push(Hold { attachment, seen, is_over: false });
    }

    /// Who holds a stream now.
    fn holder(&self, stream: StreamId) -> Option<usize> {
        self.holds.iter().position(|hold| hold.attachment.stream == stream && !hold.is_over)
    }

    fn remove(&mut self, is_wanted: impl Fn(&IdKey, &Waiting) -> bool) -> Option<(IdKey, Waiting)> {
        let at = self.calls.iter().position(|(key, call)| is_wanted(key, call))?;
        Some(self.calls.remove(at))
    }

    fn abandon(&mut self, key: Option<IdKey>) {
        self.abandoned.extend(key);
        if self.abandoned.len() > MAX_ABANDONED {
            self.abandoned.pop_front();
        }
    }
}

fn events(out: &[Output]) -> impl Iterator<Item = &Event> {
    out.iter().filter_map(|output| match output {
        Output::Event(event) => Some(event),
        _ => None,
    })
}
