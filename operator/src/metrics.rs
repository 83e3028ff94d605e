//! `portolan_operator_*`. Labels come from fixed sets. Only what known-answer checks find names an object, and goes with it.

use portolan_canary::{Cause, Outcome};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::requeue::Key;

/// The operator's metrics; clones share the counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    status_patches: IntCounterVec,
    writes: IntCounterVec,
    refused: IntCounterVec,
    resources: IntGaugeVec,
    leader: IntGauge,
    canaries: IntCounterVec,
    canary_latency: Histogram,
    canaries_failing: IntGaugeVec,
    rollbacks: IntCounter,
    scalings: IntCounterVec,
    turns: IntGaugeVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            reconciles: IntCounterVec::new(
                Opts::new("portolan_operator_reconcile_total", "Reconciles by kind and outcome"),
                &["kind", "outcome"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new("portolan_operator_reconcile_duration_seconds", "Duration of a reconcile")
                    .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
                &["kind"],
            )?,
            status_patches: IntCounterVec::new(
                Opts::new("portolan_operator_status_patch_total", "Writes of status, and those that were not needed"),
                &["outcome"],
            )?,
            writes: IntCounterVec::new(
                Opts::new(
                    "portolan_operator_child_writes_total",
                    "Writes of children and of the default gateway by operation",
                ),
                &["operation"],
            )?,
            refused: IntCounterVec::new(
                Opts::new("portolan_operator_refused_total", "What was over a bound, or not taken, by what it was"),
                &["what"],
            )?,
            resources: IntGaugeVec::new(
                Opts::new("portolan_operator_resources", "Objects by kind and state of Ready"),
                &["kind", "state"],
            )?,
            leader: IntGauge::new("portolan_operator_leader", "1 while this process holds the lease")?,
            canaries: IntCounterVec::new(
                Opts::new("portolan_operator_canary_checks_total", "Known-answer checks at pods by outcome"),
                &["outcome"],
            )?,
            canary_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "portolan_operator_canary_latency_seconds",
                    "Until the answer of a check that passed",
                )
                .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            )?,
            canaries_failing: IntGaugeVec::new(
                Opts::new("portolan_operator_canary_failing_pods", "Pods at which a known-answer check fails"),
                &["namespace", "server", "check"],
            )?,
            rollbacks: IntCounter::new(
                "portolan_operator_rollbacks_total",
                "Revisions that took a share of new sessions and were taken back",
            )?,
            scalings: IntCounterVec::new(
                Opts::new(
                    "portolan_operator_scalings_total",
                    "Servers that were to have more or fewer pods for their load",
                ),
                &["direction"],
            )?,
            turns: IntGaugeVec::new(
                Opts::new(
                    "portolan_operator_release_rollouts",
                    "Servers that roll for another release of the operator, and that wait for their turn",
                ),
                &["state"],
            )?,
        };
        let Self {
            registry,
            reconciles,
            durations,
            status_patches,
            writes,
            refused,
            resources,
            leader,
            canaries,
            canary_latency,
            canaries_failing,
            rollbacks,
            scalings,
            turns,
        } = &metrics;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(status_patches.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(resources.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(canaries.clone()))?;
        registry.register(Box::new(canary_latency.clone()))?;
        registry.register(Box::new(canaries_failing.clone()))?;
        registry.register(Box::new(rollbacks.clone()))?;
        registry.register(Box::new(scalings.clone()))?;
        registry.register(Box::new(turns.clone()))?;
        for direction in ["up", "down"] {
            scalings.with_label_values(&[direction]);
        }
        metrics.turns(0, 0);
        Ok(metrics)
    }

    /// So many servers roll for another release, and so many wait to.
    pub fn turns(&self, under_way: usize, waiting: usize) {
        for (state, count) in [("under_way", under_way), ("waiting", waiting)] {
            self.turns.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A reconcile of `kind` ended with `outcome` (`success`, or an [`crate::error::Class::label`]).
    pub fn reconcile(&self, kind: &'static str, outcome: &'static str, seconds: f64) {
        self.reconciles.with_label_values(&[kind, outcome]).inc();
        self.durations.with_label_values(&[kind]).observe(seconds);
    }

    /// A status was `written`, `unchanged` or `failed`.
    pub fn status_patch(&self, outcome: &'static str) {
        self.status_patches.with_label_values(&[outcome]).inc();
    }

    /// A child, or the default gateway, is written by `operation` (`create`, `apply`, `replace`, `patch`, `delete`).
    pub fn write(&self, operation: &'static str) {
        self.writes.with_label_values(&[operation]).inc();
    }

    /// An `event` that the API server did not take, a `stream_line` of a gateway or a `probe_line` of a bridge longer than its bound.
    pub fn refused(&self, what: &'static str) {
        self.refused.with_label_values(&[what]).inc();
    }

    /// How many objects of `kind` are in `state` (`ready`, `not_ready`, `malformed`).
    pub fn resources(&self, kind: &'static str, state: &'static str, count: i64) {
        self.resources.with_label_values(&[kind, state]).set(count);
    }

    /// A known-answer check was made, or could not be.
    pub fn canary(&self, outcome: &Outcome) {
        let label = match outcome {
            Outcome::Passed(took) => {
                self.canary_latency.observe(took.as_secs_f64());
                "passed"
            }
            Outcome::Failed(failed) => match failed.cause {
                Cause::NoSession => "no_session",
                Cause::Late => "late",
                Cause::Error => "error",
                Cause::Wrong => "wrong",
                Cause::UnknownTool => "unknown_tool",
            },
            Outcome::NotRun(_) => "not_run",
        };
        self.canaries.with_label_values(&[label]).inc();
    }

    /// At how many pods of `server` its `check` fails.
    pub fn canary_failing(&self, (namespace, server): &Key, check: &str, pods: usize) {
        let pods = i64::try_from(pods).unwrap_or(i64::MAX);
        self.canaries_failing.with_label_values(&[namespace.as_str(), server, check]).set(pods);
    }

    /// The check is made no more.
    pub fn forget_canary(&self, (namespace, server): &Key, check: &str) {
        // One that never was counted has nothing to forget.
        let _ = self.canaries_failing.remove_label_values(&[namespace.as_str(), server, check]);
    }

    /// A revision was taken back.
    pub fn rolled_back(&self) {
        self.rollbacks.inc();
    }

    /// The load of a server asks for other than the pods that it was to have: `up` or `down`.
    pub fn scaled(&self, direction: &'static str) {
        self.scalings.with_label_values(&[direction]).inc();
    }

    /// Whether this process leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A metric is malformed.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
