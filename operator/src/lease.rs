//! Who reconciles: one holder of a `coordination.k8s.io` Lease.
//!
//! Every write carries the `resourceVersion` that was read, so two processes can never both believe a write that only
//! one of them made; after a conflict the lease is read again. Whether another holder is alive is judged by this
//! process's own clock: the lease has not changed for its duration since it was first seen so.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{config::LeaseName, metrics::Metrics};

/// A holder that has not renewed for this long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// Of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Why this process may not go on.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process took the lease: this one was slow or cut off.
    #[error("the lease is now held by {0}")]
    Lost(String),
    /// The API server could not be reached until the deadline.
    #[error("the lease could not be renewed in time: {0}")]
    Expired(String),
}

/// What this process knows of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The API server has not answered yet.
    Unknown,
    /// Another process reconciles.
    Standby,
    /// This process reconciles.
    Leader,
}

/// The lease as last read, and since when it looks so.
struct Seen {
    lease: Lease,
    since: Instant,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it, or its holder is gone: take it.
    Take,
    /// Its holder is alive.
    Wait,
}

/// Holds a lease, or waits for it.
pub struct Candidate {
    api: Api<Lease>,
    name: LeaseName,
    identity: String,
    standing: watch::Sender<Standing>,
    metrics: Metrics,
    seen: Option<Seen>,
    /// When the last write that was taken had been sent: others count from no earlier than that.
    renewed: Instant,
}

impl Candidate {
    /// A candidate named `identity`, which no other process may be named. `client` should not retry by itself: a retry
    /// that outlives the deadline would be a lie.
    #[must_use]
    pub fn new(client: Client, name: LeaseName, identity: String, metrics: Metrics) -> Self {
        let api = Api::namespaced(client, &name.namespace);
        let (standing, _) = watch::channel(Standing::Unknown);
        Self { api, name, identity, standing, metrics, seen: None, renewed: Instant::now() }
    }

    /// Tells where this process stands.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Acquires and renews until `stop`, then gives the lease up.
    ///
    /// # Errors
    /// The lease was lost. The process must end at once: another one may reconcile already.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaseError> {
        loop {
            // A holder must know that it lost before another may take over, so a step never outlasts the deadline.
            let leads = *self.standing.borrow() == Standing::Leader;
            let deadline = if leads { self.renewed + RENEW_DEADLINE } else { Instant::now() + RENEW_DEADLINE };
            match timeout_at(deadline, self.step()).await.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(standing) => {
                    let before = self.standing.send_replace(standing);
                    self.metrics.leader(standing == Standing::Leader);
                    if before == Standing::Leader && standing != Standing::Leader {
                        return Err(LeaseError::Lost(self.holder().unwrap_or("nobody").to_owned()));
                    }
                    if before != standing {
                        tracing::info!(lease = self.name.name, ?standing, holder = self.holder(), "lease");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease cannot be read or written");
                    if leads && self.renewed.elapsed() + RETRY >= RENEW_DEADLINE {
                        return Err(LeaseError::Expired(error));
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(RETRY) => {}
            }
        }
        self.vacate().await;
        Ok(())
    }

    fn holder(&self) -> Option<&str> {
        holder(&self.seen.as_ref()?.lease)
    }

    /// One read, if needed, and at most one write.
    async fn step(&mut self) -> Result<Standing, String> {
        // What a holder wrote last is what there is, unless a write conflicts.
        if *self.standing.borrow() != Standing::Leader || self.seen.is_none() {
            self.read().await?;
        }
        let (lease, unchanged) = match &self.seen {
            Some(seen) => (Some(&seen.lease), seen.since.elapsed()),
            None => (None, Duration::ZERO),
        };
        let decision = decide(lease, &self.identity, unchanged);
        if decision == Decision::Wait {
            return Ok(Standing::Standby);
        }
        let wanted = claim(lease, &self.name, &self.identity, decision == Decision::Renew, Timestamp::now());
        match self.write(&wanted, decision == Decision::Create).await {
            Ok(()) => Ok(Standing::Leader),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                self.read().await?;
                // Ours still: only something beside the holder was changed, and the next step renews.
                let ours = self.holder() == Some(self.identity.as_str());
                Ok(if ours { *self.standing.borrow() } else { Standing::Standby })
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let call = timeout(CALL_TIMEOUT, self.api.get_opt(&self.name.name)).await;
        let lease = call.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        self.seen = lease.map(|lease| {
            let version = |lease: &Lease| lease.metadata.resource_version.clone();
            match self.seen.take() {
                Some(seen) if version(&seen.lease) == version(&lease) => seen,
                _ => Seen { lease, since: Instant::now() },
            }
        });
        Ok(())
    }

    async fn write(&mut self, wanted: &Lease, create: bool) -> Result<(), kube::Error> {
        let params = PostParams::default();
        let call = async {
            if create {
                self.api.create(&params, wanted).await
            } else {
                self.api.replace(&self.name.name, &params, wanted).await
            }
        };
        let sent = Instant::now();
        let timed_out = |_| kube::Error::Service("no answer in time".into());
        match timeout(CALL_TIMEOUT, call).await.map_err(timed_out).and_then(|result| result) {
            Ok(lease) => {
                self.seen = Some(Seen { lease, since: Instant::now() });
                self.renewed = sent;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets the next process take over at once.
    async fn vacate(&mut self) {
        if *self.standing.borrow() != Standing::Leader {
            return;
        }
        let Some(Seen { lease, .. }) = &self.seen else { return };
        let mut vacant = lease.clone();
        if let Some(spec) = &mut vacant.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match self.write(&vacant, false).await {
            Ok(()) => tracing::info!(lease = self.name.name, "gave the lease up"),
            Err(error) => tracing::warn!(%error, "the lease could not be given up; it expires"),
        }
        self.standing.send_replace(Standing::Standby);
        self.metrics.leader(false);
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn decide(lease: Option<&Lease>, identity: &str, unchanged: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    match holder(lease) {
        Some(holder) if holder == identity => Decision::Renew,
        Some(_) => {
            let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
            let duration = seconds.and_then(|seconds| seconds.try_into().ok()).map_or(DURATION, Duration::from_secs);
            if unchanged > duration { Decision::Take } else { Decision::Wait }
        }
        None => Decision::Take,
    }
}

/// The lease with us as its holder, on top of what was read.
fn claim(lease: Option<&Lease>, name: &LeaseName, identity: &str, renewal: bool, now: Timestamp) -> Lease {
    let before = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let transitions = before.lease_transitions.unwrap_or_default();
    let metadata = lease.map_or_else(
        || ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            ..ObjectMeta::default()
        },
        |lease| ObjectMeta { managed_fields: None, ..lease.metadata.clone() },
    );
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        acquire_time: if renewal { before.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        lease_transitions: Some(if renewal || lease.is_none() { transitions } else { transitions.saturating_add(1) }),
        ..before
    };
    Lease { metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>) -> Lease {
        let metadata = ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() };
        let spec = LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn name() -> LeaseName {
        LeaseName { namespace: "system".into(), name: "portolan-operator".into() }
    }

    #[test]
    fn a_live_holder_is_waited_for_and_a_dead_one_is_replaced() {
        let held = lease(Some("other"));
        assert_eq!(decide(Some(&held), "me", Duration::from_secs(15)), Decision::Wait);
        assert_eq!(decide(Some(&held), "me", Duration::from_millis(15_001)), Decision::Take);
    }

    #[test]
    fn an_absent_lease_is_made_a_vacant_one_taken_and_our_own_renewed() {
        assert_eq!(decide(None, "me", Duration::ZERO), Decision::Create);
        assert_eq!(decide(Some(&lease(None)), "me", Duration::ZERO), Decision::Take);
        assert_eq!(decide(Some(&lease(Some(""))), "me", Duration::ZERO), Decision::Take);
        assert_eq!(decide(Some(&lease(Some("me"))), "me", Duration::from_secs(60)), Decision::Renew);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_whose_every_renewal_conflicts_ends_before_another_may_take_over() {
        let server = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let ours = serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "portolan-operator", "namespace": "system", "resourceVersion": "7"},
                "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15},
            });
            let refusal = |code, reason| {
                serde_json::json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
                })
            };
            let (code, body) = match *request.method() {
                http::Method::PUT => (409, refusal(409, "Conflict")),
                // Made by the first step; after a conflict it is read again.
                http::Method::POST => (201, ours),
                _ if MADE.swap(true, std::sync::atomic::Ordering::SeqCst) => (200, ours),
                _ => (404, refusal(404, "NotFound")),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body).unwrap())
        });
        static MADE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        let client = Client::new(server, "system");
        let candidate = Candidate::new(client, name(), "me".into(), Metrics::new().unwrap());
        let standing = candidate.standing();
        let started = Instant::now();
        let end = candidate.run(CancellationToken::new()).await;
        assert!(matches!(end, Err(LeaseError::Expired(_))), "{end:?}");
        assert_eq!(*standing.borrow(), Standing::Leader, "it led until then");
        assert!(started.elapsed() < DURATION, "{:?}", started.elapsed());
    }

    #[test]
    fn every_write_over_an_existing_lease_carries_the_version_that_was_read() {
        for renewal in [true, false] {
            let claimed = claim(Some(&lease(Some("x"))), &name(), "me", renewal, Timestamp::UNIX_EPOCH);
            assert_eq!(claimed.metadata.resource_version.as_deref(), Some("7"));
        }
        assert_eq!(claim(None, &name(), "me", false, Timestamp::UNIX_EPOCH).metadata.resource_version, None);
    }

    #[test]
    fn a_take_over_counts_as_a_transition_and_a_renewal_keeps_the_time_of_acquisition() {
        let transitions = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        let taken = claim(Some(&lease(Some("other"))), &name(), "me", false, Timestamp::UNIX_EPOCH);
        assert_eq!(transitions(&taken), Some(4));
        let renewed = claim(Some(&taken), &name(), "me", true, Timestamp::MAX);
        assert_eq!(transitions(&renewed), Some(4));
        let acquired = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
        assert_eq!(acquired(&renewed), acquired(&taken));
        assert_eq!(transitions(&claim(None, &name(), "me", false, Timestamp::UNIX_EPOCH)), Some(0));
    }
}
