//! Which pods hold the sessions that belong to a client's session with all servers, as far as this replica knows.
//!
//! It only saves a question: what is not known here is found by asking the pods in an order that every replica shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use portolan_mcp::token::SessionKey;
use tokio::sync::{Mutex as Turns, MutexGuard as Turn};

/// Parts of sessions that are remembered, of all sessions together; each takes less than a KiB.
const MAX_PARTS: u64 = 50_000;
/// For how long after they were used last.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// What is remembered.
pub(crate) struct Placed(Cache<SessionKey, Places>);

/// Places of one session's parts, by route.
type Places = Arc<Mutex<HashMap<String, Arc<Place>>>>;

/// Where the part at one route is.
#[derive(Default)]
pub(super) struct Place {
    pod: Mutex<Option<Box<str>>>,
    finding: Turns<()>,
}

impl Place {
    /// UID of the pod, where it is known.
    pub(super) fn pod(&self) -> Option<Box<str>> {
        lock(&self.pod).clone()
    }

    /// Notes the pod.
    pub(super) fn note(&self, pod: &str) {
        *lock(&self.pod) = Some(pod.into());
    }

    /// The turn of looking for it, or of opening it: one request at a time.
    pub(super) async fn turn(&self) -> Turn<'_, ()> {
        self.finding.lock().await
    }
}

impl Placed {
    pub(crate) fn new() -> Self {
        let parts = |_: &SessionKey, places: &Places| u32::try_from(lock(places).len()).unwrap_or(u32::MAX).max(1);
        Self(Cache::builder().max_capacity(MAX_PARTS).weigher(parts).time_to_idle(IDLE).build())
    }

    /// The place of the session's part at `route`.
    pub(super) async fn at(&self, session: &SessionKey, route: &str) -> Arc<Place> {
        let places = self.0.get_with_by_ref(session, async { Places::default() }).await;
        let place = {
            let mut known = lock(&places);
            if let Some(place) = known.get(route) {
                return place.clone();
            }
            known.entry(route.to_owned()).or_default().clone()
        };
        // Weighed anew.
        self.0.insert(session.clone(), places).await;
        place
    }

    /// Everything that is known of a session: routes, and UIDs of pods.
    pub(super) async fn all(&self, session: &SessionKey) -> Vec<(String, Box<str>)> {
        let places = self.0.get(session).await.unwrap_or_default();
        let places = lock(&places);
        places.iter().filter_map(|(route, place)| Some((route.clone(), place.pod()?))).collect()
    }

    /// Forgets a session.
    pub(super) async fn forget(&self, session: &SessionKey) {
        self.0.invalidate(session).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_of_many_parts_take_no_more_room_than_many_of_one() {
        let placed = Placed::new();
        for _ in 0..MAX_PARTS / 50 + 100 {
            let session = SessionKey::generate().expect("random bytes");
            for part in 0..50 {
                placed.at(&session, &format!("default/{part}")).await.note("pod");
            }
            assert_eq!(placed.all(&session).await.len(), 50, "what was used just now is remembered");
        }
        placed.0.run_pending_tasks().await;
        let mut kept = 0;
        for (_, places) in &placed.0 {
            kept += lock(&places).len() as u64;
        }
        assert!(kept <= MAX_PARTS && kept > MAX_PARTS / 2, "{kept}");
    }
}
