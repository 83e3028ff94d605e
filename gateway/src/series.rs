//! The metrics of one route, from when it is first served until it is gone; then they are gone for good.

use std::sync::{Arc, PoisonError, RwLock};

use portolan_snapshot::RouteName;
use prometheus::IntGauge;

use crate::metrics::{GONE_ROUTE, Metrics};

/// What is counted under one route's name. A request holds on to the series that it began with: it may outlast the
/// route, and a later route of the same name is not the one that it was for.
#[derive(Debug)]
pub(crate) struct Series {
    name: RouteName,
    metrics: Arc<Metrics>,
    in_flight: IntGauge,
    /// Read while a series is written, written when they are dropped: nothing makes one again in between.
    is_live: RwLock<bool>,
}

impl Series {
    pub(crate) fn new(name: RouteName, metrics: Arc<Metrics>) -> Arc<Self> {
        let in_flight = metrics.in_flight.with_label_values(&[name.as_str()]);
        Arc::new(Self { name, metrics, in_flight, is_live: RwLock::new(true) })
    }

    /// The route's name.
    pub(crate) fn name(&self) -> &RouteName {
        &self.name
    }

    pub(crate) fn begin_request(&self) {
        self.in_flight.inc();
    }

    /// Counts a request that has ended.
    pub(crate) fn end_request(&self, method: &'static str, outcome: &'static str, seconds: f64) {
        self.in_flight.dec();
        self.with_label(|route| self.metrics.request(route, method, outcome, seconds));
    }

    pub(crate) fn session_opened(&self) {
        self.with_label(|route| self.metrics.sessions_opened.with_label_values(&[route]).inc());
    }

    pub(crate) fn pod_ejected(&self) {
        self.with_label(|route| self.metrics.pods_ejected.with_label_values(&[route]).inc());
    }

    /// Counts that a pod stayed that would be out if it were not the last.
    pub(crate) fn ejection_withheld(&self) {
        self.metrics.bound_hit("Ejection");
    }

    /// Drops the series: what is counted from here on stands under [`GONE_ROUTE`].
    pub(crate) fn retire(&self) {
        let mut is_live = self.is_live.write().unwrap_or_else(PoisonError::into_inner);
        *is_live = false;
        self.metrics.forget(self.name.as_str());
    }

    fn with_label(&self, count: impl FnOnce(&str)) {
        let is_live = self.is_live.read().unwrap_or_else(PoisonError::into_inner);
        count(if *is_live { self.name.as_str() } else { GONE_ROUTE });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metrics: &Arc<Metrics>) -> Arc<Series> {
        Series::new(RouteName::new("a", "b"), metrics.clone())
    }

    #[test]
    fn a_request_that_outlasts_its_route_makes_no_series_of_it_again() {
        let metrics = Arc::new(Metrics::new().expect("registers"));
        let gone = series(&metrics);
        gone.begin_request();
        assert!(metrics.render().expect("text").contains(r#"requests_in_flight{route="a/b"} 1"#));
        gone.retire();
        gone.session_opened();
        gone.end_request("ping", "OK", 0.1);
        let text = metrics.render().expect("text");
        assert!(!text.contains("a/b"), "{text}");
        assert!(text.contains(r#"requests_total{method="ping",outcome="OK",route="_gone"} 1"#), "{text}");
        assert!(text.contains(r#"sessions_opened_total{route="_gone"} 1"#), "{text}");
    }

    #[test]
    fn a_route_that_comes_back_begins_at_nothing() {
        let metrics = Arc::new(Metrics::new().expect("registers"));
        let before = series(&metrics);
        before.begin_request();
        before.retire();
        let after = series(&metrics);
        after.begin_request();
        before.end_request("ping", "OK", 0.1);
        let text = metrics.render().expect("text");
        assert!(text.contains(r#"requests_in_flight{route="a/b"} 1"#), "{text}");
        assert!(!text.contains(r#"outcome="OK",route="a/b""#), "{text}");
    }
}
