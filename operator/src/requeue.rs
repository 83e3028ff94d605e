//! Wakes objects for a reconcile from outside their watch.
//!
//! A set, not a queue: however often the same object is woken before its turn, it holds one place, so memory is
//! bounded by the number of objects.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::Stream;
use tokio::sync::Notify;

/// Namespace and name of an object.
pub type Key = (String, String);

/// Objects of one kind to be reconciled, by namespace: each namespace has a controller of its own.
#[derive(Clone, Debug, Default)]
pub struct Requeue(Arc<Mutex<HashMap<String, Arc<Lane>>>>);

#[derive(Debug, Default)]
struct Lane {
    waiting: Mutex<HashSet<String>>,
    news: Notify,
}

impl Requeue {
    /// Wakes one object.
    pub fn wake(&self, namespace: &str, name: &str) {
        let lane = self.lane(namespace);
        lane.lock().insert(name.to_owned());
        lane.news.notify_one();
    }

    /// Those of a namespace that were woken; ends never. One reader at a time.
    pub fn stream(&self, namespace: &str) -> impl Stream<Item = Key> + Send + 'static + use<> {
        let namespace = namespace.to_owned();
        futures::stream::unfold((self.lane(&namespace), namespace), |(lane, namespace)| async move {
            loop {
                // In a statement of its own, so that the lock is gone before the wait.
                let taken = lane.take();
                if let Some(name) = taken {
                    return Some(((namespace.clone(), name), (lane, namespace)));
                }
                lane.news.notified().await;
            }
        })
    }

    fn lane(&self, namespace: &str) -> Arc<Lane> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(namespace.to_owned()).or_default().clone()
    }
}

impl Lane {
    fn take(&self) -> Option<String> {
        let mut waiting = self.lock();
        let name = waiting.iter().next().cloned()?;
        waiting.take(&name)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn an_object_woken_twice_is_reconciled_once_and_none_is_lost() {
        let requeue = Requeue::default();
        requeue.wake("a", "x");
        requeue.wake("a", "x");
        requeue.wake("a", "y");
        requeue.wake("b", "z");
        let mut stream = Box::pin(requeue.stream("a"));
        let mut seen = vec![stream.next().await, stream.next().await];
        seen.sort();
        assert_eq!(seen, [Some(("a".into(), "x".into())), Some(("a".into(), "y".into()))]);
        requeue.wake("a", "x");
        assert_eq!(stream.next().await, Some(("a".into(), "x".into())));
    }
}
