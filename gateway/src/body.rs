//! Reads a request's body: bounded in size, in time, and in what all requests hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_mcp::failure::{Failure, Kind};

/// When a caller may come back after the process held as much as it may.
const COME_BACK: Duration = Duration::from_secs(1);

/// Bytes of bodies that the process may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }
}

/// A share of the [`Budget`], given back when it is dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.budget.limit);
        let taken = self.budget.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map_err(|_| {
            let message = "this gateway replica holds as many request bodies as it may; try again";
            Failure::new(Kind::Overloaded, message).retry_after(COME_BACK)
        })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A whole body with its share of the budget.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    _share: Share,
}

/// Reads `body` of at most `cap` bytes within `time`.
pub(crate) async fn read(
    body: Incoming,
    cap: usize,
    time: Duration,
    budget: &Arc<Budget>,
) -> Result<Buffered, Failure> {
    // A declared length over the cap is refused before a byte is read.
    if body.size_hint().lower() > cap as u64 {
        return Err(too_large(cap));
    }
    let late = || Failure::new(Kind::BodyTimeout, format!("the body did not arrive within {} s", time.as_secs()));
    tokio::time::timeout(time, collect(body, cap, budget)).await.map_err(|_| late())?
}

async fn collect(mut body: Incoming, cap: usize, budget: &Arc<Budget>) -> Result<Buffered, Failure> {
    let mut share = Share { budget: budget.clone(), bytes: 0 };
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(Kind::Malformed, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > cap {
            return Err(too_large(cap));
        }
        share.grow(data.len())?;
        // Most bodies are one frame: that one is kept as it came.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Buffered { bytes, _share: share })
}

fn too_large(cap: usize) -> Failure {
    Failure::new(Kind::BodyTooLarge, format!("a request body may have {cap} bytes (spec.http.maxBodyBytes)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_requests_hold_together_is_bounded_and_given_back() {
        let budget = Budget::new(10);
        let mut one = Share { budget: budget.clone(), bytes: 0 };
        let mut other = Share { budget: budget.clone(), bytes: 0 };
        one.grow(6).expect("fits");
        let refused = other.grow(5).expect_err("over the limit");
        assert_eq!((refused.kind, refused.retry_after_seconds()), (Kind::Overloaded, Some(1)));
        drop(one);
        other.grow(10).expect("what was held is free again");
    }
}
