//! `portolan_gateway_*`. Label values come from fixed sets: routes of the snapshot, methods of the protocol, kinds of failures.

use std::collections::HashMap;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// Methods that clients send, over HTTP or JSON-RPC. Whatever else they write is `_OTHER`.
const METHODS: [&str; 23] = [
    "initialize",
    "server/discover",
    "subscriptions/listen",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
];
const OTHER: &str = "_OTHER";
/// What stands for a POSTed answer, which has no method.
pub(crate) const RESPONSE: &str = "_response";
/// What stands for a POST of several messages, each of which counts by itself too.
pub(crate) const BATCH: &str = "_batch";
/// What stands for the request that opens the stream.
pub(crate) const STREAM: &str = "_stream";
/// What stands for the request that ends a session.
pub(crate) const DELETE: &str = "_delete";
/// What stands for a request that was refused before its message was read.
pub(crate) const NONE: &str = "_none";

/// Label of requests that found no route.
pub(crate) const NO_ROUTE: &str = "_none";
/// Label of requests that the endpoint of all servers answered itself.
pub(crate) const ALL_ROUTES: &str = "_all";
/// Stands for the route where the operator checks one.
pub(crate) const CHECKED_ROUTES: &str = "_checks";
/// Label of requests that ended after their route was gone.
pub(crate) const GONE_ROUTE: &str = "_gone";

/// Seconds, the buckets of the semantic conventions for MCP.
const DURATION_BUCKETS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Seconds; a proxy's own time is far below the first of those.
const OVERHEAD_BUCKETS: [f64; 12] =
    [0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5];

/// The metrics of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests by route, method and outcome.
    pub(crate) requests: IntCounterVec,
    duration: HistogramVec,
    /// Time that was neither the client's nor the server's.
    pub(crate) overhead: Histogram,
    /// Requests under way, by route.
    pub(crate) in_flight: IntGaugeVec,
    /// Requests under way, whether they found a route or not.
    pub(crate) entered: IntGauge,
    /// Bytes of requests and answers that are held.
    pub(crate) buffered_bytes: IntGauge,
    /// Sessions opened, by route.
    pub(crate) sessions_opened: IntCounterVec,
    /// Pods put out for having failed call after call, by route.
    pub(crate) pods_ejected: IntCounterVec,
    /// Pods whose calls fail one after the other, by route.
    pub(crate) pods_failing: IntGaugeVec,
    /// Session ids refused, by reason.
    pub(crate) sessions_refused: IntCounterVec,
    /// Bounds that were hit, by bound.
    pub(crate) bound_hits: IntCounterVec,
    /// Connections open, by listener.
    pub(crate) connections: IntGaugeVec,
    /// Number of the snapshot in use.
    pub(crate) config_generation: IntGauge,
    /// When the snapshot in use was made, in Unix seconds.
    pub(crate) config_loaded: IntGauge,
    /// Since when the configuration in use may be out of date, in Unix seconds; 0 while it is the API server's.
    pub(crate) config_stale_since: IntGauge,
    /// Objects whose latest version is not served, by kind and reason.
    pub(crate) rejected_objects: IntGaugeVec,
    /// Inputs that could not be compiled at all.
    pub(crate) unusable_inputs: IntCounter,
    /// What came of sealed inputs, by outcome.
    pub(crate) sealed: IntCounterVec,
    /// Servers that did not say what they have, for the endpoint of all of them.
    pub(crate) catalog_failures: IntCounter,
    /// Panics that were caught.
    pub(crate) panics: IntCounter,
    /// Token reviews asked for, by outcome.
    pub(crate) token_reviews: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("portolan_gateway".into()), None)?;
        let duration =
            HistogramOpts::new("request_duration_seconds", "From a request's head to the end of its answer.")
                .buckets(DURATION_BUCKETS.into());
        let overhead =
            HistogramOpts::new("overhead_seconds", "A request's time that was neither its client's nor its server's.")
                .buckets(OVERHEAD_BUCKETS.into());
        let metrics = Self {
            requests: counters(
                "requests_total",
                "Requests by route, method and outcome.",
                &["route", "method", "outcome"],
            )?,
            duration: HistogramVec::new(duration, &["route", "method"])?,
            overhead: Histogram::with_opts(overhead)?,
            in_flight: gauges("requests_in_flight", "Requests under way, streams included.", &["route"])?,
            entered: IntGauge::new("requests_entered", "Requests under way, those without a route included.")?,
            buffered_bytes: IntGauge::new("buffered_bytes", "Bytes of requests and answers that are held.")?,
            sessions_opened: counters("sessions_opened_total", "Sessions opened.", &["route"])?,
            pods_ejected: counters(
                "pods_ejected_total",
                "Times that a pod failed call after call, and got nothing new for a while if another did.",
                &["route"],
            )?,
            pods_failing: gauges("pods_failing", "Pods whose calls fail one after the other.", &["route"])?,
            sessions_refused: counters("sessions_refused_total", "Session ids refused.", &["reason"])?,
            bound_hits: counters("bound_hits_total", "Bounds that were hit.", &["bound"])?,
            connections: gauges("connections", "Connections open.", &["listener"])?,
            config_generation: IntGauge::new("config_generation", "Number of the snapshot in use.")?,
            config_loaded: IntGauge::new("config_loaded_timestamp_seconds", "When the snapshot in use was made.")?,
            config_stale_since: IntGauge::new(
                "config_stale_since_timestamp_seconds",
                "When the configuration in use was kept on disk, while the API server has not answered since the start; else 0.",
            )?,
            rejected_objects: gauges("config_rejected_objects", "Objects not served as written.", &["kind", "reason"])?,
            unusable_inputs: IntCounter::new("config_unusable_total", "Inputs that could not be compiled at all.")?,
            sealed: counters("config_sealed_total", "What came of the inputs kept on disk.", &["outcome"])?,
            catalog_failures: IntCounter::new(
                "catalog_failures_total",
                "Times that a server did not say what it lists, for the endpoint of all servers.",
            )?,
            panics: IntCounter::new("panics_total", "Panics that were caught; each is a fault of the gateway.")?,
            token_reviews: counters("token_reviews_total", "Token reviews by outcome.", &["outcome"])?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let Self {
            registry,
            requests,
            duration,
            overhead,
            in_flight,
            entered,
            buffered_bytes,
            sessions_opened,
            pods_ejected,
            pods_failing,
            sessions_refused,
            bound_hits,
            connections,
            config_generation,
            config_loaded,
            config_stale_since,
            rejected_objects,
            unusable_inputs,
            sealed,
            catalog_failures,
            panics,
            token_reviews,
        } = self;
        let counters = [requests, sessions_opened, pods_ejected, sessions_refused, bound_hits, sealed, token_reviews];
        counters.into_iter().try_for_each(|metric| registry.register(Box::new(metric.clone())))?;
        let gauges = [in_flight, pods_failing, connections, rejected_objects];
        gauges.into_iter().try_for_each(|metric| registry.register(Box::new(metric.clone())))?;
        let numbers = [entered, buffered_bytes, config_generation, config_loaded, config_stale_since];
        numbers.into_iter().try_for_each(|metric| registry.register(Box::new(metric.clone())))?;
        registry.register(Box::new(unusable_inputs.clone()))?;
        registry.register(Box::new(catalog_failures.clone()))?;
        registry.register(Box::new(panics.clone()))?;
        registry.register(Box::new(overhead.clone()))?;
        registry.register(Box::new(duration.clone()))
    }

    /// Counts a request that has ended.
    pub(crate) fn request(&self, route: &str, method: &'static str, outcome: &'static str, seconds: f64) {
        self.requests.with_label_values(&[route, method, outcome]).inc();
        self.duration.with_label_values(&[route, method]).observe(seconds);
    }

    /// Counts a bound that was hit.
    pub(crate) fn bound_hit(&self, bound: &'static str) {
        self.bound_hits.with_label_values(&[bound]).inc();
    }

    /// Drops the series of a route that is gone, so that routes that come and go do not pile up.
    pub(crate) fn forget(&self, route: &str) {
        forget(&self.requests, route, |labels| self.requests.remove(labels));
        forget(&self.duration, route, |labels| self.duration.remove(labels));
        forget(&self.sessions_opened, route, |labels| self.sessions_opened.remove(labels));
        forget(&self.pods_ejected, route, |labels| self.pods_ejected.remove(labels));
        forget(&self.in_flight, route, |labels| self.in_flight.remove(labels));
    }

    /// The text format of Prometheus.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

type Labels<'a> = HashMap<&'a str, &'a str>;

fn forget(metric: &impl Collector, route: &str, remove: impl Fn(&Labels<'_>) -> Result<(), prometheus::Error>) {
    for family in metric.collect() {
        for series in family.get_metric() {
            let labels: Labels<'_> = series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("route") == Some(&route)
                && let Err(error) = remove(&labels)
            {
                tracing::debug!(%error, "a series was already gone");
            }
        }
    }
}

/// The label of a JSON-RPC method.
pub(crate) fn method_label(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_never_becomes_a_label() {
        assert_eq!(method_label("tools/call"), "tools/call");
        assert_eq!(method_label("tools/call\n"), OTHER);
        assert_eq!(method_label(""), OTHER);
    }

    #[test]
    fn a_route_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new().expect("registers");
        metrics.request("a/b", "ping", "OK", 0.1);
        metrics.in_flight.with_label_values(&["a/b"]).set(0);
        assert!(metrics.render().expect("text").contains("a/b"));
        metrics.forget("a/b");
        assert!(!metrics.render().expect("text").contains("a/b"));
    }
}
