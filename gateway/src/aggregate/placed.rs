//! Which pods hold the sessions that belong to a client's session with all servers, as far as this replica knows.
//!
//! It only saves a question: what is not known here is found by asking the pods in an order that every replica shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use portolan_mcp::token::SessionKey;

/// Sessions that are remembered.
const MAX_SESSIONS: u64 = 100_000;
/// For how long after they were used last.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Pods of one session by route, with their UIDs.
type Pods = Arc<Mutex<HashMap<String, Box<str>>>>;

/// What is remembered.
pub(crate) struct Placed(Cache<SessionKey, Pods>);

impl Placed {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_SESSIONS).time_to_idle(IDLE).build())
    }

    /// The pod that holds the session's part at `route`.
    pub(super) async fn find(&self, session: &SessionKey, route: &str) -> Option<Box<str>> {
        let pods = self.0.get(session).await?;
        lock(&pods).get(route).cloned()
    }

    /// Notes the pod that holds the session's part at `route`.
    pub(super) async fn note(&self, session: &SessionKey, route: &str, pod: &str) {
        let pods = self.0.get_with_by_ref(session, async { Pods::default() }).await;
        lock(&pods).insert(route.to_owned(), pod.into());
    }

    /// Everything that is known of a session: routes and pods.
    pub(super) async fn all(&self, session: &SessionKey) -> Vec<(String, Box<str>)> {
        let pods = self.0.get(session).await.unwrap_or_default();
        lock(&pods).iter().map(|(route, pod)| (route.clone(), pod.clone())).collect()
    }

    /// Forgets a session.
    pub(super) async fn forget(&self, session: &SessionKey) {
        self.0.invalidate(session).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
