//! Wakes objects for a reconcile from outside their watch.
//!
//! A set, not a queue: however often the same object is woken before its turn, it holds one place, so memory is
//! bounded by the number of objects.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures::Stream;
use tokio::sync::Notify;

/// Namespace and name of an object.
pub type Key = (String, String);

/// Objects of one kind to be reconciled.
#[derive(Clone, Debug, Default)]
pub struct Requeue {
    waiting: Arc<Mutex<HashSet<Key>>>,
    news: Arc<Notify>,
}

impl Requeue {
    /// Wakes one object.
    pub fn wake(&self, namespace: &str, name: &str) {
        self.lock().insert((namespace.to_owned(), name.to_owned()));
        self.news.notify_one();
    }

    /// Those that were woken; ends never. One reader at a time.
    pub fn stream(&self) -> impl Stream<Item = Key> + Send + 'static {
        futures::stream::unfold(self.clone(), |this| async move {
            loop {
                // In a statement of its own, so that the lock is gone before the wait.
                let taken = this.take();
                if let Some(key) = taken {
                    return Some((key, this));
                }
                this.news.notified().await;
            }
        })
    }

    fn take(&self) -> Option<Key> {
        let mut waiting = self.lock();
        let key = waiting.iter().next().cloned()?;
        waiting.take(&key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
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
        let mut stream = Box::pin(requeue.stream());
        let mut seen = vec![stream.next().await, stream.next().await];
        seen.sort();
        assert_eq!(seen, [Some(("a".into(), "x".into())), Some(("a".into(), "y".into()))]);
        requeue.wake("a", "x");
        assert_eq!(stream.next().await, Some(("a".into(), "x".into())));
    }
}
