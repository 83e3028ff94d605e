//! Views that are kept: who asks again gets what was put together before, for as long as nothing of it changed and nobody has
//! to be asked anew. What that costs does not grow with the servers.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use portolan_policy::identity::{Identity, Principal};
use portolan_snapshot::{RouteName, Toolset};
use tokio::time::Instant;

use super::view::{Bounds, View};
use crate::gateway::Gateway;
use crate::state::Serving;

/// Callers of endpoints whose views are remembered.
const MAX_KEPT: u64 = 10_000;
/// How long the last view of an endpoint is kept after somebody asked.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// An endpoint: a toolset, one server alone, or all of them.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Endpoint {
    All,
    Toolset(RouteName),
    Alone(RouteName),
}

impl Endpoint {
    fn of(toolset: Option<&Arc<Toolset>>) -> Self {
        match toolset {
            None => Self::All,
            Some(toolset) if toolset.selection.is_alone() => Self::Alone(toolset.name.clone()),
            Some(toolset) => Self::Toolset(toolset.name.clone()),
        }
    }
}

/// What is remembered.
pub(crate) struct Views {
    /// By who asked.
    of: Cache<(Endpoint, Principal), Kept>,
    /// The view of each endpoint that was made last, for the next caller who may use the same servers.
    last: Cache<Endpoint, Arc<View>>,
    bounds: Arc<Bounds>,
}

#[derive(Clone)]
struct Kept {
    view: Arc<View>,
    /// Of which configuration, and of which state of the catalog it is.
    of: (u64, u64),
    /// When servers have to be asked again.
    due: Instant,
}

/// Who asks, and what.
#[derive(Clone, Copy)]
pub(super) struct Looks<'a> {
    pub(super) serving: &'a Serving,
    pub(super) caller: &'a Identity,
    pub(super) toolset: Option<&'a Arc<Toolset>>,
}

impl Views {
    /// Nobody is asked again within `fresh`.
    pub(crate) fn new(fresh: Duration) -> Self {
        // No longer than they are good, so that views that nobody looks at any more are not held.
        let of = Cache::builder().max_capacity(MAX_KEPT).time_to_live(fresh).build();
        let last = Cache::builder().max_capacity(MAX_KEPT).time_to_idle(IDLE).build();
        Self { of, last, bounds: Arc::default() }
    }

    /// What is shown. Waits for servers of which nothing is known yet, and not for long.
    pub(super) async fn view(&self, gateway: &Arc<Gateway>, looks: Looks<'_>) -> Arc<View> {
        let key = (Endpoint::of(looks.toolset), *looks.caller.principal());
        let of = (looks.serving.number, gateway.catalog.version());
        let kept = self.of.get(&key).await;
        if let Some(kept) = kept.filter(|kept| kept.of == of && Instant::now() < kept.due) {
            return kept.view;
        }
        let members = looks.serving.members_for(looks.caller, looks.toolset.map(|toolset| &toolset.selection));
        let (parts, due) = gateway.catalog.parts(gateway, &members).await;
        let last = self.last.get(&key.0).await;
        let same = last.clone().filter(|last| last.is_of(&parts, looks.toolset.map(Arc::as_ref)));
        let view = match same {
            Some(same) => same,
            None => {
                let view = View::new(parts, looks.toolset.cloned(), last.as_deref(), self.bounds.clone());
                let view = Arc::new(view);
                self.last.insert(key.0.clone(), view.clone()).await;
                view
            }
        };
        self.of.insert(key, Kept { view: view.clone(), of, due }).await;
        view
    }
}
