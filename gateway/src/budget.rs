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
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// When a caller may come back after as much was held as may be.
const COME_BACK: Duration = Duration::from_secs(1);

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
    /// How many answers wait for room.
    waiting: AtomicUsize,
    /// Tells them that something was given back.
    room: Notify,
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
        Self { limit, held: AtomicUsize::new(0), whole, waiting: AtomicUsize::new(0), room: Notify::new(), metrics }
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

    /// Takes `bytes` for a request that comes: not before the answers that wait for room.
    fn take(&self, bytes: usize) -> Result<(), Failure> {
        let taken = self.waited_for().map_or_else(|| self.try_take(bytes), Err);
        taken.map_err(|full| {
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
        if self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            return Err(self);
        }
        let taken = self.whole.as_ref().map_or(Ok(()), |whole| whole.try_take(bytes));
        if taken.is_err() {
            self.held.fetch_sub(bytes, Ordering::AcqRel);
        }
        taken
    }

    /// Takes `bytes` as soon as there is room.
    async fn wait(&self, bytes: usize) {
        let Err(mut full) = self.try_take(bytes) else { return };
        loop {
            let _waits = Waits::at(full);
            let mut room = pin!(full.room.notified());
            // Whatever is given back from here on is heard of.
            room.as_mut().enable();
            match self.try_take(bytes) {
                Ok(()) => return,
                Err(other) if !std::ptr::eq(other, full) => full = other,
                Err(_) => room.await,
            }
        }
    }

    /// The budget at which someone waits.
    fn waited_for(&self) -> Option<&Self> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Some(self);
        }
        self.whole.as_ref().and_then(|whole| whole.waited_for())
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
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.room.notify_waiters();
        }
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.held() >= self.limit || self.whole.as_ref().is_some_and(|whole| whole.is_full())
    }

    fn full(&self) -> Failure {
        let who = if self.whole.is_some() { "this server" } else { "this gateway replica" };
        let message = format!("requests and answers of {who} hold as many bytes as they may; try again");
        Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
    }
}

/// One answer that waits for room.
struct Waits<'a>(&'a Budget);

impl<'a> Waits<'a> {
    fn at(full: &'a Budget) -> Self {
        full.waiting.fetch_add(1, Ordering::AcqRel);
        Self(full)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
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

    /// Takes more as soon as there is room. What is more than the whole budget counts, and is not waited for.
    pub(crate) async fn wait(&mut self, bytes: usize) {
        let waited_for = bytes.min(self.budget.most());
        self.budget.wait(waited_for).await;
        self.bytes += waited_for;
        self.hold(self.bytes + (bytes - waited_for));
    }

    /// Holds `bytes` from now on, whether there is room or not: an answer that has begun goes on.
    pub(crate) fn hold(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.force(more),
            None => self.budget.give_back(self.bytes - bytes),
        }
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
    untaken: AtomicUsize,
    waiting: AtomicWaker,
}

struct Part {
    bytes: Bytes,
    /// What the connection to the server reads meanwhile.
    ahead: usize,
    of: Arc<Parts>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.budget.give_back(self.bytes.len() + self.ahead);
        if self.of.untaken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.of.waiting.wake();
        }
    }
}

impl Answer {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self(Arc::new(Parts { budget, untaken: AtomicUsize::new(0), waiting: AtomicWaker::new() }))
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

    /// Counts `bytes` until they are on their way, or dropped; and as much again where more is to come, which is read into
    /// the next buffer by then.
    pub(crate) fn part(&self, bytes: Bytes, is_last: bool) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let is_slow = self.0.untaken.fetch_add(1, Ordering::AcqRel) > 0;
        let bytes = if is_slow && bytes.len() < COPIED_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
        let ahead = if is_last { 0 } else { bytes.len() };
        self.0.budget.force(bytes.len() + ahead);
        Bytes::from_owner(Part { bytes, ahead, of: self.0.clone() })
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
    async fn an_answer_that_waits_for_room_goes_before_new_requests_and_holds_none_of_another_server() {
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
        waits.await;
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
    async fn an_answer_past_the_budget_has_one_part_at_a_time_and_goes_on_when_it_was_taken() {
        let whole = budget(10);
        let answer = Answer::new(whole.part(100));
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
        assert_eq!(whole.held(), 0);
        let other = Answer::new(whole.part(100));
        let _held = other.part(Bytes::from_static(b"0123456789"), true);
        poll_fn(|cx| answer.poll_room(cx)).await;
        assert_eq!(&answer.part(Bytes::from_static(b"on"), true)[..], b"on", "no answer waits for another's client");
    }
}
