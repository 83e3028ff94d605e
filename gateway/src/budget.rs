//! Bytes of requests and answers that are held, of one server and of all together: past a budget callers are told to
//! come back, before memory grows.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use portolan_mcp::failure::{Failure, Kind};
use tokio::sync::{Mutex as Turns, Notify};
use tokio::time::timeout;

use crate::metrics::Metrics;

/// When a caller may come back after as much was held as may be.
const COME_BACK: Duration = Duration::from_secs(1);

/// How long an answer waits for room. What holds the room may wait for the place that the call of the answer has.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// Below this size a part of an answer is copied where its client is slow, so that it does not keep the whole buffer
/// into which it was read.
const COPIED_BYTES: usize = 4 * 1024;

/// Bytes that may be held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// What this budget is a part of; both have to have room.
    whole: Option<Arc<Budget>>,
    /// Answers that wait for room here: one after the other, and before new requests.
    waiting: AtomicUsize,
    turns: Turns<()>,
    /// Of the whole: how many listen for what is given back anywhere, and how they hear of it.
    listening: AtomicUsize,
    given_back: Notify,
    metrics: Arc<Metrics>,
}

impl Budget {
    /// The budget of the process.
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self::of(None, limit, metrics))
    }

    /// The budget of one server within that of the process.
    pub(crate) fn part(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        Arc::new(Self::of(Some(self.clone()), limit, self.metrics.clone()))
    }

    fn of(whole: Option<Arc<Self>>, limit: usize, metrics: Arc<Metrics>) -> Self {
        let [held, waiting, listening] = [(); 3].map(|()| AtomicUsize::new(0));
        let (turns, given_back) = (Turns::new(()), Notify::new());
        Self { limit, held, whole, waiting, turns, listening, given_back, metrics }
    }

    /// The part for a changed limit. What is held goes on to count in the old one, and in the whole.
    pub(crate) fn adjusted(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        match &self.whole {
            Some(whole) if self.limit != limit => whole.part(limit),
            _ => self.clone(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Takes `bytes` for a request that comes: not before the answers of this budget that wait for room.
    fn take(&self, bytes: usize) -> Result<(), Failure> {
        let is_waited_for = self.waiting.load(Ordering::SeqCst) > 0;
        let taken = if is_waited_for { Err(self) } else { self.try_take(bytes) };
        taken.map_err(|full| {
            // What was taken of the part for a moment may have been in an answer's way.
            self.tell();
            full.metrics.bound_hit(if full.whole.is_some() { "ServerBytes" } else { "Bytes" });
            full.full()
        })
    }

    /// Lets a request in whose body was counted before it was known whose it is.
    pub(crate) fn admit(&self) -> Result<(), Failure> {
        self.take(0)
    }

    /// Takes `bytes`, or says which budget has no room for them.
    fn try_take(&self, bytes: usize) -> Result<(), &Self> {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.limit);
        if self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_err() {
            return Err(self);
        }
        let taken = self.whole.as_ref().map_or(Ok(()), |whole| whole.try_take(bytes));
        if taken.is_err() {
            self.held.fetch_sub(bytes, Ordering::SeqCst);
        }
        taken
    }

    /// Takes `bytes` as soon as there is room, after those who waited before.
    async fn wait(&self, bytes: usize) {
        let _waits = Waits::at(self);
        let _turn = self.turns.lock().await;
        loop {
            let mut given_back = pin!(self.root().given_back.notified());
            // Whatever is given back from here on is heard of.
            given_back.as_mut().enable();
            if self.try_take(bytes).is_ok() {
                return;
            }
            given_back.await;
        }
    }

    fn root(&self) -> &Self {
        self.whole.as_deref().unwrap_or(self)
    }

    /// Tells those who wait that there may be room.
    fn tell(&self) {
        let root = self.root();
        // Either this sees who listens, or they see what was given back: that takes one order of both.
        if root.listening.load(Ordering::SeqCst) > 0 {
            root.given_back.notify_waiters();
        }
    }

    /// The most that can be held at once.
    fn most(&self) -> usize {
        self.whole.as_ref().map_or(self.limit, |whole| whole.limit.min(self.limit))
    }

    /// Counts what is held whether it fits or not.
    fn force(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            whole.force(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        if let Some(whole) = &self.whole {
            whole.held.fetch_sub(bytes, Ordering::SeqCst);
        }
        self.tell();
    }

    /// Counts `now` in the place of `before`, whether it fits or not.
    fn recount(&self, before: usize, now: usize) {
        match now.checked_sub(before) {
            Some(more) => self.force(more),
            None => self.give_back(before - now),
        }
    }

    fn is_full(&self) -> bool {
        self.held() >= self.limit || self.whole.as_ref().is_some_and(|whole| whole.is_full())
    }

    fn full(&self) -> Failure {
        let message = format!("requests and answers of {} hold as many bytes as they may; try again", self.whose());
        Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
    }

    /// Nobody knows what the call did whose answer there is no room for.
    fn no_room(&self, bytes: usize) -> Failure {
        self.metrics.bound_hit("AnswerRoom");
        let (whose, seconds) = (self.whose(), ROOM_TIMEOUT.as_secs());
        let message = format!(
            "the server answered, but for {seconds} s requests and answers of {whose} held as many bytes as they may: there was \
             no room for {bytes} more"
        );
        Failure::new(Kind::RequestTimeout, message)
    }

    fn whose(&self) -> &'static str {
        if self.whole.is_some() { "this server" } else { "this gateway replica" }
    }
}

/// One answer that waits for room.
struct Waits<'a>(&'a Budget);

impl<'a> Waits<'a> {
    fn at(budget: &'a Budget) -> Self {
        budget.waiting.fetch_add(1, Ordering::SeqCst);
        budget.root().listening.fetch_add(1, Ordering::SeqCst);
        Self(budget)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.root().listening.fetch_sub(1, Ordering::SeqCst);
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What one request holds of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes more, or says that there is no more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more as soon as there is room; says so where there is none for [`ROOM_TIMEOUT`]. What is more than the whole
    /// budget counts, and is not waited for.
    pub(crate) async fn wait(&mut self, bytes: usize) -> Result<(), Failure> {
        let waited_for = bytes.min(self.budget.most());
        timeout(ROOM_TIMEOUT, self.budget.wait(waited_for)).await.map_err(|_| self.budget.no_room(bytes))?;
        self.bytes += waited_for;
        self.hold(self.bytes + (bytes - waited_for));
        Ok(())
    }

    /// Holds `bytes` from now on, whether there is room or not: an answer that has begun goes on.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.budget.recount(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The parts of one answer that its client has not taken yet. An answer that has begun cannot be refused any more: its
/// parts always count, and while the budget is used up it has no more than one of them.
#[derive(Debug)]
pub(crate) struct Answer(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    budget: Arc<Budget>,
    /// Whether a connection reads on behind each part.
    reads_ahead: bool,
    /// What that holds of the part behind the last one.
    ahead: AtomicUsize,
    untaken: AtomicUsize,
    waiting: AtomicWaker,
}

struct Part {
    bytes: Bytes,
    of: Arc<Parts>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.budget.give_back(self.bytes.len());
        if self.of.untaken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.of.waiting.wake();
        }
    }
}

impl Answer {
    /// One that is made here.
    pub(crate) fn made(budget: Arc<Budget>) -> Self {
        Self::of(budget, false)
    }

    /// One that comes from a pod.
    pub(crate) fn passed_on(budget: Arc<Budget>) -> Self {
        Self::of(budget, true)
    }

    fn of(budget: Arc<Budget>, reads_ahead: bool) -> Self {
        let [ahead, untaken] = [(); 2].map(|()| AtomicUsize::new(0));
        Self(Arc::new(Parts { budget, reads_ahead, ahead, untaken, waiting: AtomicWaker::new() }))
    }

    /// Ready when the next part may be asked for.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let may_go_on = || self.0.untaken.load(Ordering::Acquire) == 0 || !self.0.budget.is_full();
        if may_go_on() {
            return Poll::Ready(());
        }
        self.0.waiting.register(cx.waker());
        if may_go_on() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Counts `bytes` until they are on their way, or dropped; and as much again until the next part where more is to come,
    /// which is read by then.
    pub(crate) fn part(&self, bytes: Bytes, is_last: bool) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let is_slow = self.0.untaken.fetch_add(1, Ordering::AcqRel) > 0;
        let bytes = if is_slow && bytes.len() < COPIED_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
        self.0.budget.force(bytes.len());
        self.reads_ahead(if is_last || !self.0.reads_ahead { 0 } else { bytes.len() });
        Bytes::from_owner(Part { bytes, of: self.0.clone() })
    }

    fn reads_ahead(&self, bytes: usize) {
        let before = self.0.ahead.swap(bytes, Ordering::AcqRel);
        self.0.budget.recount(before, bytes);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.reads_ahead(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    fn budget(limit: usize) -> Arc<Budget> {
        Budget::new(limit, Arc::new(Metrics::new().expect("registers")))
    }

    #[test]
    fn what_all_requests_hold_together_is_bounded_and_given_back() {
        let whole = budget(10);
        let mut one = Share::new(whole.part(100));
        let mut other = Share::new(whole.part(100));
        one.grow(6).expect("fits");
        let refused = other.grow(5).expect_err("over the limit");
        assert_eq!((refused.kind, refused.retry_after_seconds()), (Kind::Overloaded, Some(1)));
        assert_eq!(other.budget.held(), 0, "what was refused holds nothing");
        drop(one);
        other.grow(10).expect("what was held is free again");
    }

    #[test]
    fn what_one_server_holds_leaves_room_for_the_others() {
        let whole = budget(10);
        let (busy, quiet) = (whole.part(5), whole.part(5));
        let mut share = Share::new(busy.clone());
        share.grow(5).expect("fits");
        assert!(share.grow(1).is_err());
        Share::new(quiet).grow(5).expect("there is room in the whole");
        let text = whole.metrics.render().expect("text");
        assert!(text.contains(r#"bound_hits_total{bound="ServerBytes"} 1"#), "{text}");
        let wider = busy.adjusted(6);
        Share::new(wider).grow(6).expect_err("what was held before counts in the whole");
        drop(share);
        assert_eq!(whole.held(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_room_goes_before_new_requests_of_its_server_and_of_no_other() {
        let whole = budget(100);
        let (busy, quiet) = (whole.part(10), whole.part(10));
        let mut first = Share::new(busy.clone());
        first.grow(8).expect("fits");
        let mut large = Share::new(busy.clone());
        let mut waits = Box::pin(large.wait(25));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(Share::new(busy.clone()).grow(1).is_err(), "there is room, and someone waits for it");
        assert!(busy.admit().is_err());
        Share::new(quiet).grow(10).expect("nobody waits for this one");
        drop(first);
        waits.await.expect("there is room");
        assert_eq!((busy.held(), whole.held()), (25, 25), "more than there is counts all the same");
        drop(large);
        assert_eq!((busy.held(), whole.held()), (0, 0));
        let mut gone = Share::new(busy.clone());
        gone.grow(10).expect("fits");
        assert!(Share::new(busy.clone()).wait(1).now_or_never().is_none(), "it gives up");
        gone.hold(9);
        Share::new(busy).grow(1).expect("nobody waits any more");
    }

    #[tokio::test]
    async fn whoever_waits_for_room_in_the_whole_keeps_no_other_server_from_it() {
        let whole = budget(10);
        let (one, other) = (whole.part(10), whole.part(10));
        let mut held = Share::new(other.clone());
        held.grow(6).expect("fits");
        let mut large = Share::new(one);
        let mut waits = Box::pin(large.wait(8));
        assert!(waits.as_mut().now_or_never().is_none());
        let mut small = Share::new(other);
        small.grow(2).expect("there is room for this");
        drop(held);
        waits.await.expect("there is room");
        assert_eq!(whole.held(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_for_which_there_is_no_room_in_time_is_told_so() {
        let whole = budget(10);
        let mut held = Share::new(whole.clone());
        held.grow(10).expect("fits");
        let mut answer = Share::new(whole.clone());
        let failure = answer.wait(5).await.expect_err("there is no room");
        assert_eq!(failure.kind, Kind::RequestTimeout);
        assert!(failure.message.contains("no room for 5 more"), "{failure}");
        assert_eq!((answer.bytes(), whole.held()), (0, 10));
        assert!(whole.metrics.render().expect("text").contains(r#"bound_hits_total{bound="AnswerRoom"} 1"#));
    }

    #[tokio::test]
    async fn an_answer_past_the_budget_has_one_part_at_a_time_and_goes_on_when_it_was_taken() {
        let whole = budget(10);
        let answer = Answer::passed_on(whole.part(100));
        let first = answer.part(Bytes::from_static(b"01234"), false);
        assert_eq!(whole.held(), 10);
        assert!(Share::new(whole.clone()).grow(1).is_err(), "nobody is let in on top");
        assert!(poll_fn(|cx| answer.poll_room(cx)).now_or_never().is_none(), "one part is enough");
        let room = poll_fn(|cx| answer.poll_room(cx));
        let go_on = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(room, go_on);
        assert_eq!(whole.held(), 5, "what is read ahead");
        let other = Answer::passed_on(whole.part(100));
        let _held = other.part(Bytes::from_static(b"0123456789"), true);
        poll_fn(|cx| answer.poll_room(cx)).await;
        assert_eq!(&answer.part(Bytes::from_static(b"on"), true)[..], b"on", "no answer waits for another's client");
        assert_eq!(whole.held(), 10, "behind the last part there is nothing");
    }
}
