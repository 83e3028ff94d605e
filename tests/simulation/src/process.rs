//! A server process: it serves one session, takes its time, asks back, and says things of its own accord.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;

use crate::wire::{self, CallId, Said};

/// The process behind one session.
#[derive(Debug, Default)]
pub(crate) struct Process {
    session: String,
    /// Calls under way, each with how often it may still speak before it answers.
    calls: BTreeMap<CallId, u64>,
    /// Its questions, and whether each was answered.
    asked: BTreeMap<u64, bool>,
    spoken: u64,
}

impl Process {
    /// Takes a line.
    pub(crate) fn read(&mut self, line: &[u8], rng: &mut Rng) {
        match wire::read(line) {
            Said::Call { session, id: 0 } => {
                assert!(
                    self.session.is_empty(),
                    "{session}: a process serves one session, this is that of {}",
                    self.session
                );
                self.session = session;
                self.calls.insert(0, 0);
            }
            Said::Call { session, id } => {
                assert_eq!(session, self.session, "a call of another session reached this process");
                self.calls.insert(id, rng.u64(0..4));
            }
            Said::Answer { session, id } => {
                if let Some(session) = session {
                    assert_eq!(session, self.session, "an answer of another session reached this process");
                }
                let answered = self.asked.get_mut(&id).expect("an answer to something that was asked");
                assert!(!*answered, "{}: question {id} is answered twice", self.session);
                *answered = true;
            }
            Said::Cancelled => {}
            other => panic!("a client does not say {other:?}"),
        }
    }

    /// The session that it serves.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// Whether it has something to say.
    pub(crate) fn is_busy(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Says the next thing.
    pub(crate) fn speak(&mut self, rng: &mut Rng) -> Option<Bytes> {
        let position = rng.usize(0..self.calls.len().max(1));
        let (&id, left) = self.calls.iter_mut().nth(position)?;
        if *left == 0 {
            self.calls.remove(&id);
            return Some(wire::answer(&self.session, id));
        }
        *left -= 1;
        self.spoken += 1;
        Some(match rng.u8(0..3) {
            0 => {
                self.asked.insert(self.spoken, false);
                wire::ask(&self.session, self.spoken)
            }
            1 => wire::progress(&self.session, id, self.spoken),
            _ => wire::news(&self.session, self.spoken),
        })
    }
}
