//! A pod in use: its calls under way, how they end, and the connections to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_mcp::failure::Kind;
use portolan_policy::identity::Identity;
use portolan_snapshot::snapshot::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::outlier::{Asks, FAILURES, Fault, Outlier, Verdict};
use crate::pool::Pool;
use crate::series::Series;

/// What outlives a snapshot of one pod.
#[derive(Clone)]
pub(crate) struct InUse {
    pub(crate) calls: Arc<Calls>,
    pub(crate) pool: Arc<Pool>,
}

/// Calls at one pod.
#[derive(Debug)]
pub(crate) struct Calls {
    pod: Box<str>,
    series: Arc<Series>,
    under_way: AtomicUsize,
    outlier: Outlier,
    news: Outliers,
}

/// Told when a pod becomes an outlier, and when it is none any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outliers(watch::Sender<()>);

impl Outliers {
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl InUse {
    /// A pod whose address changed, as that of one does whose sandbox began anew, has new connections.
    pub(crate) fn of(pod: &Pod, last: Option<&Self>, series: &Arc<Series>, news: &Outliers) -> Self {
        let calls = last.map(|last| last.calls.clone());
        let pool = last.filter(|last| last.pool.address() == pod.address).map(|last| last.pool.clone());
        Self {
            calls: calls.unwrap_or_else(|| Arc::new(Calls::new(pod, series.clone(), news.clone()))),
            pool: pool.unwrap_or_else(|| Arc::new(Pool::new(pod.address))),
        }
    }
}

impl Calls {
    pub(crate) fn new(pod: &Pod, series: Arc<Series>, news: Outliers) -> Self {
        let (under_way, outlier) = (AtomicUsize::new(0), Outlier::default());
        Self { pod: pod.name.clone(), series, under_way, outlier, news }
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Whether the pod gets nothing new now, if another does.
    pub(crate) fn is_out(&self) -> bool {
        self.outlier.is_out(Instant::now)
    }

    /// What they end in, while they fail one after the other.
    pub(crate) fn failing(&self) -> Option<Kind> {
        self.outlier.failing(Instant::now)
    }

    fn failed(&self, asks: Asks, fault: Fault, caller: &Identity) {
        let Verdict::Out(length) = self.outlier.failed(asks, fault, caller, Instant::now()) else { return };
        let (route, pod, seconds) = (self.series.name(), &*self.pod, length.as_secs());
        tracing::warn!(%route, pod, ?fault, seconds, "{FAILURES} calls in a row failed at a pod: it gets nothing new for a while, if another does");
        self.series.pod_ejected();
        self.news.0.send_replace(());
    }

    fn answered(&self, asks: Asks) {
        if self.outlier.answered(asks) {
            tracing::info!(route = %self.series.name(), pod = &*self.pod, "a pod that failed call after call answers again");
            self.news.0.send_replace(());
        }
    }
}

/// A call at a pod; it is under way while this is held.
#[derive(Debug)]
pub(crate) struct PodCall {
    calls: Arc<Calls>,
    asks: Asks,
    /// Whether it was noted how it ended.
    noted: bool,
}

impl PodCall {
    pub(crate) fn begin(calls: Arc<Calls>, asks: Asks) -> Self {
        calls.under_way.fetch_add(1, Ordering::AcqRel);
        Self { calls, asks, noted: false }
    }

    /// Notes that the call of `caller` got no answer, or one in the server's stead.
    pub(crate) fn failed(&mut self, fault: Fault, caller: &Identity) {
        if !std::mem::replace(&mut self.noted, true) {
            self.calls.failed(self.asks, fault, caller);
        }
    }

    /// Notes that an answer that had begun ended in `kind`. That a stream ends says nothing of the pod.
    pub(crate) fn broke(&mut self, kind: Kind, caller: &Identity) {
        if self.asks != Asks::Nothing {
            self.failed(Fault::Answered(kind), caller);
        }
    }

    /// Notes that it was answered to the end.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.noted, true) {
            self.calls.answered(self.asks);
        }
    }
}

impl Drop for PodCall {
    fn drop(&mut self) {
        self.calls.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
