//! Who hears of changes: listen streams of clients of this era, and sessions of those before.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleServer;
use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, SubscriptionContext, SubscriptionSink};

/// What changed.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    /// The list of tools.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The resource of this URI.
    Resource(&'a str),
}

/// URIs that one session watches.
pub(crate) type Watched = Arc<Mutex<HashSet<String>>>;

/// Everyone who hears of changes.
#[derive(Default)]
pub(crate) struct Listeners {
    streams: Mutex<Streams>,
    sessions: Mutex<Vec<(Peer<RoleServer>, Watched)>>,
}

#[derive(Default)]
struct Streams {
    last: u64,
    open: HashMap<u64, SubscriptionSink>,
}

impl Listeners {
    /// A session that opened. It is forgotten when it has closed.
    pub(crate) fn add(&self, peer: Peer<RoleServer>, watched: Watched) {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|(peer, _)| !peer.is_transport_closed());
        sessions.push((peer, watched));
    }

    /// Keeps a listen stream until its client closes it.
    pub(crate) async fn keep(&self, stream: &SubscriptionContext) {
        let number = {
            let mut streams = lock(&self.streams);
            streams.last += 1;
            let number = streams.last;
            streams.open.insert(number, stream.sink().clone());
            number
        };
        let _kept = Kept { listeners: self, number };
        stream.cancelled().await;
    }

    /// Tells everyone who asked for it.
    pub(crate) async fn tell(&self, change: Change<'_>) {
        let streams: Vec<_> = lock(&self.streams).open.values().cloned().collect();
        for stream in streams {
            // Each stream lets through what its client asked for, and one that has just closed needs nothing.
            let _ = match change {
                Change::Tools => stream.notify_tool_list_changed().await,
                Change::Prompts => stream.notify_prompt_list_changed().await,
                Change::Resource(uri) => stream.notify_resource_updated(uri).await,
            };
        }
        let sessions: Vec<_> = lock(&self.sessions).clone();
        for (peer, watched) in sessions {
            let _ = match change {
                Change::Tools => peer.notify_tool_list_changed().await,
                Change::Prompts => peer.notify_prompt_list_changed().await,
                Change::Resource(uri) if lock(&watched).contains(uri) => {
                    peer.notify_resource_updated(updated(uri)).await
                }
                Change::Resource(_) => Ok(()),
            };
        }
    }
}

/// Takes a stream off the list, also when the call that kept it is dropped.
struct Kept<'a> {
    listeners: &'a Listeners,
    number: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        lock(&self.listeners.streams).open.remove(&self.number);
    }
}

/// A lock whose holder panicked is as good as any other here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn updated(uri: &str) -> ResourceUpdatedNotificationParam {
    ResourceUpdatedNotificationParam::new(uri)
}
