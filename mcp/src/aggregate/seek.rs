//! Where a client's session with one of several servers is. The session is opened by the first request that needs it, on any
//! replica; whoever does not know where it is asks every pod that may hold it, and opens it where none does.

/// How often a session is opened for one request. Another request may have begun to open it and broken off.
const OPENINGS: u8 = 3;

/// A request on its way to the session that it is for, over pods that `P` names. It never goes to a second pod after it
/// may have begun at one.
#[derive(Debug)]
pub struct Seek<P> {
    place: Place<P>,
    /// The pod that was asked first and had no session.
    lost: Option<P>,
    /// How often the session may still end as soon as it is open.
    openings: u8,
}

/// What the request waits for.
#[derive(Debug)]
enum Place<P> {
    /// The pod that was known to hold the session.
    Known(P),
    /// This client's turn: one of its requests at a time looks for the session.
    Turn,
    /// A pod that may hold the session; then there are others, and those that could open it, the next one last.
    Holding { others: Vec<P>, openers: Vec<P> },
    /// The pod that opens it, and those that could instead.
    Opening { at: P, others: Vec<P> },
    /// The pod that has opened it.
    Opened(P),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// Wait for the client's turn at this server, then go on with [`Seek::in_turn`].
    TakeTurn,
    /// Send the request to the pod, out of turn: it is where this replica last saw the session.
    AskKnown(P),
    /// Send the request to the pod.
    Ask(P),
    /// Open the session at the pod.
    Open(P),
}

impl<P: Clone + PartialEq> Seek<P> {
    /// Begins, at the pod where this replica last saw the session.
    #[must_use]
    pub fn new(known: Option<P>) -> (Self, Step<P>) {
        let (place, step) = match known {
            Some(pod) => (Place::Known(pod.clone()), Step::AskKnown(pod)),
            None => (Place::Turn, Step::TakeTurn),
        };
        (Self { place, lost: None, openings: OPENINGS }, step)
    }

    /// It is the client's turn. Another request may have found the session meanwhile: `known`. Those that may hold it, and
    /// those that could open it, are asked in the order in which they come; it has to be the same on every replica.
    pub fn in_turn(&mut self, known: Option<P>, holders: Vec<P>, openers: Vec<P>) -> Option<Step<P>> {
        if let Some(pod) = known.filter(|pod| self.lost.as_ref() != Some(pod)) {
            self.place = Place::Known(pod.clone());
            return Some(Step::AskKnown(pod));
        }
        let (mut holders, mut openers) = (holders, openers);
        holders.reverse();
        openers.reverse();
        self.ask_next(holders, openers)
    }

    /// The pod that was asked holds no such session. `None` where that is the end of it: it ended as soon as it was open, and
    /// not for the first time.
    pub fn unknown(&mut self) -> Option<Step<P>> {
        match std::mem::replace(&mut self.place, Place::Turn) {
            Place::Known(pod) => {
                self.lost = Some(pod);
                Some(Step::TakeTurn)
            }
            Place::Holding { others, openers } => self.ask_next(others, openers),
            Place::Opened(pod) if self.openings > 0 => self.open_next(vec![pod]),
            Place::Turn | Place::Opening { .. } | Place::Opened(_) => None,
        }
    }

    /// The pod that was asked could not be reached. `None` where the request fails with that: it may have begun, or the pod
    /// is known to hold the session. Of any other pod nobody knows, and it holds up no session that may be elsewhere or is
    /// yet to be opened.
    pub fn unreachable(&mut self, may_have_begun: bool) -> Option<Step<P>> {
        match std::mem::replace(&mut self.place, Place::Turn) {
            Place::Holding { others, openers } if !may_have_begun => self.ask_next(others, openers),
            _ => None,
        }
    }

    /// The session is open at the pod, by this request or another's.
    pub fn opened(&mut self) -> Option<Step<P>> {
        let Place::Opening { at, .. } = std::mem::replace(&mut self.place, Place::Turn) else { return None };
        self.place = Place::Opened(at.clone());
        Some(Step::Ask(at))
    }

    /// The pod has not opened it. `None` where no other could.
    pub fn not_opened(&mut self) -> Option<Step<P>> {
        let Place::Opening { others, .. } = std::mem::replace(&mut self.place, Place::Turn) else { return None };
        self.open_next(others)
    }

    fn ask_next(&mut self, mut others: Vec<P>, openers: Vec<P>) -> Option<Step<P>> {
        let Some(asked) = others.pop() else { return self.open_next(openers) };
        self.place = Place::Holding { others, openers };
        Some(Step::Ask(asked))
    }

    fn open_next(&mut self, mut others: Vec<P>) -> Option<Step<P>> {
        let at = others.pop()?;
        self.openings = self.openings.saturating_sub(1);
        self.place = Place::Opening { at: at.clone(), others };
        Some(Step::Open(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(known: Option<u8>) -> Seek<u8> {
        Seek::new(known).0
    }

    #[test]
    fn a_session_is_asked_for_where_it_was_last_and_by_nobody_elses_turn() {
        let (mut seek, step) = Seek::new(Some(1));
        assert_eq!(step, Step::AskKnown(1));
        assert_eq!(seek.unreachable(false), None, "it is there, and a second one must not be opened");
        let mut seek = sought(Some(1));
        assert_eq!(seek.unknown(), Some(Step::TakeTurn));
        assert_eq!(seek.in_turn(Some(2), vec![1, 2], vec![1]), Some(Step::AskKnown(2)), "another request found it");
    }

    #[test]
    fn every_pod_is_asked_before_the_session_is_opened() {
        let mut seek = sought(None);
        assert_eq!(seek.in_turn(None, vec![3, 1, 2], vec![2, 3]), Some(Step::Ask(3)));
        assert_eq!(seek.unknown(), Some(Step::Ask(1)));
        assert_eq!(seek.unreachable(false), Some(Step::Ask(2)), "of a pod that is away nobody knows");
        assert_eq!(seek.unknown(), Some(Step::Open(2)));
        assert_eq!(seek.not_opened(), Some(Step::Open(3)));
        assert_eq!(seek.opened(), Some(Step::Ask(3)));
        assert_eq!(seek.unreachable(false), None);
    }

    #[test]
    fn nothing_is_sent_on_after_it_may_have_begun() {
        let mut seek = sought(None);
        assert_eq!(seek.in_turn(None, vec![1, 2], vec![1]), Some(Step::Ask(1)));
        assert_eq!(seek.unreachable(true), None);
    }

    #[test]
    fn the_pod_that_had_no_session_is_not_the_known_one_of_the_turn() {
        let mut seek = sought(Some(1));
        assert_eq!(seek.unknown(), Some(Step::TakeTurn));
        assert_eq!(seek.in_turn(Some(1), vec![2], vec![2]), Some(Step::Ask(2)));
    }

    #[test]
    fn a_session_that_ends_as_it_begins_is_opened_again_a_few_times() {
        let mut seek = sought(None);
        let mut step = seek.in_turn(None, vec![], vec![1]);
        for _ in 0..OPENINGS {
            assert_eq!(step, Some(Step::Open(1)));
            assert_eq!(seek.opened(), Some(Step::Ask(1)));
            step = seek.unknown();
        }
        assert_eq!(step, None);
        assert_eq!(sought(None).in_turn(None, vec![], vec![]), None, "nobody is there");
    }
}
