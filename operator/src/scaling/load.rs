//! How many pods a server needs for the load that it has. Pure: whoever asks says what time it is.
//!
//! As Knative's autoscaler does, the load is averaged over a minute, and over six seconds to notice a rush: while the short average asks for
//! twice the pods there are, or did within the last minute, there are never fewer, and as many as it asks for.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Over which the load is averaged.
const STABLE: Duration = Duration::from_secs(60);
/// Over which it is averaged to notice a rush.
const PANIC: Duration = Duration::from_secs(6);
/// How many readings make an average; there is one a second.
const LEAST_SAMPLES: u64 = PANIC.as_secs();
/// How many times the pods there are a rush asks for.
const RUSH: u32 = 2;

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How many pods there are at least.
    pub(super) least: u32,
    /// How many pods there are at most.
    pub(super) most: u32,
    /// How long fewer must have been enough.
    pub(super) delay: Duration,
}

/// What the load is, as far as those say who count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// It is this much, or more.
    pub least: u32,
    /// Whether all of them said.
    pub is_whole: bool,
}

/// One measure of the load of one server, as it was from second to second.
#[derive(Debug)]
pub(super) struct Load {
    /// What one pod is to have.
    target: u32,
    samples: VecDeque<(Instant, u32)>,
    /// Since when nothing was missing.
    whole_since: Option<Instant>,
    /// When it last was a rush.
    rush: Option<Instant>,
    /// How many pods were asked for, and when.
    asked: VecDeque<(Instant, u32)>,
}

impl Load {
    /// Nothing is known yet.
    pub(super) fn new(target: u32) -> Self {
        let (samples, asked) = (VecDeque::new(), VecDeque::new());
        Self { target: target.max(1), samples, whole_since: None, rush: None, asked }
    }

    /// What one pod is to have.
    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// Takes in what the load is at `now`, of all pods together. Says how many pods there should be, of which there are `current`.
    pub(super) fn take(&mut self, now: Instant, reading: Reading, current: u32, bounds: Bounds) -> u32 {
        if reading.is_whole {
            self.whole_since.get_or_insert(now);
        } else {
            self.whole_since = None;
        }
        self.samples.push_back((now, reading.least));
        self.samples.retain(|(at, _)| is_within(*at, now, STABLE));
        let wanted = self.wanted(now, current).clamp(bounds.least, bounds.most);
        // Only what may yet be the most of the last while is kept.
        while self.asked.back().is_some_and(|(_, before)| *before <= wanted) {
            self.asked.pop_back();
        }
        self.asked.push_back((now, wanted));
        self.asked.retain(|(at, _)| is_within(*at, now, bounds.delay));
        if wanted >= current {
            return wanted;
        }
        if !self.knows_enough(now, bounds.delay) {
            return current.clamp(bounds.least, bounds.most);
        }
        let most = self.asked.front().map_or(wanted, |(_, asked)| *asked);
        most.min(current).clamp(bounds.least, bounds.most)
    }

    /// Without regard to bounds.
    fn wanted(&mut self, now: Instant, current: u32) -> u32 {
        let (stable, short) = (self.pods(now, STABLE), self.pods(now, PANIC));
        if short >= current.max(1).saturating_mul(RUSH) {
            self.rush = Some(now);
        }
        self.rush = self.rush.filter(|rush| is_within(*rush, now, STABLE));
        if self.rush.is_some() { short.max(stable).max(current) } else { stable }
    }

    /// How many pods the average over the last `window` asks for.
    fn pods(&self, now: Instant, window: Duration) -> u32 {
        let samples = self.samples.iter().filter(|(at, _)| is_within(*at, now, window));
        let (count, sum) = samples.fold((0_u64, 0_u64), |(count, sum), (_, load)| (count + 1, sum + u64::from(*load)));
        // A single reading is no average.
        let pods = sum.div_ceil(count.max(LEAST_SAMPLES).saturating_mul(u64::from(self.target)));
        u32::try_from(pods).unwrap_or(u32::MAX)
    }

    /// Whether nothing was missing for so long that there may be fewer pods.
    fn knows_enough(&self, now: Instant, delay: Duration) -> bool {
        self.whole_since.is_some_and(|since| !is_within(since, now, STABLE.max(delay)))
    }
}

/// Whether `at` is less than `window` before `now`.
fn is_within(at: Instant, now: Instant, window: Duration) -> bool {
    now.saturating_duration_since(at) < window
}

#[cfg(test)]
mod tests;
