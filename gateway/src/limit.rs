//! How many requests one replica has under way, at one server and all together, and how many wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_mcp::failure::{Failure, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// When a caller may come back: a place is free as soon as any call ends.
const COME_BACK: Duration = Duration::from_secs(1);

/// The places of one route.
#[derive(Debug)]
pub(crate) struct Limiter {
    parallel: usize,
    pending: usize,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limiter {
    pub(crate) fn new(parallel: usize, pending: usize) -> Self {
        let places = Arc::new(Semaphore::new(parallel.min(Semaphore::MAX_PERMITS)));
        Self { parallel, pending, places, waiting: Arc::default() }
    }

    /// The limiter for changed limits. Calls under way keep their places in the old one: for as long as they last
    /// there may be more than `parallel`.
    pub(crate) fn adjusted(self: &Arc<Self>, parallel: usize, pending: usize) -> Arc<Self> {
        if (self.parallel, self.pending) == (parallel, pending) {
            return self.clone();
        }
        Arc::new(Self::new(parallel, pending))
    }

    /// Requests that have a place, and those that wait for one.
    pub(crate) fn under_way(&self) -> usize {
        self.parallel.saturating_sub(self.places.available_permits()) + self.waiting.load(Ordering::Acquire)
    }

    /// Takes a place, waiting for one until `deadline` where the queue has room.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<Place, Failure> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(Place(permit));
        }
        let room = |waiting: usize| (waiting < self.pending).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).map_err(|_| self.overloaded())?;
        let _waiting = Waiting(self.waiting.clone());
        match tokio::time::timeout_at(deadline, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            _ => Err(self.overloaded()),
        }
    }

    fn overloaded(&self) -> Failure {
        let Self { parallel, pending, .. } = self;
        let message = format!("{parallel} requests are under way at this server and up to {pending} wait; try again");
        Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
    }
}

/// The requests of a whole process. Nobody waits here: what waits would have to be held.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: usize,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { limit, places: Arc::new(Semaphore::new(limit)), metrics }
    }

    /// Lets one request in.
    pub(crate) fn enter(&self) -> Result<Place, Failure> {
        self.places.clone().try_acquire_owned().map(Place).map_err(|_| {
            self.metrics.bound_hit("Requests");
            let message = format!("{} requests are under way at this gateway replica; try again", self.limit);
            Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
        })
    }

    /// Requests under way.
    pub(crate) fn entered(&self) -> usize {
        self.limit - self.places.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_is_served_one_waits_and_the_third_is_told_to_come_back() {
        let limiter = Arc::new(Limiter::new(1, 1));
        let far = Instant::now() + Duration::from_secs(60);
        let place = limiter.enter(far).await.expect("a free place");
        let second = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.enter(far).await.map(drop) }
        });
        while limiter.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = limiter.enter(far).await.expect_err("no room");
        assert_eq!((refused.kind, refused.retry_after_seconds()), (Kind::Overloaded, Some(1)));
        assert_eq!(limiter.under_way(), 2);
        drop(place);
        second.await.expect("no panic").expect("the place that came free");
        assert_eq!(limiter.under_way(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_request() {
        let limiter = Limiter::new(1, 1);
        let _place = limiter.enter(Instant::now()).await.expect("a free place");
        let refused = limiter.enter(Instant::now() + Duration::from_secs(3)).await.expect_err("nobody left");
        assert_eq!(refused.kind, Kind::Overloaded);
        assert_eq!(limiter.waiting.load(Ordering::Acquire), 0);
    }
}
